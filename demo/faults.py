"""The steps in which something goes wrong: a bad model, a dead control plane, a power cut, a lost device, a flipped byte."""

import asyncio
import contextlib
import time

from demo import model
from demo.fleet import MEMBERS, CommandFailed, DemoFailed
from demo.run import Run
from demo.steps import CAMERAS, ROLLOUT_SECONDS, START_SECONDS, online, push_model
from edgewise.resources.artifact import ArtifactVersion
from edgewise.resources.states import RolloutState, UpdateState

CUT_DEVICE = "north-2"
CONVERGE_SECONDS = 120.0


async def roll_out_worse(run: Run) -> None:
    """Let the shadow fail: what the version says is compared, and never returned."""
    async with run.step("Version 3, made worse, disagrees in the shadow: it never answers a request") as facts:
        facts |= {f"held_out_{key}": value for key, value in (await push_model(run, model.CORRUPTED)).items() if "accuracy" in key}
        started = await run.apply("workloads.yaml", VERSION="3")
        ended = await run.rollout("inspector", "3", started, ROLLOUT_SECONDS)
        _expect(ended.status.state == RolloutState.ROLLED_BACK, f"the rollout ended {ended.status.state.value}: {ended.status.message}")
        bad = ended.spec.to_revision

        async def back() -> bool:
            found = await run.instances("inspector")
            return all(one.status.revision == ended.spec.from_revision and one.status.ready for one in found.values())

        facts["seconds_until_all_serve_version_2"] = round(await run.until("all devices serve version 2", CONVERGE_SECONDS, back), 2)
        tried = sorted(device for device, one in (await run.instances("inspector")).items() if bad in one.status.refused)
        touched = sorted(ended.status.touched_devices)
        _expect(bool(touched) and tried == touched, f"touched {touched}, but it is refused on {tried}")
        _expect(len(touched) < len(CAMERAS), "every device saw version 3")
        facts["devices_that_saw_it"] = facts["devices_that_refuse_it"] = len(tried)


async def survive_without_control_plane(run: Run) -> None:
    """`kill -9` of the control plane; a power cut of one device while it is gone."""
    async with run.step("The control plane is killed; a device loses power and comes back to work alone") as facts:
        before = {name: one.status.started_at for name, one in (await run.instances("inspector")).items() if name != CUT_DEVICE}
        address = (await run.instances("inspector"))[CUT_DEVICE].status.address
        run.fleet.kill("control")
        run.say("control plane: kill -9")
        run.fleet.kill(CUT_DEVICE)
        run.say(f"{CUT_DEVICE}: kill -9 of supervisor, agent and workloads")
        started = time.monotonic()
        run.fleet.start_device(CUT_DEVICE)
        await run.until(f"the model on {CUT_DEVICE} answers", CONVERGE_SECONDS, lambda: _answers(address))
        await run.until(f"all of {CUT_DEVICE} works", CONVERGE_SECONDS, lambda: _works_locally(run, CUT_DEVICE))
        run.report.offline_restart_seconds = facts["offline_restart_seconds"] = round(time.monotonic() - started, 2)
        await asyncio.sleep(2)  # let something happen that can only be reported later
        run.fleet.start_control_plane()
        facts["reconnected_after_seconds"] = round(
            await run.until("everything reconnects", CONVERGE_SECONDS, lambda: online(run, len(MEMBERS))), 2
        )

        async def reported() -> bool:
            found = await run.instances("inspector")
            return all(one.status.ready for one in found.values()) and bool(
                [event for event in await run.client.events(source=CUT_DEVICE) if event.reason == "Resumed"]
            )

        await run.until(f"what {CUT_DEVICE} did meanwhile arrives", CONVERGE_SECONDS, reported)
        after = {name: one.status.started_at for name, one in (await run.instances("inspector")).items() if name != CUT_DEVICE}
        _expect(before == after, f"healthy instances were restarted: {before} became {after}")
        facts["healthy_instances_restarted"] = 0


async def fail_over(run: Run) -> None:
    """Two replicas lose a device for good; later it returns."""
    async with run.step("A workload with two replicas loses a device, and takes another") as facts:
        started = await run.apply("recorder.yaml")
        ended = await run.rollout("recorder", "1", started, ROLLOUT_SECONDS)
        _expect(ended.status.state == RolloutState.SUCCEEDED, f"the rollout ended {ended.status.state.value}")
        await run.until("two copies run", START_SECONDS, lambda: run.all_running("recorder", 2))
        before = set(await run.instances("recorder"))
        lost = min(before)
        killed = time.monotonic()
        run.fleet.kill(lost)
        run.say(f"{lost} is lost (lostAfter: 8s)")

        async def replaced() -> bool:
            found = await run.instances("recorder")
            return any(device not in before and one.status.ready for device, one in found.items())

        await run.until("a copy runs elsewhere", CONVERGE_SECONDS, replaced)
        run.report.failover_seconds = facts["failover_seconds"] = round(time.monotonic() - killed, 2)
        run.fleet.start_device(lost)
        run.say(f"{lost} returns")
        await run.until("the surplus copy stops", CONVERGE_SECONDS, lambda: run.all_running("recorder", 2))
        await run.until("all devices are online", CONVERGE_SECONDS, lambda: online(run, len(MEMBERS)))
        facts["copies_in_the_end"] = len(await run.instances("recorder"))


async def refuse_flipped_byte(run: Run) -> None:
    """Damage a blob in the control plane's own store."""
    async with run.step("One byte of a blob is flipped in the store: the device refuses it, what runs, runs on") as facts:
        await push_model(run, model.FOURTH)
        version = await run.client.get(ArtifactVersion, "inspector:4")
        for variant in version.spec.manifest.variants:
            _flip(run, variant.files[0].digest)
        before = {name: one.status.started_at for name, one in (await run.instances("inspector")).items()}
        started = await run.apply("workloads.yaml", VERSION="4")
        said: list[str] = []

        async def refused() -> bool:
            found = (await run.instances("inspector")).values()
            said.extend(
                f"{one.spec.device}: {one.status.reason}: {one.status.message}" for one in found if one.status.update == UpdateState.FAILED
            )
            return bool(said)

        await run.until("a device says why it refuses", CONVERGE_SECONDS, refused)
        run.say(said[0])
        facts["error"] = said[0]
        with contextlib.suppress(CommandFailed):  # the rollout may have ended by itself meanwhile
            await run.fleet.edgewise("rollout", "abort", "inspector", "-n", "line-3")
        await run.rollout("inspector", "4", started, CONVERGE_SECONDS)
        after = await run.instances("inspector")
        _expect(all(one.status.ready for one in after.values()), "an instance is not ready")
        _expect(before == {name: one.status.started_at for name, one in after.items()}, "a healthy instance was restarted")


async def _answers(address: str) -> bool:
    """Ask a model server on this machine whether it is ready."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.readline(), 2)
        writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in answer


async def _works_locally(run: Run, device: str) -> bool:
    """Ask the device itself: its model answers on loopback."""
    try:
        status = await run.local_status(device)
    except CommandFailed:  # not up yet
        return False
    instances = status.get("instances", [])
    if not isinstance(instances, list):
        raise DemoFailed("agent status gives no instances")
    ready = {one["name"]: one["ready"] for one in instances}
    return bool(ready.get("line-3/inspector")) and bool(ready.get("line-3/camera"))


def _flip(run: Run, digest: str) -> None:
    hexadecimal = digest.partition(":")[2]
    (path,) = [path for path in (run.fleet.control_folder / "blobs").rglob("*") if path.name.endswith(hexadecimal[2:]) and path.is_file()]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)
