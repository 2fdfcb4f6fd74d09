"""A real control plane and real devices below one folder, and the hands to kill, hold and question them."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil

import edgewise as ew
from edgewise.agent.config import read_config, write_config
from edgewise.agent.join import join
from edgewise.agent.slots import SupervisorGone
from edgewise.agent.supervisor_link import ObserveSlots, ShowStatus, SlotsSeen, SupervisorLink, SupervisorStatus
from edgewise.client.context import choose_context, read_contexts
from edgewise.client.errors import Unreachable
from edgewise.client.publishing import read_signing_key
from edgewise.engine.outbox import open_outbox
from edgewise.ports.disk import DiskFiles
from edgewise.ports.randomness import SystemRandomness
from edgewise.resources.artifact import Variant
from edgewise.resources.instance import Instance
from edgewise.resources.meta import Metadata
from edgewise.resources.rollout import Rollout
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.states import InstanceState, RolloutState, UpdateState
from edgewise.resources.workload import (
    ArtifactReference,
    Canary,
    Disconnect,
    EveryMatchingDevice,
    Placement,
    Strategy,
    Workload,
    WorkloadSpec,
)
from edgewise.supervisor.launch import supervisor_argv
from edgewise.trust.tokens import read_join_token

EDGEWISE = str(Path(sys.executable).with_name("edgewise"))
HOOKS = Path(__file__).with_name("system_hooks.py")
PATIENCE = 120.0
"""How long anything may take, in seconds: generous, because the machine may be busy with other things."""
_SUPERVISOR_LIMITS = ("agent_backoff_seconds_max=1",)
_ENDED = {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}


def until(look, what, seconds=PATIENCE, every=0.05):
    """Return the first true value of `look()`. A control plane that is away for a moment is waited for."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Unreachable):
            value = look()
            if value:
                return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(every)


def alive(pid):
    """Whether a process lives, zombies not counted."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(*pids):
    """`kill -9`, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), f"the end of {pids}", every=0.005)


class Hooks:
    """Orders to the processes that load `system_hooks.py` from this folder."""

    def __init__(self, folder, limits=None):
        self.folder = folder
        folder.mkdir()
        shutil.copy(HOOKS, folder / "sitecustomize.py")
        self.bend(limits or {})

    def bend(self, limits):
        """Set limits by room, from the next start on."""
        (self.folder / "limits.json").write_text(json.dumps(limits))

    def order(self, name, text):
        """Write an order all at once."""
        (self.folder / f"{name}.new").write_text(text)
        (self.folder / f"{name}.new").rename(self.folder / name)

    def revoke(self, name):
        """Take an order back."""
        (self.folder / name).unlink(missing_ok=True)

    def hold(self, moment):
        """Have the first process that comes to `moment` wait there."""
        self.order(f"break.{moment}", "")

    def held(self, moment):
        """Whether a process waits at `moment`."""
        return (self.folder / f"held.{moment}").exists()

    def let_go(self, moment):
        """Let it go on. Returns whether it waited."""
        self.revoke(f"break.{moment}")
        was = self.held(moment)
        self.revoke(f"held.{moment}")
        return was

    def let_all_go(self):
        """Hold nobody any more."""
        for file in self.folder.glob("break.*"):
            file.unlink(missing_ok=True)
        for file in self.folder.glob("held.*"):
            file.unlink(missing_ok=True)


class Device:
    """One device: its folders and its processes."""

    def __init__(self, fleet, name, limits=None):
        self.fleet = fleet
        self.name = name
        self.ports = fleet.port_blocks()
        self.data = fleet.folder / name
        self.hooks = Hooks(fleet.folder / f"{name}.hooks", limits)
        self.process = None
        self.starts = 0

    def start(self, inside=()):
        """Start the supervisor, which starts the rest; `inside` is a command that runs another one."""
        environment = {**self.fleet.environment, "PYTHONPATH": str(self.hooks.folder)}
        with (self.fleet.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*inside, *supervisor_argv(str(self.data), (), (*_SUPERVISOR_LIMITS, *self.ports.limits))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.starts += 1
        return self

    def stop(self):
        """End everything in order, once it runs."""
        until(lambda: self.agent_pid, f"the agent of {self.name}")
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self.log

    def kill(self):
        """Cut the power: everything is gone at once."""
        kill(*self.tree())
        self.process.wait(PATIENCE)

    def tree(self):
        """The process ids of all that runs here, the supervisor first."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            parent = psutil.Process(self.process.pid)
            return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def kill_supervisor(self):
        """Kill the supervisor alone; its end takes agent and workloads along. Then start it again, as systemd would: that ends the rest."""
        helpers = self.fetches()
        below = self.tree()
        kill(self.process.pid)
        self.process.wait(PATIENCE)
        until(lambda: not any(alive(pid) for pid in below if pid not in helpers), "the end of what the supervisor ran")
        self.start()
        until(lambda: not any(map(alive, helpers)), "the end of what the agent ran")

    def _asked(self, question, answer):
        try:
            link = SupervisorLink(str(self.data))
        except SupervisorGone:
            return None
        try:
            return link.ask(question, answer)
        except SupervisorGone:
            return None
        finally:
            link.close()

    @property
    def agent_pid(self):
        status = self._asked(ShowStatus(), SupervisorStatus)
        return status.agent_pid if status else 0

    def kill_agent(self):
        """Kill the agent alone."""
        kill(until(lambda: self.agent_pid, f"the agent of {self.name}"))

    def fetches(self):
        """The process ids of what fetches."""
        found = []
        for pid in self.tree():
            with contextlib.suppress(psutil.Error):
                if "edgewise.agent.fetch" in psutil.Process(pid).cmdline():
                    found.append(pid)
        return found

    def slots(self, workload):
        """What runs of a workload: those that live, by slot."""
        seen = self._asked(ObserveSlots(), SlotsSeen)
        mine = f"/{workload}"
        return {each.slot: each for each in (seen.slots if seen else ()) if each.instance.endswith(mine) and each.exit_code is None}

    def pids(self, workload):
        """The process ids of a workload's slots."""
        return [each.pid for each in self.slots(workload).values()]

    @property
    def log(self):
        path = self.fleet.folder / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def instance(self, workload):
        """The instance as the control plane sees it, or None."""
        return self.fleet.instances(workload).get(self.name)

    def status(self, workload):
        """Its status; an empty one when it is not there yet."""
        found = self.instance(workload)
        return found.status if found else Instance(metadata=Metadata(name="none"), spec=None).status

    def address(self, workload):
        """Host and port where the workload serves on this device."""
        text = until(lambda: self.status(workload).address, f"an address of {workload} on {self.name}")
        host, _, port = text.removeprefix("http://").rpartition(":")
        return host, int(port)

    def problems_of_trees(self):
        """What is wrong with the installed files, which must be whole at any moment."""
        wrong, known = [], self.fleet.trees()
        for tree in (self.data / "trees").glob("*"):
            wanted = known.get(tree.name)
            if wanted is None:
                wrong.append(f"{tree.name} is nobody's")
                continue
            found = {
                str(file.relative_to(tree)): f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
                for file in tree.rglob("*")
                if file.is_file()
            }
            if found != {file.path: file.digest for file in wanted.files}:
                wrong.append(f"{tree.name} holds {found}")
        return wrong

    def outbox(self):
        """Open a copy of the device's outbox, as it is on the disk."""
        copy = self.fleet.folder / f"{self.name}.outbox"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data / "outbox", copy / "outbox")
        return open_outbox(DiskFiles(str(copy)), SystemRandomness(), session="test")


class Fleet:
    """One control plane, its devices and its operator."""

    def __init__(self, folder, port_blocks, limits=None, gateway_host="127.0.0.1"):
        self.folder = folder
        self.gateway_host = gateway_host
        self.port_blocks = port_blocks
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("EDGEWISE_", "PYTHON"))}
        self.environment |= {"EDGEWISE_CONFIG": str(folder / "contexts.json"), "NO_COLOR": "1", "HOME": str(folder)}
        self.hooks = Hooks(folder / "control.hooks", limits)
        self.devices = {}
        self.ports = port_blocks()
        self.api_port, self.gateway_port = self.ports.free(2)
        self.control = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="operator", daemon=True)
        self._thread.start()
        self._client = None
        self._trees = {}
        self.probers = []

    # ---- processes ----

    def up(self):
        """Start the control plane and wait until it answers."""
        self.start_control()
        until(self._answers, lambda: f"the control plane's first answer: {self.log}")
        return self

    def start_control(self):
        environment = {**self.environment, "PYTHONPATH": str(self.hooks.folder)}
        words = ["--data", str(self.folder / "control"), "--api-port", str(self.api_port)]
        words += ["--gateway-host", self.gateway_host, "--gateway-port", str(self.gateway_port)]
        with (self.folder / "control.log").open("ab") as log:
            self.control = subprocess.Popen(
                [EDGEWISE, "up", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def kill_control(self):
        kill(self.control.pid)
        self.control.wait(PATIENCE)

    def stop_control(self):
        self.control.terminate()
        assert self.control.wait(PATIENCE) == 0, self.log

    @property
    def log(self):
        path = self.folder / "control.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def _answers(self):
        assert self.control.poll() is None, self.log
        if not (self.folder / "contexts.json").exists():
            return False
        self.ask(self.client.version())
        return True

    def device(self, name, labels=None, limits=None, via=0, start=True, site="lab", **options):
        """Join a device and start it. It reaches the control plane through the port `via`, if there is one."""
        device = self.devices[name] = Device(self, name, limits)
        token = self.ask(self.client.create_join_token(site))
        options = {"telemetry_seconds": 0.5, **options}
        join(read_join_token(token), str(device.data), device=name, labels=labels or {}, **options)
        if via:
            files = DiskFiles(str(device.data))
            write_config(files, msgspec.structs.replace(read_config(files), addresses=(f"https://127.0.0.1:{via}",)))
            files.close()
        return device.start() if start else device

    def close(self):
        """End everything, whatever state it is in."""
        for prober in self.probers:
            prober.stop()
        if self._client is not None:
            self.ask(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        processes = [device.process for device in self.devices.values()] + [self.control]
        victims = [pid for device in self.devices.values() for pid in device.tree()]
        victims += [self.control.pid] if self.control is not None and self.control.poll() is None else []
        kill(*victims)
        kill(*self.leftovers())
        for process in processes:
            if process is not None:
                process.wait(PATIENCE)
        for each in (self, *self.devices.values()):
            each.ports.give_back()

    def leftovers(self):
        """Processes that name this fleet's folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process.pid)
        return found

    # ---- the operator ----

    @property
    def client(self):
        if self._client is None:
            self._client = ew.Client(self.context())
        return self._client

    def context(self):
        """The first admin's context."""
        return choose_context(read_contexts(self.folder / "contexts.json"), "")[1]

    def ask(self, work, seconds=PATIENCE):
        """Carry out one of the client's calls."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def push(self, release):
        """Publish a release."""
        published = self.ask(self.client.push(release, read_signing_key(self.context().signing_key)))
        for variant in published.spec.manifest.variants:
            self.note(variant)
        return published

    def push_manifest(self, manifest):
        """Sign and publish a manifest as it is; nothing is checked here."""
        from edgewise.client.publishing import _sign_and_publish

        body = msgspec.json.encode(manifest, order="deterministic")
        key = read_signing_key(self.context().signing_key)
        return self.ask(_sign_and_publish(self.client._connection, manifest, body, key))

    def blob(self, digest):
        """The file in which the control plane keeps a blob."""
        (path,) = (path for path in (self.folder / "control" / "blobs").rglob("*") if path.name.endswith(digest[9:]) and path.is_file())
        return path

    def note(self, variant: Variant):
        from edgewise.engine.install import plan

        self._trees[plan(variant).tree] = variant

    def trees(self):
        """All variants that were ever published, by the name of their installed folder."""
        return self._trees

    def run(self, name, version, selector="", **options):
        """Apply a workload."""
        self.ask(self.client.apply(workload(name, version, selector, **options)))

    def instances(self, name):
        """The instances of a workload by device."""
        return {each.spec.device: each for each in self.ask(self.client.list(Instance)) if each.spec.workload == name}

    def rollout(self, name):
        """The workload's newest rollout, or None."""
        history = self.ask(self.client.rollout_history(name))
        return history[-1] if history else None

    def ended(self, name, version):
        """Wait until the rollout of a version has ended, and return it."""

        def look():
            found: Rollout | None = self.rollout(name)
            return found if found and found.spec.version == str(version) and found.status.state in _ENDED else None

        return until(look, lambda: f"the end of the rollout of {name} {version}: {self.tell(name)}", every=0.1)

    def serves(self, name, version, devices=None):
        """Wait until the rollout of a version has succeeded and all that was started is ready."""
        ended = self.ended(name, version)
        assert ended.status.state == RolloutState.SUCCEEDED, self.tell(name)
        self.settled(name, ended.spec.to_revision, devices)
        return ended.spec.to_revision

    def settled(self, name, revision, devices=None):
        """Wait until all instances of a workload rest on a revision."""

        def look():
            found = self.instances(name)
            wanted = devices or found.keys()
            return found and all(resting(found.get(device), revision) for device in wanted)

        until(look, lambda: f"{name} resting on {revision}: {self.tell(name)}", every=0.1)

    def tell(self, name):
        """All that is known of a workload, for people who look at a failed test."""
        rollout = self.rollout(name)
        lines = [f"rollout {rollout.spec.version if rollout else None}: {rollout.status if rollout else None}"]
        lines += [f"{device}: {one.spec} {one.status}" for device, one in self.instances(name).items()]
        lines.append(f"placement: {self.ask(self.client.placement(name))}")
        lines += [
            f"--- {device.name}\n{device.log[-1500:]}\n{sorted(file.name for file in device.hooks.folder.iterdir())}"
            for device in self.devices.values()
        ]
        return "\n".join(lines)

    def events(self, source="", reason=""):
        """Events that happened, oldest first."""
        return [each for each in self.ask(self.client.events(source=source, limit=1000)) if not reason or each.reason == reason]

    def total(self, device, metric):
        """The sum of a counter over all that ever arrived."""
        return round(self.ask(self.client.metric_total(device, metric)))

    def probe(self, device, name, path=None, *, address=None):
        """Ask a workload on a device again and again from now on."""
        prober = Prober(address or device.address(name), name, path)
        self.probers.append(prober)
        prober.start()
        return prober


def resting(instance, revision):
    """Whether an instance serves this revision, committed, with nothing under way."""
    if instance is None:
        return False
    status = instance.status
    return (
        status.revision == status.committed == revision
        and status.ready
        and status.state == InstanceState.RUNNING
        and status.update in {UpdateState.IDLE, UpdateState.FAILED}
    )


def workload(name, version, selector="", **options):
    """Return a workload with quick settings. It runs on every device that has the label `selector`, or on all."""
    canary = Canary(
        waves=options.pop("waves", ("100%",)),
        observe_for=options.pop("observe", "0s"),
        failure_budget=options.pop("budget", "0%"),
        device_deadline=options.pop("deadline", "10m"),
    )
    select = Selector(match_expressions=(Requirement(key=selector, operator="Exists"),)) if selector else Selector()
    replicas = options.pop("replicas", None)
    spec = WorkloadSpec(
        artifact=ArtifactReference(name=options.pop("artifact", name), version=str(version)),
        placement=Placement(replicas=replicas, every_matching_device=EveryMatchingDevice() if replicas is None else None, selector=select),
        strategy=Strategy(canary=canary, probation=options.pop("probation", "300ms"), analysis=options.pop("analysis", ())),
        disconnect=options.pop("disconnect", Disconnect()),
        **options,
    )
    return Workload(metadata=Metadata(name=name), spec=spec)


class Prober(threading.Thread):
    """A client that never stops asking. Every answer is (value, revision); what gets no answer is dropped."""

    def __init__(self, address, name, path=None, pause=0.05):
        super().__init__(name=f"prober of {name}", daemon=True)
        self._address = address
        self._name = name
        self._path = path
        self._pause = pause
        self._ending = threading.Event()
        self.answers = []
        self.dropped = []

    def stop(self):
        """End, and let the rest be looked at."""
        self._ending.set()
        if self.is_alive():
            self.join(PATIENCE)
        return self

    def run(self):
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        while not self._ending.wait(self._pause):
            try:
                self.answers.append(self._ask(connection))
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.dropped.append(f"{type(error).__name__}: {error}")
                connection.close()
        connection.close()

    def _ask(self, connection):
        if self._path is not None:
            connection.request("GET", self._path)
        else:
            body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.0]}]})
            connection.request("POST", f"/v2/models/{self._name}/infer", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {text[:200]!r}")
        value = json.loads(text) if self._path is not None else json.loads(text)["outputs"][0]["data"][0]
        return round(value), answer.headers["edgewise-revision"]

    def mixed(self, versions):
        """Answers whose value is not that of the revision they claim. `versions`: value by revision."""
        return {answer for answer in set(self.answers) if versions.get(answer[1]) != answer[0]}


class Cable(threading.Thread):
    """The network between a device and the control plane. `cut` it: nothing comes through any more, and nobody is told."""

    def __init__(self, port):
        super().__init__(name="cable", daemon=True)
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._sockets = []
        self.start()

    def run(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        """Hold everything back."""
        self._whole.clear()

    def mend(self):
        """Break what was held back, as routers do, and carry again."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._whole.set()

    def close(self):
        """End."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.mend()
        for each in (self._listener, *self._sockets):
            each.close()


def decoded(path, kind):
    """Read a JSON file of a device."""
    return msgspec.json.decode(path.read_bytes(), type=kind)
