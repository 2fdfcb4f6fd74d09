"""The envelope that every resource shares, and the names that may stand in it.

The shape is the one of Kubernetes objects: `apiVersion`, `kind`, `metadata`, `spec`, `status`.
"""

from typing import Annotated, Final, Literal

import msgspec

API_VERSION: Final = "edgewise/v1alpha1"
ApiVersion = Literal["edgewise/v1alpha1"]

DEFAULT_NAMESPACE: Final = "default"

Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?$(?!\n)",
        description="Lower-case letters, digits, '-' and '.', at most 128 characters, beginning and ending with a letter or digit.",
    ),
]
"""A resource's name (after RFC 1123 subdomains). In Python `$` also matches before a last newline, hence `(?!\\n)` in all patterns."""

VersionedName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?(:[A-Za-z0-9][-A-Za-z0-9._]{0,63})?$(?!\n)",
        description="Lower-case letters, digits, '-' and '.'; NAME:VERSION for an artifact version.",
    ),
]
"""A name that may carry a version behind a colon, as artifact versions do."""

Version = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]{0,63}$(?!\n)", description="Letters, digits, '-', '.' and '_', at most 64 characters."
    ),
]

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]
"""`sha256:` and 64 lower-case hexadecimal digits."""

LabelValue = Annotated[str, msgspec.Meta(max_length=63)]


class Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Who a resource is. The control plane sets `uid`, `generation`, `revision` and the times; a user sets the rest.

    `generation` counts changes of the spec. `revision` is the store's revision of the last change of any part.
    Times are seconds since the Unix epoch, UTC.
    """

    name: VersionedName
    namespace: str = ""
    uid: str = ""
    labels: dict[str, LabelValue] = {}
    annotations: dict[str, str] = {}
    generation: int = 0
    revision: int = 0
    status_revision: int = 0
    created_at: float = 0.0
    deleted_at: float | None = None


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One observed property. `status` is `True`, `False` or `Unknown`, as in Kubernetes; `since` is when it last changed."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    since: float = 0.0


Scalar = str | int | float | bool
"""What a declared parameter may be set to."""
