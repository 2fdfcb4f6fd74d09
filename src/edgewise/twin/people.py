"""What people do during a run: apply resources, delete workloads, give rollouts and devices a word. The same writes that the operator
API makes, with compare-and-set and audit."""

from typing import Final

import msgspec

from edgewise.controllers.actions import clear_rejected
from edgewise.controllers.documents import audit
from edgewise.resources.artifact import ArtifactVersion
from edgewise.resources.config import Config, Secret, SecretSpec
from edgewise.resources.device import Agent, Device
from edgewise.resources.kinds import Resource
from edgewise.resources.meta import Metadata
from edgewise.resources.rollout import Rollout
from edgewise.resources.workload import Workload
from edgewise.store.codec import decode, encode, encode_spec, encode_status, key_of
from edgewise.store.contract import ABSENT, Document, Key, Put, Transaction
from edgewise.twin.control import SimControl
from edgewise.twin.kernel import Kernel
from edgewise.twin.plan import Act
from edgewise.twin.publish import Published

__all__ = ["Operator"]

_USER: Final = "twin"


class Operator:
    """The people. Every call needs the control plane to be up."""

    def __init__(self, kernel: Kernel, control: SimControl, published: Published) -> None:
        self._kernel = kernel
        self._control = control
        self._published = published
        self._random = kernel.stream("operator")

    def act(self, act: Act) -> None:
        """Do what a plan says."""
        if act.apply is not None:
            self.apply(act.apply)
        if act.delete:
            namespace, _, name = act.delete.rpartition("/")
            self.delete_workload(namespace or "default", name)
        match act.action:
            case "":
                pass
            case "pause" | "resume" | "promote" | "abort":
                self.rollout(act.action, act.on)
            case "clear-refused" if "/" in act.on:
                self._clear_rejected(act.on)
            case "clear-refused" | "decommission" | "cordon" | "uncordon":
                self.device(act.action, act.on)

    def apply(self, resource: Resource) -> None:
        """Make a resource be as it says, or make it; a version is published first."""
        if isinstance(resource, ArtifactVersion):
            resource = self._published.add(resource)
        key = key_of(resource)
        current = self._document(key)
        put = Put(
            key=key,
            spec=encode_spec(resource),
            labels=dict(resource.metadata.labels),
            annotations=dict(resource.metadata.annotations),
            expect=ABSENT if current is None else current.generation,
            uid=self._random.token(16).hex() if current is None else current.uid,
            status=encode_status(_fresh(resource)) if current is None else b"",
        )
        self._write(put, "Apply", key)

    def complete(self, resource: Resource) -> None:
        """Make what a workload names and nobody wrote: contents of configs and secrets do not leave a fleet."""
        if not isinstance(resource, Workload):
            return
        namespace, spec = resource.metadata.namespace, resource.spec
        if spec.config is not None and self._document(Key("Config", namespace, spec.config.name)) is None:
            self.apply(Config(metadata=Metadata(name=spec.config.name, namespace=namespace)))
        for secret in spec.secrets:
            if self._document(Key("Secret", namespace, secret.name)) is None:
                made = SecretSpec(digest=f"twin-{secret.name}")
                self.apply(Secret(metadata=Metadata(name=secret.name, namespace=namespace), spec=made))

    def delete_workload(self, namespace: str, name: str) -> None:
        """Mark a workload as deleted."""
        key = Key("Workload", namespace, name)
        current = self._document(key)
        if current is not None and current.deleted_at is None:
            self._write(_put(current, current.spec, deleted_at=self._kernel.wall), "Delete", key)

    def rollout(self, action: str, workload: str) -> None:
        """Give the workload's rollout a word."""
        namespace, _, name = workload.rpartition("/")
        row = self._control.view.active_rollout((namespace or "default", name))
        current = self._document(row.key) if row is not None else None
        resource = decode(current) if current is not None else None
        if current is None or not isinstance(resource, Rollout):
            self._kernel.note("operator", workload, f"{action}: no rollout is under way")
            return
        spec = resource.spec
        match action:
            case "pause":
                spec = msgspec.structs.replace(spec, paused=True)
            case "resume":
                spec = msgspec.structs.replace(spec, paused=False)
            case "promote":
                spec = msgspec.structs.replace(spec, promote=spec.promote + 1, paused=False)
            case _:
                spec = msgspec.structs.replace(spec, abort=True)
        self._write(_put(current, encode(spec)), action.title(), current.key)

    def device(self, action: str, name: str) -> None:
        """Decommission, cordon or uncordon a device, or clear what it refuses."""
        current = self._document(Key("Device", "", name))
        resource = decode(current) if current is not None else None
        if current is None or not isinstance(resource, Device):
            self._kernel.note("operator", name, f"{action}: there is no such device")
            return
        spec = resource.spec
        match action:
            case "decommission":
                spec = msgspec.structs.replace(spec, decommission=True)
            case "clear-refused":
                spec = msgspec.structs.replace(spec, cleared_refusals=spec.cleared_refusals + 1)
            case _:
                spec = msgspec.structs.replace(spec, unschedulable=action == "cordon")
        self._write(_put(current, encode(spec)), action.title(), current.key)

    def revoke(self, agent: str) -> None:
        """Take an agent out of use: its hardware was replaced."""
        current = self._document(Key("Agent", "", agent))
        resource = decode(current) if current is not None else None
        if current is not None and isinstance(resource, Agent):
            self._write(_put(current, encode(msgspec.structs.replace(resource.spec, revoked=True))), "Revoke", current.key)

    def approve(self, agent: str) -> None:
        """Let a quarantined agent in again."""
        current = self._document(Key("Agent", "", agent))
        resource = decode(current) if current is not None else None
        if current is not None and isinstance(resource, Agent):
            spec = msgspec.structs.replace(resource.spec, approved=True, quarantined=False)
            self._write(_put(current, encode(spec)), "Approve", current.key)

    def _clear_rejected(self, workload: str) -> None:
        namespace, _, name = workload.rpartition("/")
        transaction = clear_rejected(self._control.view, (namespace, name), _USER, self._kernel.wall)
        if transaction is not None:
            self._control.commit(transaction)

    def _document(self, key: Key) -> Document | None:
        return self._control.vault.get(key)

    def _write(self, put: Put, verb: str, key: Key) -> None:
        now = self._kernel.wall
        self._kernel.note("operator", f"{key.kind}/{key.namespace}/{key.name}", verb)
        self._control.commit(Transaction(now=now, writes=(put,), events=(audit(now, _USER, verb, f"{key.name} by the plan", key),)))


def _put(document: Document, spec: bytes, deleted_at: float | None = None) -> Put:
    return Put(
        key=document.key,
        spec=spec,
        labels=document.labels,
        annotations=document.annotations,
        expect=document.generation,
        uid=document.uid,
        deleted_at=deleted_at if deleted_at is not None else document.deleted_at,
    )


def _fresh(resource: Resource) -> Resource:
    """Return the resource with the status that it begins with."""
    return msgspec.structs.replace(resource, status=type(resource.status)())
