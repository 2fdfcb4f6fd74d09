"""The table of all kinds: how each is called in code, in paths and on the command line."""

from typing import Final

import msgspec

from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.config import Config, Secret
from edgewise.resources.device import Agent, Device
from edgewise.resources.instance import Instance
from edgewise.resources.rollout import Rollout
from edgewise.resources.site import Site
from edgewise.resources.workload import Workload, WorkloadRevision

Resource = Site | Device | Agent | Artifact | ArtifactVersion | Workload | WorkloadRevision | Instance | Rollout | Config | Secret
"""Any resource, told apart by `kind`."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind. `applied`: a person writes its spec with `apply`; the others are made by the control plane."""

    type: type[Resource]
    name: str
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    applied: bool = False


KINDS: Final[tuple[Kind, ...]] = (
    Kind(type=Site, name="Site", plural="sites", namespaced=False, applied=True),
    Kind(type=Device, name="Device", plural="devices", short=("dev",), namespaced=False, applied=True),
    Kind(type=Agent, name="Agent", plural="agents", namespaced=False),
    Kind(type=Artifact, name="Artifact", plural="artifacts", short=("art",), applied=True),
    Kind(type=ArtifactVersion, name="ArtifactVersion", plural="artifactversions", short=("av",)),
    Kind(type=Workload, name="Workload", plural="workloads", short=("wl",), applied=True),
    Kind(type=WorkloadRevision, name="WorkloadRevision", plural="workloadrevisions", short=("wr",)),
    Kind(type=Instance, name="Instance", plural="instances", short=("inst",)),
    Kind(type=Rollout, name="Rollout", plural="rollouts", short=("ro",)),
    Kind(type=Config, name="Config", plural="configs", short=("cfg",), applied=True),
    Kind(type=Secret, name="Secret", plural="secrets", applied=True),
)

BY_NAME: Final[dict[str, Kind]] = {kind.name: kind for kind in KINDS}
BY_TYPE: Final[dict[type, Kind]] = {kind.type: kind for kind in KINDS}
BY_WORD: Final[dict[str, Kind]] = {word: kind for kind in KINDS for word in (kind.name.lower(), kind.plural, *kind.short)}
"""Every word that a person may call a kind by, in lower case."""
