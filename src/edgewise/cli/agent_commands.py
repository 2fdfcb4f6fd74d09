"""`agent join|run|status|stop|install`: the device's own side."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgewise.cli.failures import CommandError

if TYPE_CHECKING:
    from edgewise.agent.status import LocalStatus
    from edgewise.agent.supervisor_link import SlotSeen, SupervisorLink, SupervisorStatus

Data = Annotated[
    str, typer.Option("--data", metavar="FOLDER", envvar="EDGEWISE_DATA", help="The device's data folder.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    agent = typer.Typer(help="Join a device to the fleet and run its agent.", no_args_is_help=True, rich_markup_mode=None)
    agent.command("join")(join)
    agent.command("run")(run)
    agent.command("status")(status)
    agent.command("stop")(stop)
    agent.command("install")(install)
    app.add_typer(agent, name="agent")


def data_folder(given: str) -> str:
    """Return the data folder that was given, or the usual one: the system's for root, the user's own otherwise."""
    usual = "/var/lib/edgewise" if os.geteuid() == 0 else "~/.local/share/edgewise-agent"
    return str(Path(given or usual).expanduser().absolute())


def join(
    *,
    token_file: Annotated[str, typer.Option("--token-file", metavar="FILE", help="File with the join token, or - for standard input.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The device's name; this machine's if not given.")] = "",
    data: Data = "",
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label of the device; may be repeated.")] = None,
    device_class: Annotated[str, typer.Option("--class", metavar="NAME", help="Class of the device, such as camera-box.")] = "",
    capacity: Annotated[
        list[str] | None,
        typer.Option("--capacity", metavar="memory=1Gi,…", help="What the device has, in place of what it says of itself."),
    ] = None,
    proxy: Annotated[str, typer.Option("--proxy", metavar="URL", help="http://HOST:PORT of a CONNECT proxy on the way.")] = "",
    telemetry_window: Annotated[
        str, typer.Option("--telemetry-window", metavar="DURATION", help="Over how long metrics are summarised; 0s sends none.")
    ] = "15s",
    poll_wait: Annotated[
        str,
        typer.Option(
            "--poll-wait",
            metavar="DURATION",
            help="How long the agent waits for news in one go; less where a NAT forgets idle connections.",
        ),
    ] = "240s",
    force: Annotated[bool, typer.Option("--force", help="Throw the identity away that this device already has.")] = False,
) -> None:
    """Join this machine to a fleet: make its key, get its certificate. Run the agent after that."""
    from edgewise.agent.declared import read_capacity
    from edgewise.agent.join import AlreadyJoined, JoinError, read_token
    from edgewise.agent.join import join as enrol
    from edgewise.cli import output
    from edgewise.cli.device_commands import check_labels
    from edgewise.cli.words import pairs_of

    try:
        declared = read_capacity(part for text in capacity or () for part in text.split(","))
    except ValueError as error:
        raise CommandError(str(error), "--capacity") from None
    labels = pairs_of(label or [], "label")
    check_labels(labels)
    folder = data_folder(data)
    try:
        joined = enrol(
            read_token(token_file),
            folder,
            device=name,
            labels=labels,
            device_class=device_class,
            capacity=declared,
            telemetry_seconds=_seconds(telemetry_window, "--telemetry-window"),
            poll_seconds=_seconds(poll_wait, "--poll-wait"),
            proxy=proxy,
            force=force,
        )
    except AlreadyJoined as error:
        raise CommandError(str(error), folder, "--force throws its identity away, and what it remembers") from None
    except JoinError as error:
        raise CommandError(str(error)) from None
    output.out(f"device/{joined.device} joined\n")
    output.note(f"now type: edgewise agent run --data {folder}")


def _seconds(duration: str, option: str) -> float:
    from edgewise.resources.quantity import seconds

    try:
        return seconds(duration)
    except ValueError as error:
        raise CommandError(str(error), option) from None


def run(*, data: Data = "") -> None:
    """Run this device: supervisor, agent, workloads. Ctrl-C stops all of it; edgewise agent stop leaves the workloads running."""
    folder = data_folder(data)
    if not (Path(folder) / "agent" / "config.json").exists():
        raise CommandError("this device has not joined", folder, "type edgewise agent join --token-file FILE first")
    if sys.stderr.isatty():
        sys.stderr.write(f"running; Ctrl-C stops the workloads too. In another terminal: edgewise agent status --data {folder}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    # The supervisor takes this process's place: nothing of the command line stays in memory.
    os.execv(sys.executable, [sys.executable, "-m", "edgewise.supervisor", "--data", folder])  # noqa: S606 - an argument vector, no shell


def status(
    *,
    data: Data = "",
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print.")] = "text",
) -> None:
    """Say what runs on this device, without asking the network. Fails when nothing does."""
    import time

    from edgewise.agent.status import read_status, status_lines
    from edgewise.cli.output import as_json, out
    from edgewise.ports.disk import DiskFiles

    folder = data_folder(data)
    if not Path(folder).is_dir():
        raise CommandError("this device has not joined", folder, "type edgewise agent join --token-file FILE first")
    local = read_status(DiskFiles(folder))
    supervisor, slots = _asked(folder)
    if output == "json":
        out(as_json(status_facts(local, supervisor, slots)))
    else:
        out("\n".join([*status_lines(local, time.time()), *_process_lines(supervisor, slots)]) + "\n")
    if supervisor is None:
        raise CommandError("nothing runs on this device", folder, f"type edgewise agent run --data {folder}")


def status_facts(local: "LocalStatus", supervisor: "SupervisorStatus | None", slots: "tuple[SlotSeen, ...]") -> dict[str, object]:
    """Return the status as JSON: what the device says of itself, and what its supervisor runs."""
    import msgspec

    agent, config = local.agent, local.config
    instances = agent.instances if agent is not None else ()
    return {
        "device": config.device if config is not None else "",
        "addresses": list(config.addresses) if config is not None else [],
        "problem": local.problem,
        "online": agent.online if agent is not None else None,
        "lastContact": agent.last_contact if agent is not None else 0.0,
        "position": agent.position if agent is not None else "",
        # Every field of every instance, so that programs need not know the defaults.
        "instances": [{field: getattr(each, field) for field in each.__struct_fields__} for each in instances],
        "supervisor": None if supervisor is None else msgspec.to_builtins(supervisor),
        "slots": [msgspec.to_builtins(slot) for slot in slots],
    }


def _asked(folder: str) -> "tuple[SupervisorStatus | None, tuple[SlotSeen, ...]]":
    from edgewise.agent.supervisor_link import (
        ObserveSlots,
        ShowStatus,
        SlotsSeen,
        SupervisorGone,
        SupervisorLink,
        SupervisorStatus,
    )

    try:
        link = SupervisorLink(folder)
    except SupervisorGone:
        return None, ()
    try:
        return link.ask(ShowStatus(), SupervisorStatus), link.ask(ObserveSlots(), SlotsSeen).slots
    finally:
        link.close()


def _process_lines(supervisor: "SupervisorStatus | None", slots: "tuple[SlotSeen, ...]") -> list[str]:
    if supervisor is None:
        return ["supervisor: not running; what stands above is the last that was known"]
    healthy = "" if supervisor.agent_healthy else ", not (yet) healthy"
    lines = [
        f"supervisor: process {supervisor.pid}",
        f"its agent:  {supervisor.agent_state}, process {supervisor.agent_pid}, started {supervisor.agent_starts} times{healthy}",
    ]
    if supervisor.fell_back:
        lines.append(f"fell back:  version {supervisor.fell_back} did not report healthy")
    for each in slots:
        state = f"process {each.pid}" if each.exit_code is None else f"exited {each.exit_code}"
        lines.append(f"slot:       {each.instance} {each.slot}{'*' if each.active else ''} {each.revision} {state} {each.address}".rstrip())
    return lines


def stop(
    *,
    data: Data = "",
    workloads: Annotated[bool, typer.Option("--workloads", help="Stop the workloads and the supervisor too.")] = False,
    grace: Annotated[float, typer.Option("--grace", metavar="SECONDS", min=0, max=300, help="How long workloads may take.")] = 10.0,
) -> None:
    """Stop the agent. Workloads run on under the supervisor unless --workloads is given."""
    from edgewise.agent.supervisor_link import Acknowledged, StopAgent, StopAll
    from edgewise.cli import output

    link = _linked(data_folder(data))
    try:
        if workloads:
            link.ask(StopAll(grace=grace), Acknowledged, grace)
        else:
            link.ask(StopAgent(), Acknowledged)
    finally:
        link.close()
    output.out("agent and workloads stopped\n" if workloads else "agent stopped; workloads run on\n")


def _linked(folder: str) -> "SupervisorLink":
    from edgewise.agent.supervisor_link import SupervisorGone, SupervisorLink

    try:
        return SupervisorLink(folder)
    except SupervisorGone:
        raise CommandError("nothing runs on this device", folder, f"type edgewise agent run --data {folder}") from None


def install(
    *,
    data: Data = "",
    user: Annotated[bool, typer.Option("--user", help="For this user alone, without root: no separate user, fewer protections.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; print the unit and what would be done.")] = False,
) -> None:
    """Have systemd start the agent at boot, as a user of its own with the least rights that it needs."""
    from edgewise.cli import installing, output

    folder = data_folder(data) if data or user else "/var/lib/edgewise"
    plan = installing.plan(folder, for_user=user)
    if dry_run:
        output.out(f"# {plan.path}\n{plan.text}")
        output.note("\n".join(["would then:", *(f"  {' '.join(step)}" for step in plan.steps)]))
        return
    installing.check(folder, for_user=user)
    installing.carry_out(plan)
    output.out(f"unit {plan.path} installed and started\n")
    output.note(f"what it does: {'journalctl --user' if user else 'journalctl'} -u edgewise-agent -f")
