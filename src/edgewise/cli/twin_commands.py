"""`twin snapshot`: the fleet that runs, as a twin to rehearse on."""

import sys
import time
from collections.abc import Callable, Collection
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from edgewise.cli import options
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgewise.client.fleet import Client
    from edgewise.resources.kinds import Resource
    from edgewise.twin.fleet import TwinFleet

R = TypeVar("R", bound="Resource")


Told = Callable[[str, int], None]
"""Hears what is being read, and how many of it have been read so far."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    twin = typer.Typer(help="The digital twin of a fleet.", no_args_is_help=True, rich_markup_mode=None)
    twin.command("snapshot")(snapshot)
    twin.callback()(_group)
    app.add_typer(twin, name="twin")


def _group() -> None:
    """Take a fleet as a twin, to rehearse changes on it: edgewise simulate."""


def snapshot(
    *,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it, or - for standard output.")],
    context: options.ContextName = "",
) -> None:
    """Write the fleet that runs into a file, as a twin: sites, devices and their past, what runs.

    It holds no secrets: the names of Secrets and Configs only, no tokens, keys, addresses or annotations.
    """
    from edgewise.cli import output as printing

    if output != "-":
        _check_place(Path(output))
    fleet = run(_taken(context))
    _write(fleet, output)
    printing.note(words(fleet, "" if output == "-" else output))
    printing.note(f"next: edgewise simulate -f change.yaml --fleet {'fleet.json' if output == '-' else output}")


async def _taken(context: str) -> "TwinFleet":
    async with connected(context, "") as client:
        with shown_reading() as told:
            return await taken(client, told)


async def taken(client: "Client", told: Told, wanted: Collection[str] = ()) -> "TwinFleet":
    """Return the fleet behind `client` as a twin; `wanted` are versions (NAMESPACE/ARTIFACT:VERSION) that it must hold where they are
    published. Raises `Error`, and `CommandError` for a fleet without devices or one that is too large."""
    from edgewise.resources.artifact import Artifact, ArtifactVersion
    from edgewise.resources.config import Secret
    from edgewise.resources.device import Device
    from edgewise.resources.instance import Instance
    from edgewise.resources.rollout import Rollout
    from edgewise.resources.site import Site
    from edgewise.resources.workload import Workload, WorkloadRevision
    from edgewise.twin.snapshot import Seen
    from edgewise.twin.snapshot import snapshot as made

    devices = await _read(client, Device, told)
    if not devices:
        hint = "edgewise simulate --fleet 100 makes one up; edgewise token create begins a real one"
        raise CommandError("the fleet has no devices: there is nothing to take", client.address, hint)
    secrets = await _read(client, Secret, told)
    seen = Seen(
        sites=await _read(client, Site, told),
        devices=devices,
        workloads=await _read(client, Workload, told),
        revisions=await _read(client, WorkloadRevision, told),
        instances=await _read(client, Instance, told),
        rollouts=await _read(client, Rollout, told),
        artifacts=await _read(client, Artifact, told),
        versions=await _read(client, ArtifactVersion, told),
        # The control plane never shows what they hold.
        secret_names=tuple(f"{each.metadata.namespace}/{each.metadata.name}" for each in secrets),
        wanted=frozenset(wanted),
    )
    fleet = made(seen, time.time())
    if not fleet.devices:
        raise CommandError("every device of the fleet is being decommissioned: there is nothing to take", client.address)
    return fleet


async def _read(client: "Client", kind: type[R], told: Told) -> tuple[R, ...]:
    """Return all resources of a kind. Raises `CommandError` for more than a twin can hold."""
    from edgewise.resources.kinds import BY_TYPE
    from edgewise.twin.generate import LIMITS

    table = BY_TYPE[kind]
    # No kind grows faster than instances do, with a few on each device.
    most = LIMITS.devices_max * (1 if table.name == "Device" else 10)
    found: list[R] = []
    async for page in client.pages(kind, all_namespaces=table.namespaced):
        found.extend(page.items)
        if len(found) > most:
            raise CommandError(f"the fleet is too large for a twin: more than {most} {table.plural}")
        told(table.plural, len(found))
    return tuple(found)


@contextmanager
def shown_reading() -> "Iterator[Told]":
    """Show on a terminal's standard error how far the reading is; say nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what, count: None  # noqa: ARG005 - nobody looks
        return

    def told(what: str, count: int) -> None:
        sys.stderr.write(f"\r\033[Kreading the fleet: {count} {what}")
        sys.stderr.flush()

    try:
        yield told
    finally:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


def _check_place(path: Path) -> None:
    """Look before the fleet is read, which takes time."""
    if path.is_dir():
        raise CommandError(f"cannot write {path}: it is a folder", hint="name a file in it")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"cannot write {path}: there is no such folder", hint="make it first, or write elsewhere")


def _write(fleet: "TwinFleet", where: str) -> None:
    import msgspec

    from edgewise.cli import output

    data = msgspec.json.format(msgspec.json.encode(fleet), indent=1) + b"\n"
    if where == "-":
        output.out(data.decode())
        return
    path = Path(where)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandError(f"cannot write {where}: {error.strerror or error}") from None


def words(fleet: "TwinFleet", name: str = "") -> str:
    """Return what a snapshot holds, in one line."""
    offline = sum(1 for device in fleet.devices if device.history.offline)
    parts = [
        _count(len(fleet.devices), "device") + (f" ({offline} offline)" if offline else ""),
        _count(len(fleet.sites), "site"),
        _count(len(fleet.classes), "class", "classes"),
        _count(len(fleet.workloads), "workload"),
        _count(len(fleet.versions), "version"),
    ]
    return (f"{name}: " if name else "") + ", ".join(parts)


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
