"""The keys of the documents that a view holds, by kind."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from edgewise.store.contract import Key

if TYPE_CHECKING:
    from edgewise.controllers.view import FleetView


def known_keys(view: "FleetView", kind: str) -> tuple[Key, ...]:
    """Return the keys of all documents of `kind` that were taken over and not removed."""
    find = _TABLE.get(kind)
    return () if find is None else tuple(key for key in find(view) if key.kind == kind)


_TABLE: Final[dict[str, Callable[["FleetView"], Iterable[Key]]]] = {
    "Site": lambda view: (Key("Site", "", name) for name in view.sites),
    "Device": lambda view: (row.key for row in view.devices.values()),
    "Agent": lambda view: (row.key for row in view.agents.values()),
    "Artifact": lambda view: (Key("Artifact", *key) for key in view.artifacts),
    "ArtifactVersion": lambda view: (
        Key("ArtifactVersion", namespace, f"{artifact}:{version}")
        for (namespace, artifact), versions in view.versions.items()
        for version in versions
    ),
    "Config": lambda view: view.configs,
    "ConfigSnapshot": lambda view: view.configs,
    "Secret": lambda view: view.secrets,
    "SecretSnapshot": lambda view: view.secrets,
    "Workload": lambda view: (row.key for row in view.workloads.values()),
    "WorkloadRevision": lambda view: (row.key for rows in view.revisions.values() for row in rows.values()),
    "Instance": lambda view: (row.key for rows in view.on_device.values() for row in rows.values()),
    "Rollout": lambda view: (row.key for rows in view.rollouts.values() for row in rows.values()),
    "JoinToken": lambda view: (row.key for row in view.join_tokens.values()),
    "AccessToken": lambda view: (row.key for row in view.access_tokens.values()),
}
