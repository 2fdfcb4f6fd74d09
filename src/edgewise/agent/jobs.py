"""What the resident agent asks of its short-lived helper process, and what comes back: one JSON value per line.

Jobs come on standard input, never in arguments, because other users of the machine can read arguments.
"""

import msgspec

from edgewise.engine.protocol import Failed, Fetched, FetchStage
from edgewise.resources.meta import Scalar
from edgewise.wire.desired import ArtifactTarget, SealedSecret


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the device's data is and how to reach the control plane. `floor`: the time is at least this (seconds since the epoch)."""

    data: str
    addresses: tuple[str, ...]
    proxy: str = ""
    floor: float = 0.0


class FetchJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="job", tag="fetch"):
    """Fetch, verify and install one variant."""

    place: Place
    artifact: ArtifactTarget
    parameters: dict[str, Scalar] = {}


class RenewJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="job", tag="renew"):
    """Renew the certificate if it is time, or now."""

    place: Place
    force: bool = False


class UnsealJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="job", tag="unseal"):
    """Open the secrets that are sealed to this device for workloads of one namespace."""

    place: Place
    device_uid: str
    namespace: str
    secrets: tuple[SealedSecret, ...]


Job = FetchJob | RenewJob | UnsealJob


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="progress"):
    """A fetch goes on. `done` and `total` in bytes; `tree` is what it installs, once it knows."""

    stage: FetchStage
    done: int = 0
    total: int = 0
    tree: str = ""


class FetchEnded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="fetched"):
    """How a fetch ended."""

    result: Fetched | Failed


class Renewed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="renewed"):
    """How a renewal ended. `due_in`: seconds until the next is due. `not_after` is of the certificate that is in use now."""

    renewed: bool
    due_in: float
    not_after: float
    error: str = ""


class Unsealed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="line", tag="unsealed"):
    """The opened secrets by name, each a mapping of keys to values; `failed` says why others could not be opened."""

    secrets: dict[str, dict[str, str]]
    failed: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Unsealed({', '.join(sorted(self.secrets))})"


Line = Progress | FetchEnded | Renewed | Unsealed
