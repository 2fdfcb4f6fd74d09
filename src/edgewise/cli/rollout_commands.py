"""`rollout watch|pause|resume|promote|abort|retry|history`."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edgewise.cli import options
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run

if TYPE_CHECKING:
    from edgewise.resources.rollout import Rollout, RolloutAction

_FAILURES_SHOWN: Final = 5
_DONE: Final = {"pause": "paused", "resume": "resumed", "promote": "promoted", "abort": "aborted"}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    rollout = typer.Typer(help="Watch and steer how a new revision goes out.", no_args_is_help=True, rich_markup_mode=None)
    rollout.command("watch")(watch)
    rollout.command("status", hidden=True)(watch)
    rollout.command("pause")(pause)
    rollout.command("resume")(resume)
    rollout.command("promote")(promote)
    rollout.command("abort")(abort)
    rollout.command("retry")(retry)
    rollout.command("history")(history)
    app.add_typer(rollout, name="rollout")


def watch(
    *,
    workload: options.Workload,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Give up after so long.")] = 3600.0,
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Follow the rollout of the newest revision to its end. Fails unless it succeeds."""
    rollout = run(_watch(workload, timeout, namespace, context))
    if rollout.status.state.value != "Succeeded":
        raise CommandError(f"rollout {rollout.metadata.name} ended as {rollout.status.state.value}", *_why(rollout))


def _why(rollout: "Rollout") -> tuple[str, str]:
    """Return why a rollout did not succeed, and where to look next."""
    failures = sorted(rollout.status.failures.items())
    lines = [rollout.status.message, *(f"{device}: {reason}" for device, reason in failures[:_FAILURES_SHOWN])]
    if len(failures) > _FAILURES_SHOWN:
        lines.append(f"… and {len(failures) - _FAILURES_SHOWN} more")
    hint = f"edgewise describe rollout {rollout.metadata.name} says more"
    if failures:
        hint += f"; edgewise logs {failures[0][0]}/{rollout.spec.workload} shows what it wrote"
    return "\n".join(line for line in lines if line), hint


async def _watch(workload: str, seconds: float, namespace: str, context: str) -> "Rollout":
    from edgewise.cli import output

    shown = _Shown(live=output.is_terminal())
    async with connected(context, namespace) as client:
        if output.is_terminal():
            output.note(f"waiting for the rollout of {workload}")
        return await client.wait_rollout(workload, timeout=seconds, on_change=shown.show)


class _Shown:
    """Prints a line for each change that matters, and the evidence of each wave that was judged; on a terminal, lines of the same wave
    replace each other."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._last = ""
        self._stage: tuple[object, ...] = ()
        self._explained: set[tuple[str, int, float]] = set()

    def show(self, rollout: "Rollout") -> None:
        from edgewise.cli import output

        self._explain(rollout)
        line = rollout_line(rollout)
        if line == self._last:
            return
        stage = (rollout.metadata.name, rollout.status.state, rollout.status.wave)
        again = self._live and self._last and stage == self._stage
        output.out(("\033[F\033[K" if again else "") + line + "\n")
        self._last, self._stage = line, stage

    def _explain(self, rollout: "Rollout") -> None:
        """Print the evidence of waves that were judged since."""
        from edgewise.cli import output
        from edgewise.cli.evidence import stage_lines

        for judged in rollout.status.stages:
            key = (rollout.metadata.name, judged.wave, judged.at)
            if key in self._explained:
                continue
            self._explained.add(key)
            lines = stage_lines(judged)
            if lines:
                output.out("\n".join(lines) + "\n")
                self._stage = ()


def rollout_line(rollout: "Rollout") -> str:
    """Return where a rollout stands, in one line."""
    from edgewise.cli.output import painted
    from edgewise.cli.tables import wave_of

    status = rollout.status
    counts = status.members
    parts = [f"{counts.succeeded} done"]
    parts += [
        f"{count} {word}"
        for count, word in (
            (counts.updating, "updating"),
            (counts.pending, "waiting"),
            (counts.failed, "failed"),
            (counts.unreached, "unreached"),
        )
        if count
    ]
    if status.analysis.value != "Pending" and (status.verdicts or status.analysis.value != "Successful"):
        parts.append(f"analysis {status.analysis.value}")
    tail = f": {status.message}" if status.message else ""
    phase = f" {status.phase}" if status.phase and status.waves > 1 else ""
    return f"{rollout.metadata.name}   {painted(status.state.value)}   wave {wave_of(rollout)}{phase}   {', '.join(parts)}{tail}"


def pause(workload: options.Workload, namespace: options.Namespace = "", context: options.ContextName = "") -> None:
    """Open no further wave until resumed."""
    run(_act(workload, "pause", namespace, context))


def resume(workload: options.Workload, namespace: options.Namespace = "", context: options.ContextName = "") -> None:
    """Go on with a paused rollout."""
    run(_act(workload, "resume", namespace, context))


def promote(workload: options.Workload, namespace: options.Namespace = "", context: options.ContextName = "") -> None:
    """Open the next wave now, without waiting for the rest of the observation."""
    run(_act(workload, "promote", namespace, context))


def abort(workload: options.Workload, namespace: options.Namespace = "", context: options.ContextName = "") -> None:
    """End the rollout and go back to the revision before it."""
    run(_act(workload, "abort", namespace, context))


async def _act(workload: str, action: "RolloutAction", namespace: str, context: str) -> None:
    from edgewise.cli import output

    async with connected(context, namespace) as client:
        rollout = await client.rollout_action(workload, action)
        output.out(f"rollout/{rollout.metadata.name} {_DONE[action]}\n")


def retry(workload: options.Workload, namespace: options.Namespace = "", context: options.ContextName = "") -> None:
    """Let revisions that were taken back be tried again, also on the devices that refuse them."""
    run(_retry(workload, namespace, context))


async def _retry(workload: str, namespace: str, context: str) -> None:
    from edgewise.cli import output
    from edgewise.resources.workload import Workload

    async with connected(context, namespace) as client:
        rejected = (await client.get(Workload, workload)).status.rejected
        if not rejected:
            hint = "edgewise device clear-refused lets one device try again what it refuses"
            raise CommandError(f"no revision of {workload} was taken back", hint=hint)
        await client.clear_rejected(workload)
    output.out(f"workload/{workload}: {', '.join(rejected)} may be tried again\n")


def history(
    *,
    workload: options.Workload,
    output: options.Output = "table",
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """List the rollouts of a workload, oldest first."""
    run(_history(workload, output, namespace, context))


async def _history(workload: str, form: options.OutputFormat, namespace: str, context: str) -> None:
    from edgewise.cli import output
    from edgewise.resources.kinds import BY_NAME

    async with connected(context, namespace) as client:
        rollouts = await client.rollout_history(workload)
    if not rollouts and form in {"table", "wide"}:
        sys.stderr.write(f"no rollouts of {workload} found\n")
        return
    output.out(output.resources(BY_NAME["Rollout"], rollouts, form, time.time(), namespaces=False))
    if form in {"table", "wide"}:
        from edgewise.cli.evidence import summaries

        lines = summaries(rollouts)
        if lines:
            output.out("\nHow they were judged:\n" + "\n".join(f"  {line}" for line in lines) + "\n")
