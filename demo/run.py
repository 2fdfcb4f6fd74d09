"""What the steps share: the processes, the client, the report, and waiting for conditions."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from rich.console import Console

import edgewise as ew
from demo.fleet import MEMBERS, DemoFailed, Fleet
from demo.model import Data
from demo.report import Fact, Report, RolloutReport, StepReport
from demo.wire import CountingProxy
from edgewise.cli.evidence import stage_lines
from edgewise.client.context import choose_context, read_contexts
from edgewise.client.errors import Unreachable
from edgewise.resources.instance import Instance
from edgewise.resources.rollout import Rollout
from edgewise.resources.states import InstanceState

NAMESPACE = "line-3"
LOOK_SECONDS = 0.2
INDENT = "   "


class Run:
    """One run of the demo."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.fleet = Fleet(folder)
        self.report = Report()
        self.proxy = CountingProxy()
        self.data: Data | None = None
        self._client: ew.Client | None = None

    @property
    def client(self) -> ew.Client:
        """A client that speaks to the control plane as the first admin."""
        if self._client is None:
            _, context = choose_context(read_contexts(self.folder / "contexts.json"), "")
            self._client = ew.Client(msgspec.structs.replace(context, namespace=NAMESPACE))
        return self._client

    async def close(self) -> None:
        """Close the client and stop all processes."""
        if self._client is not None:
            await self._client.close()
        await self.fleet.stop()
        self.proxy.close()

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[dict[str, Fact]]:
        """Time a step and put it into the report, held or not."""
        facts: dict[str, Fact] = {}
        self.console.rule(f"[bold]{len(self.report.steps) + 1}. {name}", align="left")
        started = time.monotonic()
        ok = False
        try:
            yield facts
            ok = True
        finally:
            seconds = time.monotonic() - started
            self.report.steps.append(StepReport(name=name, ok=ok, seconds=round(seconds, 2), facts=facts))
            words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
            self.console.print(f"   {'held' if ok else '[bold red]did not hold[/]'} after {seconds:.1f} s{': ' if words else ''}{words}")

    def say(self, text: str) -> None:
        """Show progress."""
        self.console.print(f"{INDENT}{text}", highlight=False)

    async def until(self, what: str, seconds: float, look: Callable[[], Awaitable[bool]]) -> float:
        """Wait until `look` is true; return how long it took. Raises `DemoFailed` after `seconds`."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            try:
                if await look():
                    return time.monotonic() - started
            except Unreachable:
                pass
            await asyncio.sleep(LOOK_SECONDS)
        raise DemoFailed(f"{what}: not within {seconds:g} s")

    async def apply(self, file: str, **words: str) -> float:
        """Fill in a YAML file of the demo, `edgewise apply` it, and return when that was done (`time.monotonic`)."""
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        path = self.folder / file
        path.write_text(text, encoding="utf-8")
        started = time.monotonic()
        self.say((await self.fleet.edgewise("apply", "-f", str(path))).strip().replace("\n", "\n   "))
        return started

    async def rollout(self, workload: str, version: str, started: float, seconds: float) -> Rollout:
        """Follow a rollout to its end and put it into the report."""
        seen = ""
        judged: set[tuple[int, float]] = set()

        def on_change(rollout: Rollout) -> None:
            nonlocal seen
            status = rollout.status
            members = status.members
            text = (
                f"{workload} {version}: {status.state.value}, wave {status.wave}/{status.waves} ({status.phase or '-'}), "
                f"{members.succeeded} done, {members.updating} updating, {members.failed} failed; analysis {status.analysis.value}"
            )
            for stage in rollout.status.stages:
                if (stage.wave, stage.at) not in judged:
                    judged.add((stage.wave, stage.at))
                    for line in stage_lines(stage, min(100, self.console.width) - len(INDENT)):
                        self.say(line)
            if text != seen:
                seen = text
                self.say(text)

        ended = await self.client.wait_rollout(workload, timeout=seconds, on_change=on_change)
        self.report.rollouts.append(
            RolloutReport(
                workload=workload,
                version=version,
                outcome=ended.status.state.value,
                seconds=round(time.monotonic() - started, 2),
                devices_touched=ended.status.touched,
            )
        )
        return ended

    async def instances(self, workload: str) -> dict[str, Instance]:
        """Return a workload's instances by device."""
        found = await self.client.list(Instance)
        return {one.spec.device: one for one in found if one.spec.workload == workload}

    async def all_running(self, workload: str, count: int) -> bool:
        """Return whether `count` instances of a workload run and are ready."""
        found = await self.instances(workload)
        good = [one for one in found.values() if one.status.state == InstanceState.RUNNING and one.status.ready]
        return len(good) == len(found) == count

    async def local_status(self, device: str) -> dict[str, object]:
        """Return what a device says of itself without any network."""
        text = await self.fleet.edgewise("agent", "status", "--data", str(self.fleet.device_folder(device)), "-o", "json")
        status: dict[str, object] = json.loads(text)
        return status

    async def totals(self, *metrics: str) -> tuple[int, ...]:
        """Return the sums of counters over all frames that all devices ever sent. One look at each device, so that they belong together."""
        sums = dict.fromkeys(metrics, 0.0)
        for member in MEMBERS:
            for one in await self.client.metrics(member.name):
                if one.name in sums:
                    sums[one.name] += one.count * one.mean
        return tuple(round(sums[metric]) for metric in metrics)
