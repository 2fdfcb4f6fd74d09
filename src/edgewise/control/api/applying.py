"""`apply`: making or replacing the spec and labels of a resource that a person wrote."""

from typing import Final, Literal

import msgspec

from edgewise.control.api.access import User
from edgewise.control.api.errors import ApiError, conflict, invalid
from edgewise.control.api.shown import shown, without_secrets, words
from edgewise.control.secrets import SecretBox
from edgewise.control.services import Services
from edgewise.controllers.documents import audit
from edgewise.controllers.view import FleetView
from edgewise.delivery.templates import Sources, Unready, resolve
from edgewise.resources.artifact import Artifact
from edgewise.resources.config import Secret
from edgewise.resources.device import Device
from edgewise.resources.errors import Problem
from edgewise.resources.kinds import Resource
from edgewise.resources.validation import problems
from edgewise.resources.workload import Workload
from edgewise.store.codec import decode, encode_spec, encode_status
from edgewise.store.contract import ABSENT, ConflictError, Document, Key, Put, Transaction
from edgewise.trust.sealing import SealingError

Result = Literal["created", "configured", "unchanged"]

_ATTEMPTS: Final = 5
_DEVICE_VERBS: Final = {
    "agent": "a device is bound to its agent when it joins",
    "decommission": "use `edgewise device decommission`",
    "cleared_refusals": "use `edgewise device clear-refused`",
}


class DevicePlan(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What placement decided for one device: the variant it gets, or why it is rejected."""

    device: str
    variant: str = ""
    reason: str = ""
    chosen: bool = False
    current: bool = False


class Applied(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What an `apply` did. `placement` is filled by the dry run of a workload."""

    resource: Resource
    result: Result
    warnings: tuple[str, ...] = ()
    placement: tuple[DevicePlan, ...] = ()


async def apply(services: Services, user: User, key: Key, resource: Resource, *, dry_run: bool) -> Applied:
    """Make the resource at `key` be as `resource` says. A generation above 0 in its metadata must be the current one. Raises `ApiError`."""
    wrong = problems(resource)
    if wrong:
        raise invalid(*wrong)
    if isinstance(resource, Workload):
        _check_strategy(services.runner.view, resource)
    for attempt in range(_ATTEMPTS):
        current = await services.store.get(key)
        _check_current(key, resource, current)
        put = _put(services, key, resource, current)
        result = _result(put, current)
        if dry_run or result == "unchanged":
            after = _preview(services, put, current)
            return Applied(resource=after, result=result, warnings=warnings(services, resource))
        try:
            return await _write(services, user, put, result, resource)
        except ConflictError as error:
            if resource.metadata.generation or attempt == _ATTEMPTS - 1:
                raise conflict(f"{words(key)} changed meanwhile", _current(error)) from error
    raise conflict(f"{words(key)} changes too often to be written")  # pragma: no cover - the loop returns or raises


def _check_strategy(view: FleetView, workload: Workload) -> None:
    """Refuse a strategy for which two revisions have to run side by side where the artifact is nothing that could."""
    strategy = workload.spec.strategy
    fields = {"shadow": strategy.shadow, "ab": strategy.ab, "blueGreen": strategy.blue_green}
    resolved = resolve(workload.spec, sources_of(view, workload.metadata.namespace, workload))
    if isinstance(resolved, Unready):
        return
    version = view.versions.get((workload.metadata.namespace, resolved.artifact), {}).get(resolved.version)
    if version is None or version.type == "model":
        return
    message = f"artifact {resolved.artifact} is a {version.type}: only of a model two revisions can run side by side"
    wrong = [Problem(path=f"spec.strategy.{field}", message=message, hint="use canary") for field, value in fields.items() if value]
    if wrong:
        raise invalid(*wrong)


def warnings(services: Services, resource: Resource) -> tuple[str, ...]:
    """Return what is likely not meant: references to what is not there (yet)."""
    view, namespace = services.runner.view, resource.metadata.namespace
    found: list[str] = []
    match resource:
        case Workload(spec=spec):
            name = (namespace, spec.artifact.name)
            if spec.artifact.version is not None and spec.artifact.version not in view.versions.get(name, {}):
                found.append(f"artifact {spec.artifact.name} has no version {spec.artifact.version} in namespace {namespace} yet")
            if spec.artifact.alias is not None and spec.artifact.alias not in view.artifacts.get(name, {}):
                found.append(f"artifact {spec.artifact.name} has no alias {spec.artifact.alias} in namespace {namespace} yet")
            if spec.config is not None and Key("Config", namespace, spec.config.name) not in view.configs:
                found.append(f"there is no config {spec.config.name} in namespace {namespace} yet")
            found.extend(
                f"there is no secret {secret.name} in namespace {namespace} yet"
                for secret in spec.secrets
                if Key("Secret", namespace, secret.name) not in view.secrets
            )
            resolved = resolve(spec, sources_of(view, namespace, resource)) if not found else None
            if isinstance(resolved, Unready):
                found.append(resolved.message)
        case Artifact(spec=artifact):
            known = view.versions.get((namespace, resource.metadata.name), {})
            found.extend(
                f"alias {alias}: there is no version {version} yet" for alias, version in artifact.aliases.items() if version not in known
            )
        case Device(spec=device):
            if device.site and device.site not in view.sites:
                found.append(f"there is no site {device.site}")
        case _:
            pass
    return tuple(found)


def sources_of(view: FleetView, namespace: str, workload: Workload) -> Sources:
    """Return what a workload's spec refers to, as far as it is there."""
    spec, name = workload.spec, (namespace, workload.spec.artifact.name)
    config = view.configs.get(Key("Config", namespace, spec.config.name)) if spec.config is not None else None
    secrets = {each.name: view.secrets.get(Key("Secret", namespace, each.name)) for each in spec.secrets}
    return Sources(
        aliases=view.artifacts.get(name),
        versions=view.versions.get(name, {}),
        configs={config.key.name: config.digest} if config is not None else {},
        secrets={each: row.spec.digest for each, row in secrets.items() if row is not None},
    )


async def _write(services: Services, user: User, put: Put, result: Result, resource: Resource) -> Applied:
    now = services.clock.wall()
    message = f"{words(put.key)} {result}"
    written = await services.runner.commit(Transaction(now=now, writes=(put,), events=(audit(now, user.name, "Apply", message, put.key),)))
    document = next((change.document for change in written.changes if change.key == put.key), None)
    if document is None:
        raise conflict(f"{words(put.key)} changed meanwhile")
    return Applied(resource=shown(document), result=result, warnings=warnings(services, resource))


def _check_current(key: Key, resource: Resource, current: Document | None) -> None:
    wanted = resource.metadata.generation
    if wanted and (current is None or current.generation != wanted):
        there = "gone" if current is None else f"at generation {current.generation}"
        raise conflict(f"{words(key)} is {there}, not at generation {wanted}", None if current is None else shown(current))
    if resource.metadata.uid and current is not None and resource.metadata.uid != current.uid:
        raise conflict(f"{words(key)} was made anew since: its uid differs", shown(current))
    if current is not None and current.deleted_at is not None:
        raise conflict(f"{words(key)} is being deleted: wait until it is gone", shown(current))
    if isinstance(resource, Device):
        _check_device(resource, current)


def _check_device(resource: Device, current: Document | None) -> None:
    """Refuse what a person may not set by `apply`, because who may and what follows is decided by a verb of its own."""
    before = decode(current) if current is not None else None
    old = before.spec if isinstance(before, Device) else None
    for field, hint in _DEVICE_VERBS.items():
        given, there = getattr(resource.spec, field), getattr(old, field) if old is not None else None
        if given and given != there:
            raise invalid(Problem(path=f"spec.{field}", message="cannot be applied", hint=hint))


def _put(services: Services, key: Key, resource: Resource, current: Document | None) -> Put:
    stored = _stored(services, key, resource, current)
    return Put(
        key=key,
        spec=encode_spec(stored),
        labels=dict(resource.metadata.labels),
        annotations=dict(resource.metadata.annotations),
        expect=ABSENT if current is None else current.generation,
        uid=services.randomness.token(16).hex() if current is None else current.uid,
        status=encode_status(_first_status(resource)) if current is None else b"",
    )


def _stored(services: Services, key: Key, resource: Resource, current: Document | None) -> Resource:
    """Return what is kept of `resource`: secrets encrypted, and what verbs have set of a device."""
    match resource:
        case Secret(spec=spec):
            box = SecretBox(services.keys.at_rest)
            before = decode(current) if current is not None else None
            if isinstance(before, Secret) and before.spec.digest == box.digest(key, spec.data):
                return msgspec.structs.replace(resource, spec=before.spec)
            try:
                return msgspec.structs.replace(resource, spec=box.lock(key, spec.data))
            except SealingError as error:
                raise invalid(Problem(path="spec.data", message=str(error))) from error
        case Device(spec=device) if current is not None:
            before = decode(current)
            old = before.spec if isinstance(before, Device) else device
            kept = msgspec.structs.replace(device, agent=old.agent, decommission=old.decommission, cleared_refusals=old.cleared_refusals)
            return msgspec.structs.replace(resource, spec=kept)
        case _:
            return resource


def _first_status(resource: Resource) -> Resource:
    """Return the resource with the status that it begins with, whatever a person wrote there."""
    match resource:
        case Secret(spec=spec):
            return msgspec.structs.replace(resource, status=type(resource.status)(keys=tuple(sorted(spec.data))))
        case _:
            return msgspec.structs.replace(resource, status=type(resource.status)())


def _result(put: Put, current: Document | None) -> Result:
    if current is None:
        return "created"
    same = (put.spec, put.labels, put.annotations) == (current.spec, current.labels, current.annotations)
    return "unchanged" if same else "configured"


def _preview(services: Services, put: Put, current: Document | None) -> Resource:
    """Return what would be stored, with the metadata that it would have."""
    now = services.clock.wall()
    if current is None:
        document = Document(
            key=put.key, uid="", generation=0, revision=0, status_revision=0, created_at=now, labels=put.labels,
            annotations=put.annotations, spec=put.spec, status=put.status,
        )  # fmt: skip
    else:
        document = msgspec.structs.replace(current, spec=put.spec, labels=put.labels, annotations=put.annotations)
    return without_secrets(decode(document))


def _current(error: ConflictError) -> Resource | None:
    return shown(error.current) if error.current is not None else None


def not_applied(kind: str) -> ApiError:
    """Return the refusal to write a kind that the control plane makes itself."""
    return ApiError(405, "NotAllowed", f"{kind} is made by the control plane and cannot be applied")
