"""The steps in which all goes well: a control plane, a fleet, a model, a better model."""

import asyncio
import statistics
from pathlib import Path

import msgspec

from demo import model
from demo.fleet import MEMBERS, DemoFailed, Member, pss_megabytes
from demo.report import Fact
from demo.run import Run
from edgewise.resources.device import Device
from edgewise.resources.states import Connection, RolloutState

CAMERAS = tuple(member.name for member in MEMBERS if any(label.startswith("camera=") for label in member.labels))
START_SECONDS = 90.0
ROLLOUT_SECONDS = 420.0
JOINS_AT_ONCE = 2
TELEMETRY_WINDOW = "2s"
IDLE_DEVICE = "south-4"
IDLE_POLL_SECONDS = 5
IDLE_SECONDS_LEAST = 25.0
POLL_SECONDS = 240
"""The product's own cadence: one poll in this many seconds when nothing happens."""


async def start_control_plane(run: Run) -> None:
    """`edgewise up`."""
    async with run.step("A control plane starts") as facts:
        run.fleet.start_control_plane()
        facts["seconds_to_ready"] = round(await run.until("the control plane answers", START_SECONDS, lambda: _answers(run)), 2)
        run.say(f"operator API on port {run.fleet.api_port}, gateway on port {run.fleet.gateway_port}, data in {run.fleet.control_folder}")


async def join_devices(run: Run) -> None:
    """Eight supervisor and agent pairs, each with its own token, key, certificate and data folder."""
    async with run.step("Eight devices join, at two sites, of three classes") as facts:
        gate = asyncio.Semaphore(JOINS_AT_ONCE)
        await run.proxy.start()

        async def one(member: Member) -> None:
            async with gate:
                await _join(run, member)

        await asyncio.gather(*(one(member) for member in MEMBERS))
        await run.until("all devices are online", START_SECONDS, lambda: online(run, len(MEMBERS)))
        facts["devices"] = len(MEMBERS)
        devices = await run.client.list(Device)
        facts["sites"] = len({device.spec.site for device in devices})
        facts["classes"] = len({device.spec.device_class for device in devices})


async def push_first_model(run: Run) -> None:
    """Train, export, quantise, measure, sign, publish."""
    async with run.step("A model is made from real images and published, signed, in two variants") as facts:
        run.say("images: scikit-learn's bundled handwritten digits, standing in for part labels at an inspection station")
        run.data = await asyncio.to_thread(model.load)
        facts.update(await push_model(run, model.FIRST))
        await _push_bundle(run, "camera", {"model": {"type": "string"}, "rate": {"type": "number", "minimum": 0.1, "maximum": 100}})
        await _push_bundle(run, "recorder", {})


async def roll_out_first(run: Run) -> None:
    """One YAML file."""
    async with run.step("Version 1 runs on every device with a camera, in the variant that fits it") as facts:
        started = await run.apply("workloads.yaml", VERSION="1")
        ended = await run.rollout("inspector", "1", started, ROLLOUT_SECONDS)
        _expect(ended.status.state == RolloutState.SUCCEEDED, f"the rollout ended {ended.status.state.value}: {ended.status.message}")
        await run.until("all cameras run", START_SECONDS, lambda: run.all_running("camera", len(CAMERAS)))
        variants = {device: one.status.variant for device, one in (await run.instances("inspector")).items()}
        _expect(set(variants) == set(CAMERAS), f"it runs on {sorted(variants)}, not on {sorted(CAMERAS)}")
        _expect(set(variants.values()) == {"fp32", "int8"}, f"the variants are {variants}")
        facts["devices"] = len(variants)
        for variant in ("fp32", "int8"):
            facts[variant] = sum(one == variant for one in variants.values())


async def roll_out_better(run: Run) -> None:
    """Shadow, canary, Succeeded, each with its evidence; no request dropped."""
    async with run.step("Version 2, better, goes through a shadow and a canary; no request is dropped") as facts:
        _check_data(run)
        pushed = await push_model(run, model.BETTER)
        (before,) = await run.totals("camera.requests.dropped")
        started = await run.apply("workloads.yaml", VERSION="2")
        ended = await run.rollout("inspector", "2", started, ROLLOUT_SECONDS)
        _expect(ended.status.state == RolloutState.SUCCEEDED, f"the rollout ended {ended.status.state.value}: {ended.status.message}")
        facts["accuracy_on_held_out_images"] = pushed["fp32_accuracy"]
        facts["accuracy_reported_by_devices"] = _mean(ended.status.verdicts[0].mean if ended.status.verdicts else None)
        (after,) = await run.totals("camera.requests.dropped")
        facts["dropped_during_swaps"] = after - before
        _expect(facts["dropped_during_swaps"] == 0, f"{facts['dropped_during_swaps']} requests were dropped")


async def measure_idle(run: Run) -> None:
    """Measure what the resident processes cost."""
    async with run.step("What a device's own processes cost") as facts:
        agents, supervisors = [], []
        for member in MEMBERS:
            for process in run.fleet.processes_of(member.name):
                words = process.cmdline()
                if "edgewise.agent" in words:
                    agents.append(pss_megabytes(process))
                elif any(word.endswith("supervisor/__main__.py") for word in words):
                    supervisors.append(pss_megabytes(process))
        _expect(len(agents) == len(supervisors) == len(MEMBERS), f"found {len(agents)} agents and {len(supervisors)} supervisors")
        run.report.agent_pss_mb = facts["agent_pss_mb"] = round(statistics.median(agents), 2)
        run.report.supervisor_pss_mb = facts["supervisor_pss_mb"] = round(statistics.median(supervisors), 2)
        run.proxy.restart_count()
        run.say(f"from here on a proxy counts what the idle device {IDLE_DEVICE} sends and receives")


async def measure_idle_wire(run: Run) -> None:
    """Bytes of one poll after the other, taken at the product's own cadence."""
    async with run.step("What an idle device costs on the wire") as facts:
        counted, seconds = run.proxy.counted()
        await asyncio.sleep(max(0.0, IDLE_SECONDS_LEAST - seconds))
        counted, seconds = run.proxy.counted()
        polls = seconds / IDLE_POLL_SECONDS
        facts["bytes_per_poll"] = round(counted / polls)
        facts["counted_over_seconds"] = round(seconds)
        facts["polls_per_hour"] = 3600 // POLL_SECONDS
        run.report.idle_wire_bytes_per_hour = round(counted / polls * 3600 / POLL_SECONDS)
        _expect(counted > 0, "nothing was counted: the idle device does not use the proxy")


async def push_model(run: Run, recipe: model.Recipe) -> dict[str, Fact]:
    """Make one version of the model and push both variants with their measured profiles."""
    data = _check_data(run)
    made = await asyncio.to_thread(model.make, recipe, data, run.folder)
    facts: dict[str, Fact] = {}
    variants = []
    for one in made:
        facts[f"{one.precision}_accuracy"] = round(one.accuracy, 3)
        facts[f"{one.precision}_p50_ms"] = round(one.latency_p50_ms, 4)
        variants.append(
            {
                "name": one.precision,
                "path": one.path.name,
                "runtime": "onnxruntime",
                "precision": one.precision,
                # Declared so that the smallest class of the demo takes the small variant.
                "requirements": {"memory": "512Mi" if one.precision == "fp32" else "128Mi", "runtimes": {"onnxruntime": "1.17"}},
                "profile": {
                    "latencyP50Ms": round(one.latency_p50_ms, 4),
                    "latencyP95Ms": round(one.latency_p95_ms, 4),
                    "quality": {"accuracy": round(one.accuracy, 4)},
                    "measuredOn": "the machine that runs the demo",
                },
            }
        )
    await _push(run, {"name": "inspector", "version": recipe.version, "type": "model", "variants": variants})
    return facts


async def online(run: Run, count: int) -> bool:
    """Return whether `count` devices are online."""
    return sum(device.status.connection == Connection.ONLINE for device in await run.client.list(Device)) == count


async def _answers(run: Run) -> bool:
    if not run.fleet.running("control"):
        raise DemoFailed(f"the control plane ended:\n{run.fleet.log_of('control')}")
    if not (run.folder / "contexts.json").exists():
        return False
    await run.client.version()
    return True


async def _join(run: Run, member: Member) -> None:
    token = await run.fleet.edgewise("token", "create", "--site", member.site)
    more = [word for label in member.labels for word in ("--label", label)]
    if member.name == IDLE_DEVICE:
        more += ["--proxy", run.proxy.address, "--poll-wait", f"{IDLE_POLL_SECONDS}s"]
    await run.fleet.edgewise(
        "agent", "join", "--token-file", "-", "--name", member.name, "--class", member.device_class,
        "--capacity", member.capacity, "--data", str(run.fleet.device_folder(member.name)), "--telemetry-window", TELEMETRY_WINDOW, *more,
        stdin=token.encode(),
    )  # fmt: skip
    run.fleet.start_device(member.name)
    run.say(f"{member.name} joined ({member.device_class}: {member.capacity})")


async def _push_bundle(run: Run, name: str, parameters: dict[str, object]) -> None:
    source = Path(__file__).parent / name
    folder = run.folder / name
    folder.mkdir()
    (folder / f"{name}.py").write_bytes((source / f"{name}.py").read_bytes())
    if name == "camera":
        model.write_samples(_check_data(run), folder / "samples.json")
    probe = {"heartbeat": True, "periodSeconds": 10} if name == "recorder" else None
    variant: dict[str, object] = {"name": "python", "path": name, "command": {"argv": ["${python}", f"${{bundle}}/{name}.py"]}}
    if probe:
        variant["probes"] = {"liveness": probe}
    await _push(run, {"name": name, "version": "1", "type": "bundle", "variants": [variant], "parameters": parameters})


async def _push(run: Run, release: dict[str, object]) -> None:
    file = run.folder / f"{release['name']}-{release['version']}.artifact.yaml"
    file.write_bytes(msgspec.yaml.encode(release))
    said = await run.fleet.edgewise("artifact", "push", "-f", str(file), "-n", "line-3")
    run.say(said.strip().replace("\n", "\n   "))


def _check_data(run: Run) -> model.Data:
    if run.data is None:
        raise DemoFailed("the images were not loaded")
    return run.data


def _mean(value: float | None) -> float:
    if value is None:
        raise DemoFailed("the rollout's verdict holds no accuracy")
    return round(value, 3)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)
