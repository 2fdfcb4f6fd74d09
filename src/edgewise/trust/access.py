"""Who may do what through the operator API: one table of roles, default deny. Standard library and msgspec only.

Roles grow: an operator may do what a viewer may, an admin what an operator may. Nobody, admins included, is ever shown a Secret's data:
the API has no way to return it, this table only says who may see that it exists.
"""

from typing import Final, Literal, get_args

import msgspec

from edgewise.resources.kinds import KINDS

Role = Literal["viewer", "operator", "admin"]

Verb = Literal[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "delete",
    "publish",
    "label",
    "pause",
    "resume",
    "promote",
    "abort",
    "clear-refused",
    "decommission",
    "revoke",
    "approve",
]
"""What is done. `publish` is for releases and blobs, the ones between are what operators do to rollouts and devices."""

OTHER_KINDS: Final = ("Event", "Log", "Metrics", "Placement", "Schema", "Blob", "Repository", "JoinToken", "AccessToken")
"""What the API offers beside resources, under the names that `decide` knows."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)


class Decision(msgspec.Struct, frozen=True):
    """Whether it may be done, and why (not), fit to be shown and to be kept in the audit record."""

    allowed: bool
    reason: str


class _Rule(msgspec.Struct, frozen=True):
    """From `role` upwards, `verbs` on `kinds`."""

    role: Role
    verbs: frozenset[str]
    kinds: frozenset[str]


_READ: Final = frozenset({"get", "list", "watch"})
_WRITE: Final = frozenset({"create", "update", "delete"})
_SEEN: Final = frozenset({kind.name for kind in KINDS} | {"Event", "Log", "Metrics", "Placement", "Schema", "Repository"})
_WRITTEN_BY_OPERATORS: Final = frozenset({"Artifact", "Workload", "Config", "Secret"})

_RULES: Final = (
    _Rule("viewer", _READ, _SEEN),
    _Rule("operator", _WRITE, _WRITTEN_BY_OPERATORS),
    _Rule("operator", frozenset({"create", "update", "label"}), frozenset({"Site", "Device"})),
    _Rule("operator", frozenset({"pause", "resume", "promote", "abort"}), frozenset({"Rollout"})),
    _Rule("operator", frozenset({"clear-refused"}), frozenset({"Device", "Instance"})),
    _Rule("operator", frozenset({"get", "publish"}), frozenset({"Blob", "Repository", "ArtifactVersion"})),
    _Rule("admin", frozenset({"delete"}), frozenset({"Site", "Device", "Agent", "ArtifactVersion"})),
    _Rule("admin", frozenset({"decommission", "revoke", "approve"}), frozenset({"Device", "Agent"})),
    _Rule("admin", frozenset({"create", "get", "list", "delete", "revoke"}), frozenset({"JoinToken", "AccessToken"})),
)
"""The whole table. What no rule allows is denied."""


def decide(role: Role | None, verb: Verb, kind: str) -> Decision:
    """Decide whether `role` (None: nobody that is known) may do `verb` to things of `kind` (a name of `resources.kinds` or of
    `OTHER_KINDS`). Unknown words are denied."""
    if role is None or role not in ROLES:
        return Decision(allowed=False, reason="no valid access token")
    least = least_role(verb, kind)
    if least is None:
        return Decision(allowed=False, reason=f"nobody may {verb} {kind}")
    if ROLES.index(role) < ROLES.index(least):
        return Decision(allowed=False, reason=f"to {verb} {kind} takes the role {least}, this is {role}")
    return Decision(allowed=True, reason=f"{role} may {verb} {kind}")


def least_role(verb: Verb, kind: str) -> Role | None:
    """Return the least role that may do it, or None when nobody may."""
    allowing = [ROLES.index(rule.role) for rule in _RULES if verb in rule.verbs and kind in rule.kinds]
    return ROLES[min(allowing)] if allowing else None
