"""What each device is told, and under which number.

A device's number is the view's revision at which the content of its document last changed; what only changes statuses wakes nobody. The
numbers live in memory: after a start they begin at the store's revision, and every device fetches its document once.
"""

from collections.abc import Callable
from typing import Final

from edgewise.controllers.answers import Refusal, refused_agent
from edgewise.controllers.rows import AgentRow, DeviceRow, RevisionRow, WorkloadKey
from edgewise.controllers.view import FleetView
from edgewise.delivery.render import Rendered, fingerprint, render
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.workload import Disconnect, Strategy, Template
from edgewise.store.contract import Key
from edgewise.wire.desired import DesiredState, DeviceDesired, InstanceDesired, Position, SealedSecret

Seal = Callable[[Key, str], bytes]
"""The shell's port: seal the contents of the secret document at a key (a `Secret`, or a `SecretSnapshot` kept for an older revision) to the
agent of a device."""

_STRATEGY: Final = Strategy()
_DISCONNECT: Final = Disconnect()


def refresh(view: FleetView) -> frozenset[str]:
    """Give new numbers to the devices whose documents changed since the last call; return the agents whose polls are to be answered, with
    nothing when nothing is new for them."""
    woken = set(view.presence.asked)
    view.presence.asked.clear()
    for device in view.unrendered:
        row = view.devices.get(device)
        if row is None:
            continue
        content = _content(view, row)
        known = view.contents.get(device)
        if known == content:
            continue
        view.contents[device] = content
        view.numbers[device] = max(view.revision, view.numbers.get(device, 0) + (known is not None))
        woken.add(row.spec.agent)
    view.unrendered.clear()
    return frozenset(woken)


def decide_desired(agent: str, after: Position | None, view: FleetView, seal: Seal) -> DesiredState | Refusal | None:
    """Return the documents of the agent's devices that changed after `after` (None: all of them), or None when none did."""
    row = view.agents.get(agent)
    refused = refused_agent(row)
    if refused is not None or row is None:
        return refused
    devices = [view.devices[name] for name in row.spec.devices if name in view.devices]
    numbers = [view.numbers.get(device.key.name, view.revision) for device in devices]
    newest = max(numbers, default=view.revision)
    if after is not None and after.epoch == view.epoch:
        if after.n > newest:
            # The device knows a number that this process never gave: go on above it, or the device would ignore what comes.
            newest = after.n + 1
            for device in devices:
                view.numbers[device.key.name] = newest
            numbers = [newest] * len(devices)
        changed = [(device, number) for device, number in zip(devices, numbers, strict=True) if number > after.n]
    else:
        changed = list(zip(devices, numbers, strict=True))
    if not changed and after is not None:
        return None
    documents = tuple(_document(view, device, number, seal) for device, number in changed)
    return DesiredState(position=Position(view.epoch, newest), devices=documents)


def _document(view: FleetView, device: DeviceRow, number: int, seal: Seal) -> DeviceDesired:
    agent = view.agents.get(device.spec.agent)
    instances = tuple(_instance(view, device, parts, seal) for parts in _parts(view, device))
    return DeviceDesired(
        device=device.key.name,
        uid=device.uid,
        position=Position(view.epoch, number),
        instances=instances,
        cleared_refusals=device.spec.cleared_refusals,
        decommission=device.spec.decommission,
        tell_again=agent.status.quarantines if agent is not None else 0,
    )


def _instance(view: FleetView, device: DeviceRow, parts: Rendered, seal: Seal) -> InstanceDesired:
    namespace = parts.name.partition("/")[0]
    template = parts.template
    secrets = tuple(
        SealedSecret(name=name, sealed=seal(key, device.key.name))
        for name, digest in zip(template.secrets, template.secret_digests, strict=True)
        if (key := secret_key(view, namespace, name, digest)) is not None
    )
    return render(parts, secrets)


def snapshot_key(kind: str, namespace: str, name: str, digest: str) -> Key:
    """Return where a revision's copy of a config or secret is kept (`kind` is `ConfigSnapshot` or `SecretSnapshot`)."""
    return Key(kind, namespace, f"{name}.{digest.removeprefix('sha256:')[:12]}")


def secret_key(view: FleetView, namespace: str, name: str, digest: str) -> Key | None:
    """Return the document that holds a secret as it was under `digest`: the secret itself, or the copy kept for the revision."""
    current = view.secrets.get(Key("Secret", namespace, name))
    if current is not None and current.spec.digest == digest:
        return current.key
    kept = snapshot_key("SecretSnapshot", namespace, name, digest)
    if kept in view.secrets:
        return kept
    return current.key if current is not None else None


def _config(view: FleetView, namespace: str, template: Template) -> dict[str, str]:
    if template.config is None:
        return {}
    current = view.configs.get(Key("Config", namespace, template.config))
    if current is not None and current.digest == template.config_digest:
        return current.data
    kept = view.configs.get(snapshot_key("ConfigSnapshot", namespace, template.config, template.config_digest))
    if kept is not None:
        return kept.data
    return current.data if current is not None else {}


def _parts(view: FleetView, device: DeviceRow) -> list[Rendered]:
    parts: list[Rendered] = []
    for key, row in view.instances_on(device.key.name):
        revision = view.revisions.get(key, {}).get(row.spec.revision)
        if revision is None:
            continue
        rendered = _rendered(view, key, row.uid, row.spec, revision, stop=device.spec.decommission)
        if rendered is not None:
            parts.append(rendered)
    return parts


def _rendered(view: FleetView, key: WorkloadKey, uid: str, spec: InstanceSpec, revision: RevisionRow, *, stop: bool) -> Rendered | None:
    version = view.version_of(key[0], revision)
    if version is None:
        return None
    workload = view.workloads.get(key)
    return Rendered(
        name=f"{key[0]}/{key[1]}",
        uid=uid,
        spec=spec,
        template=revision.template,
        version=version,
        config=_config(view, key[0], revision.template),
        strategy=workload.spec.strategy if workload is not None else _STRATEGY,
        disconnect=workload.spec.disconnect if workload is not None else _DISCONNECT,
        stop=stop or workload is None,
    )


def _content(view: FleetView, device: DeviceRow) -> int:
    agent: AgentRow | None = view.agents.get(device.spec.agent)
    return hash(
        (
            device.uid,
            device.spec.cleared_refusals,
            device.spec.decommission,
            (agent.spec.sealing_key, agent.status.quarantines) if agent is not None else None,
            *(fingerprint(parts) for parts in _parts(view, device)),
        )
    )
