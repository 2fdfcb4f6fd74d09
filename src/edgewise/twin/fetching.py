"""Fetching and installing one variant on a simulated device: what the agent's short-lived process does, over the twin's network.

Real installs go through `engine.install.stage` on the device's disk; modelled ones take their time and room. Either resumes where it
was broken off.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from edgewise.engine.install import InstallError, InstallTransient, failed, plan, stage
from edgewise.engine.persistence import Persistence, may_pass
from edgewise.engine.protocol import Done, Failed, Fetch, Fetched, FetchProgress, FetchStage
from edgewise.engine.resolve import NotRunnable, Resolution, Resolved, WantedManifest, unresolved
from edgewise.engine.trees import STAGING, TREES, installed_trees
from edgewise.ports.files import Files, FilesError
from edgewise.resources.artifact import File, Variant
from edgewise.resources.meta import Scalar
from edgewise.trust.verify import FetchMissing, Untrusted, Wanted
from edgewise.twin.link import Answered, Broken, Exchange, Outcome, Refused, Request
from edgewise.wire.desired import ArtifactTarget

if TYPE_CHECKING:
    from edgewise.twin.device import Contents, SimDevice
    from edgewise.twin.resident import Resident

_NOT_FOUND: Final = 404
_BEGIN_SECONDS: Final = 0.4
"""How long the process that fetches takes to start, with Python and all that it verifies signatures with; measured."""
_CHUNK: Final = 65_536

Resolve = Callable[[Files, ArtifactTarget, Mapping[str, Scalar], float], Resolution]
"""How a device finds out what an artifact stands for: `engine.resolve.resolution` with a root and a signature scheme, or `believed`."""


def believed(contents: "Contents") -> Resolve:
    """Return a `Resolve` that believes what it is told, for runs that do not test trust."""

    def resolve(_files: Files, artifact: ArtifactTarget, parameters: Mapping[str, Scalar], _now: float) -> Resolution:
        yield WantedManifest(artifact.digest, artifact.length)
        manifest = contents.manifest(artifact.digest)
        if manifest is None:
            raise FetchMissing(artifact.digest)
        variant = next((each for each in manifest.variants if each.name == artifact.variant), None)
        if variant is None:
            raise NotRunnable("NoSuchVariant", f"{artifact.target} has no variant {artifact.variant!r}")
        defaults = {name: declared.default for name, declared in manifest.parameters.items() if declared.default is not None}
        return Resolved(variant=variant, parameters={**defaults, **parameters})

    return resolve


class _Needs(Exception):
    """The installer needs a blob from an offset on."""

    def __init__(self, digest: str, offset: int) -> None:
        super().__init__(digest)
        self.digest, self.offset = digest, offset


class Fetching:
    """One fetch under way. Tells the engine of its progress and, once, of its end."""

    __slots__ = (
        "_arrived",
        "_effect",
        "_ended",
        "_exchange",
        "_fresh",
        "_persistence",
        "_resident",
        "_resolved",
        "_steps",
        "_tree",
    )

    def __init__(self, resident: "Resident", effect: Fetch) -> None:
        self._resident = resident
        self._effect = effect
        self._persistence = Persistence(resident.device.chance, resident.device.around.link_limits)
        self._fresh = True
        self._ended = False
        self._exchange: Exchange | None = None
        self._resolved: Resolved | None = None
        self._tree = ""
        self._arrived: tuple[str, int, int] | None = None
        device = resident.device
        self._steps = device.around.resolve(device.disk, effect.artifact, effect.parameters, resident.floor())

    def begin(self) -> None:
        """Start."""
        if not self._modelled:
            self._tell("Download")
        device = self._resident.device
        device.around.kernel.after(_BEGIN_SECONDS / device.power.speed, partial(self._once_more, partial(self._step, None)))

    def stop(self) -> None:
        """Break off without a word: the agent is dead."""
        self._ended = True
        if self._exchange is not None:
            self._exchange.abandon()

    def cancel(self) -> None:
        """Give up, and say so."""
        if not self._ended:
            self.stop()
            self._end(Failed(kind="transient", reason="Cancelled", message="the fetch was given up"))

    # ---- what it stands for ----

    def _step(self, data: bytes | None) -> None:
        try:
            wanted = self._steps.send(data)
        except StopIteration as ended:
            self._take(ended.value)
        except (NotRunnable, Untrusted, FetchMissing) as error:
            self._end(unresolved(error))
        except FilesError as error:
            self._end(failed(error))
        else:
            self._ask(wanted)

    def _ask(self, wanted: Wanted | WantedManifest) -> None:
        if isinstance(wanted, WantedManifest):
            self._send("blob", wanted.digest, 0, partial(self._looked_up, wanted))
        else:
            self._send("repository", wanted.name, 0, partial(self._looked_up, wanted))

    def _looked_up(self, wanted: Wanted | WantedManifest, outcome: Outcome) -> None:
        self._exchange = None
        if isinstance(outcome, Answered):
            self._persistence.got_on()
            self._step(outcome.body)
        elif isinstance(outcome, Refused) and outcome.status == _NOT_FOUND:
            self._step(None)
        else:
            self._again(outcome, partial(self._ask, wanted))

    def _take(self, resolved: Resolved) -> None:
        self._resolved = resolved
        try:
            self._tree = plan(resolved.variant, self._resident.device.around.limits).tree
        except InstallError as error:
            self._end(failed(error))
            return
        self._tell("Download")
        self._stage()

    # ---- its files ----

    def _stage(self) -> None:
        """Go on with the installation as far as it goes with what has arrived."""
        assert self._resolved is not None  # noqa: S101 - only called once it is
        device = self._resident.device
        variant = self._resolved.variant
        try:
            if not self._modelled:
                stage(device.disk, variant, self._tree, self._source, limits=device.around.limits)
            else:
                _stage_modelled(device, variant, self._tree, self._take_arrived())
        except _Needs as needs:
            self._send("blob", needs.digest, needs.offset, partial(self._got, needs))
        except (InstallError, FilesError) as error:
            self._end(failed(error))
        else:
            if not self._modelled:
                self._tell("Verify")
                self._tell("Install")
            self._end(Fetched(tree=self._tree, variant=variant, parameters=self._resolved.parameters))

    def _take_arrived(self) -> tuple[str, int, int] | None:
        arrived, self._arrived = self._arrived, None
        return arrived

    def _source(self, digest: str, offset: int) -> Iterator[bytes]:
        """Give the installer what has arrived; ask for the rest."""
        arrived = self._take_arrived()
        if arrived is not None and arrived[0] == digest and arrived[1] == offset:
            content = self._resident.device.around.contents.content(digest)[offset : offset + arrived[2]]
            for start in range(0, len(content), _CHUNK):
                yield content[start : start + _CHUNK]
            if offset + len(content) >= len(self._resident.device.around.contents.content(digest)):
                return
            offset += len(content)
        raise _Needs(digest, offset)

    def _got(self, needs: _Needs, outcome: Outcome) -> None:
        self._exchange = None
        device = self._resident.device
        if isinstance(outcome, Answered):
            self._persistence.got_on()
            self._arrived = (needs.digest, needs.offset, outcome.size or len(outcome.body) or (1 << 62))
            seconds = outcome.size / device.sort.disk_bytes_per_second
            device.around.kernel.after(seconds, self._written)
        else:
            if isinstance(outcome, Broken) and outcome.received:
                self._persistence.got_on()
                self._arrived = (needs.digest, needs.offset, outcome.received)
            self._again(outcome, self._written)

    def _written(self) -> None:
        if not self._ended:
            self._resident.guarded(self._stage)

    # ---- both ----

    def _send(self, purpose: str, path: str, offset: int, done: Callable[[Outcome], None]) -> None:
        resident = self._resident
        request = Request(
            purpose="blob" if purpose == "blob" else "repository",
            agent=resident.agent,
            device=resident.device.name,
            key=resident.device.key,
            path=path,
            offset=offset,
            fresh=self._fresh,
            not_after=resident.not_after,
        )
        self._fresh = False
        self._exchange = resident.device.link.send(request, partial(self._answered, done))

    def _answered(self, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        if not self._ended:
            self._resident.guarded(partial(done, outcome))

    def _again(self, outcome: Outcome, again: Callable[[], None]) -> None:
        """Try again what may work in a moment."""
        pause = None
        if not isinstance(outcome, Refused):
            pause = self._persistence.failed()
        elif may_pass(outcome.status):
            pause = self._persistence.failed(outcome.retry_after or 0.0)
        if pause is None:
            reason = "Refused" if isinstance(outcome, Refused) else "Unreachable"
            message = f"{outcome.status} {outcome.reason}" if isinstance(outcome, Refused) else "the control plane did not answer"
            self._end(Failed(kind="transient", reason=reason, message=message))
            return
        self._resident.device.around.kernel.after(pause, partial(self._once_more, again))

    def _once_more(self, again: Callable[[], None]) -> None:
        if not self._ended:
            self._resident.guarded(again)

    @property
    def _modelled(self) -> bool:
        """Whether stages that take no time are not told."""
        return self._resident.device.around.profile.install == "modelled"

    def _tell(self, stage_name: FetchStage) -> None:
        self._resident.give(FetchProgress(id=self._effect.id, stage=stage_name, tree=self._tree))

    def _end(self, result: Fetched | Failed) -> None:
        self._ended = True
        self._resident.fetched(self._effect.id)
        self._resident.give(Done(id=self._effect.id, result=result))


def _stage_modelled(device: "SimDevice", variant: Variant, tree: str, arrived: tuple[str, int, int] | None) -> None:
    """Do what `engine.install.stage` does as far as time and room go: `device.modelled` holds how much of which blob is staged, and how
    large which tree is. Raises `_Needs`, `InstallError`, `FilesError`."""
    disk, modelled = device.disk, device.modelled
    if tree in installed_trees(disk):
        return
    if arrived is not None:
        size = max((file.size for file in variant.files if file.digest == arrived[0]), default=0)
        modelled[arrived[0]] = min(size, arrived[1] + arrived[2])
    missing, room = sum(max(0, file.size - modelled.get(file.digest, 0)) for file in variant.files), device.room()
    if missing > room:
        raise InstallTransient("DiskFull", f"not enough room: {missing} bytes are needed, {room} are free")
    for file in variant.files:
        if modelled.get(file.digest, 0) < file.size:
            raise _Needs(file.digest, modelled.get(file.digest, 0))
    disk.make_folder(f"{TREES}/{tree}")
    disk.remove(f"{STAGING}/{tree}")
    modelled[tree] = _size(variant.files)
    for file in variant.files:
        modelled.pop(file.digest, None)


def _size(files: tuple[File, ...]) -> int:
    return sum(file.size for file in files)
