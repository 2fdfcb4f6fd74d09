"""From what the control plane knows to what one device is told: a self-contained document."""

from collections.abc import Mapping

import msgspec

from edgewise.delivery.facts import VersionFacts
from edgewise.delivery.stages import pace_of
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.quantity import milli, seconds, whole
from edgewise.resources.workload import Disconnect, Strategy, Template
from edgewise.wire.desired import ArtifactTarget, InstanceDesired, SealedSecret


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance's part of the document is made of. `config` is the content that the revision was made with."""

    name: str
    uid: str
    spec: InstanceSpec
    template: Template
    version: VersionFacts
    config: Mapping[str, str]
    strategy: Strategy
    disconnect: Disconnect
    stop: bool = False


def render(parts: Rendered, secrets: tuple[SealedSecret, ...]) -> InstanceDesired:
    """Return what the device is told of one instance."""
    spec, template, version = parts.spec, parts.template, parts.version
    resources = template.resources
    size = next((variant.size for variant in version.variants if variant.name == spec.variant), 0)
    return InstanceDesired(
        name=parts.name,
        uid=parts.uid,
        epoch=spec.epoch,
        revision=spec.revision,
        artifact=ArtifactTarget(
            target=version.target, digest=version.digest, length=version.length, type=version.type, variant=spec.variant, size=size
        ),
        desired="Stopped" if parts.stop else spec.desired,
        parameters=template.parameters,
        config=dict(parts.config),
        secrets=secrets,
        memory=whole(resources.memory) if resources.memory is not None else None,
        cpu_milli=milli(resources.cpu) if resources.cpu is not None else None,
        peripherals=tuple(peripheral.name for peripheral in template.peripherals),
        hold=spec.hold,
        traffic=spec.traffic if spec.hold else None,
        rejected=spec.rejected,
        probation_seconds=seconds(parts.strategy.probation),
        deadline_seconds=seconds(pace_of(parts.strategy).device_deadline),
        lost_after_seconds=seconds(parts.disconnect.lost_after),
        exclusive=parts.disconnect.exclusive,
    )


def fingerprint(parts: Rendered) -> int:
    """Return a number that changes when what the device is told of an instance does. Sealing is left out: it is new each time, its
    contents are in the revision. Only good within one process."""
    spec = parts.spec
    return hash(
        (
            parts.name,
            parts.uid,
            spec.epoch,
            spec.revision,
            spec.variant,
            "Stopped" if parts.stop else spec.desired,
            spec.hold,
            spec.traffic,
            spec.rejected,
            parts.strategy.probation,
            pace_of(parts.strategy).device_deadline,
            parts.disconnect.lost_after,
            parts.disconnect.exclusive,
        )
    )
