"""One simulated device against a control plane that only remembers, over a link that is up or down."""

import hashlib
from collections.abc import Callable
from functools import partial

import msgspec

from edgewise.engine.install import tree_of
from edgewise.engine.limits import EngineLimits
from edgewise.resources.artifact import Command, File, Manifest, Parameter, Probe, Probes, Variant
from edgewise.resources.device import Capacity
from edgewise.twin.device import SimDevice, Surroundings, Watch
from edgewise.twin.disk import RecordingDisk
from edgewise.twin.fleet import DeviceClass, Energy, TwinDevice
from edgewise.twin.kernel import EPOCH, Kernel
from edgewise.twin.link import Answered, Broken, Outcome, Refused, Request
from edgewise.twin.plain import PlainDisk
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour
from edgewise.wire.desired import ArtifactTarget, DesiredState, DeviceDesired, InstanceDesired, Position
from edgewise.wire.enrolment import JoinAnswer, JoinRequest, RenewAnswer
from edgewise.wire.report import DeviceReport, InstanceReport, Report, ReportAnswer

NAME = "ns/app"
PROBE = Probe(http_path="/ready", period_seconds=5.0, timeout_seconds=1.0, failure_threshold=3)
LIMITS = EngineLimits(install_reserve_bytes=1000)


def content(version: str, name: str) -> bytes:
    return f"{version}/{name} ".encode() * 50


def variant(version: str, *, bundle: bool = False, probes: Probes | None = None) -> Variant:
    files = tuple(
        File(path=name, digest=f"sha256:{hashlib.sha256(content(version, name)).hexdigest()}", size=len(content(version, name)))
        for name in ("lib/part", "main")
    )
    command = Command(argv=("${bundle}/main",)) if bundle else None
    asked = Probes(start=PROBE, readiness=PROBE, liveness=PROBE) if bundle else Probes()
    return Variant(name="only", files=files, command=command, probes=asked if probes is None else probes)


class Library:
    """What is published: versions 1 to 5, of a model or a bundle."""

    def __init__(self, *, bundle: bool) -> None:
        self.bundle = bundle
        self.manifests = {self.digest(version): self.made(version) for version in "12345"}
        self.contents = {file.digest: content(version, file.path) for version in "12345" for file in variant(version, bundle=bundle).files}

    def digest(self, version: str) -> str:
        return f"sha256:{hashlib.sha256(f'{version} {self.bundle}'.encode()).hexdigest()}"

    def made(self, version: str) -> Manifest:
        kind = "bundle" if self.bundle else "model"
        parameters = {"threshold": Parameter(type="number", default=0.5)}
        only = variant(version, bundle=self.bundle)
        return Manifest(type=kind, namespace="ns", artifact="app", version=version, variants=(only,), parameters=parameters)

    def manifest(self, digest: str) -> Manifest | None:
        return self.manifests.get(digest)

    def content(self, digest: str) -> bytes:
        return self.contents[digest]

    def target(self, version: str) -> ArtifactTarget:
        return ArtifactTarget(
            target=f"releases/ns/app/{version}.json",
            digest=self.digest(version),
            length=10,
            type="bundle" if self.bundle else "model",
            variant="only",
        )

    def tree(self, version: str) -> str:
        return tree_of(variant(version, bundle=self.bundle))


class Call:
    def __init__(self) -> None:
        self.open = True

    def abandon(self) -> None:
        self.open = False


class Control:
    """Answers after 20 ms; polls wait. `refusing`: the answer to everything else."""

    def __init__(self, kernel: Kernel, library: Library) -> None:
        self.kernel, self.library = kernel, library
        self.up = True
        self.refusing: Refused | None = None
        self.document: DeviceDesired | None = None
        self.polls: list[tuple[Call, Request, Callable[[Outcome], None]]] = []
        self.requests: list[Request] = []
        self.marks: dict[tuple[str, str], int] = {}
        self.items: list[object] = []
        self.joins: list[JoinRequest] = []
        self.broken_blobs = 0
        self.n = 0

    # ---- link.Link ----

    def send(self, request: Request, done: Callable[[Outcome], None]) -> Call:
        call = Call()
        self.requests.append(request)
        self.kernel.after(0.02 if self.up else 5.0, partial(self._arrive, call, request, done))
        return call

    def _arrive(self, call: Call, request: Request, done: Callable[[Outcome], None]) -> None:
        if not call.open:
            return
        if not self.up:
            done(Broken(kind="lost"))
        elif self.refusing is not None:
            done(self.refusing)
        elif request.purpose == "desired":
            self._poll(call, request, done)
        else:
            done(self._answer(request))

    def _poll(self, call: Call, request: Request, done: Callable[[Outcome], None]) -> None:
        if self.document is not None and str(self.document.position) != request.path:
            done(Answered(body=msgspec.msgpack.encode(DesiredState(position=self.document.position, devices=(self.document,)))))
            return
        self.polls.append((call, request, done))
        self.kernel.after(request.wait, partial(self._over, call, done))

    def _over(self, call: Call, done: Callable[[Outcome], None]) -> None:
        if call.open:
            call.open = False
            done(Answered() if self.up else Broken(kind="lost"))

    def _answer(self, request: Request) -> Outcome:
        match request.purpose:
            case "join":
                asked = msgspec.msgpack.decode(request.body, type=JoinRequest)
                self.joins.append(asked)
                return Answered(
                    body=msgspec.msgpack.encode(
                        JoinAnswer(agent=f"agent-{asked.signing_request}", certificate="c", authority="a", repository_root=b"{}")
                    )
                )
            case "renew":
                return Answered(body=msgspec.msgpack.encode(RenewAnswer(certificate="new", authority="a")))
            case "report":
                return Answered(body=msgspec.msgpack.encode(self._report(msgspec.msgpack.decode(request.body, type=Report))))
            case "blob":
                return self._blob(request)
            case _:
                return Refused(status=404, reason="NotFound")

    def _blob(self, request: Request) -> Outcome:
        if request.path in self.library.manifests:
            return Answered(size=100)
        whole = len(self.library.content(request.path))
        if self.broken_blobs:
            self.broken_blobs -= 1
            return Broken(kind="lost", received=min(100, whole - request.offset))
        return Answered(size=whole - request.offset)

    def _report(self, report: Report) -> ReportAnswer:
        marks = {}
        for lane, items in report.lanes.items():
            mark = self.marks.get((report.incarnation, lane), 0)
            self.items += items.items[max(0, mark + 1 - items.first) :]
            marks[lane] = self.marks[report.incarnation, lane] = max(mark, items.first + len(items.items) - 1)
        return ReportAnswer(marks=marks, time=EPOCH + self.kernel.now)

    # ---- what a test does ----

    def want(self, *versions: str, device: str = "dev", **fields: object) -> None:
        """Have the device run these versions, each as an instance of its own."""
        self.n += 1
        wanted = tuple(
            InstanceDesired(
                name=NAME if number == 0 else f"{NAME}-{number}",
                uid=f"uid-{number}",
                epoch=1,
                revision=f"rev-{version}",
                artifact=self.library.target(version),
                **fields,  # type: ignore[arg-type]
            )
            for number, version in enumerate(versions)
        )
        self.tell(DeviceDesired(device=device, uid="u", position=Position(1, self.n), instances=wanted))

    def tell(self, document: DeviceDesired) -> None:
        self.document, polls, self.polls = document, self.polls, []
        for call, request, done in polls:
            if call.open and self.up:
                call.open = False
                self.kernel.after(0.02, partial(self._poll, call, request, done))

    def statuses(self) -> dict[str, InstanceReport]:
        return {item.name: item for item in self.items if isinstance(item, InstanceReport)}

    def device(self) -> list[DeviceReport]:
        return [item for item in self.items if isinstance(item, DeviceReport)]


class Seen(Watch):
    """Remembers."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.readiness: list[tuple[float, str, bool]] = []
        self.commits: list[str] = []
        self.refusals: list[str] = []

    def started(self, device, instance, revision):
        self.starts.append(revision)

    def ready(self, device, instance, version, *, ready):
        self.readiness.append((round(device.around.kernel.now, 2), version, ready))

    def committed(self, device, instance, revision):
        self.commits.append(revision)

    def refused(self, device, instance, revision):
        self.refusals.append(revision)


class Rig:
    """All of it. `run` goes on for so many seconds."""

    def __init__(
        self,
        *behaviours: Behaviour,
        seed: int = 1,
        bundle: bool = False,
        profile: Profile | None = None,
        energy: Energy | None = None,
        sort: DeviceClass | None = None,
        sink: Callable[[str], None] | None = None,
        skip_probes: bool | None = None,
    ) -> None:
        self.kernel = Kernel(seed, sink)
        self.library = Library(bundle=bundle)
        self.control = Control(self.kernel, self.library)
        self.seen = Seen()
        chosen = profile or Profile()
        self.around = Surroundings(
            self.kernel,
            chosen,
            contents=self.library,
            make_disk=lambda _name, capacity: RecordingDisk(capacity=capacity) if chosen.disk == "recording" else PlainDisk(capacity),
            behaviours=behaviours,
            watch=self.seen,
            limits=LIMITS,
            skip_probes=skip_probes,
        )
        made = sort or DeviceClass(name="c", capacity=Capacity(disk=1 << 40, memory=1 << 30), energy=energy or Energy())
        self.device = SimDevice(
            self.around,
            TwinDevice(name="dev", site="s", device_class="c"),
            made,
            self.control,
            token="secret",
        )

    def run(self, seconds: float) -> None:
        self.kernel.run(self.kernel.now + seconds)

    def settled(self, version: str) -> bool:
        return self.device.ready() == {NAME: version}
