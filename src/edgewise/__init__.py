"""Edgewise runs AI on fleets of edge devices and keeps it healthy.

The public names are handed out lazily: importing `edgewise` imports nothing else, because the resident agent on a device does so too.

    import edgewise as ew

    async with ew.Client.from_context(namespace="line-3") as fleet:
        applied = await fleet.apply(ew.load("inspector.yaml"))
"""

TYPE_CHECKING = False  # not from `typing`: even that would cost the supervisor memory

if TYPE_CHECKING:
    from edgewise.client.answers import Applied, AppliedResource, Change, DevicePlan, Event, Listing, Metric, Placement, Token
    from edgewise.client.connection import ClientLimits
    from edgewise.client.context import Context
    from edgewise.client.errors import (
        Conflict,
        ContextError,
        Denied,
        Error,
        Invalid,
        NotFound,
        Problem,
        Refused,
        TimedOut,
        Unreachable,
    )
    from edgewise.client.files import load
    from edgewise.client.fleet import Client
    from edgewise.client.publishing import Release, VariantSource
    from edgewise.resources.artifact import Artifact, ArtifactVersion
    from edgewise.resources.config import Config, Secret
    from edgewise.resources.device import Agent, Device
    from edgewise.resources.instance import Instance
    from edgewise.resources.kinds import Resource
    from edgewise.resources.meta import Metadata
    from edgewise.resources.rollout import Rollout
    from edgewise.resources.selector import Requirement, Selector
    from edgewise.resources.site import Site
    from edgewise.resources.workload import Workload, WorkloadRevision

__all__ = [
    "Agent",
    "Applied",
    "AppliedResource",
    "Artifact",
    "ArtifactVersion",
    "Change",
    "Client",
    "ClientLimits",
    "Config",
    "Conflict",
    "Context",
    "ContextError",
    "Denied",
    "Device",
    "DevicePlan",
    "Error",
    "Event",
    "Instance",
    "Invalid",
    "Listing",
    "Metadata",
    "Metric",
    "NotFound",
    "Placement",
    "Problem",
    "Refused",
    "Release",
    "Requirement",
    "Resource",
    "Rollout",
    "Secret",
    "Selector",
    "Site",
    "TimedOut",
    "Token",
    "Unreachable",
    "VariantSource",
    "Workload",
    "WorkloadRevision",
    "load",
]

_HOMES = {
    "client.answers": "Applied AppliedResource Change DevicePlan Event Listing Metric Placement Token",
    "client.connection": "ClientLimits",
    "client.context": "Context",
    "client.errors": "Conflict ContextError Denied Error Invalid NotFound Problem Refused TimedOut Unreachable",
    "client.files": "load",
    "client.fleet": "Client",
    "client.publishing": "Release VariantSource",
    "resources.artifact": "Artifact ArtifactVersion",
    "resources.config": "Config Secret",
    "resources.device": "Agent Device",
    "resources.instance": "Instance",
    "resources.kinds": "Resource",
    "resources.meta": "Metadata",
    "resources.rollout": "Rollout",
    "resources.selector": "Requirement Selector",
    "resources.site": "Site",
    "resources.workload": "Workload WorkloadRevision",
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names.split():
            from importlib import import_module

            value: object = getattr(import_module(f"edgewise.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'edgewise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
