"""Fetching, verifying and installing one variant. Short-lived process only."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from edgewise.agent.errors import LinkError, ProtocolBroken, Refused, Unreachable
from edgewise.agent.exchange import Incoming, Timeouts
from edgewise.agent.http import Client
from edgewise.agent.jobs import FetchJob, Line, Progress
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.place import connect, now
from edgewise.agent.resolve import Resolver
from edgewise.engine.identity import Identity, IdentityDamaged, read_identity
from edgewise.engine.install import InstallError, InstallTransient, InstallUntrusted, failed, plan, stage
from edgewise.engine.persistence import Persistence, may_pass
from edgewise.engine.protocol import Failed, Fetched, FetchStage
from edgewise.engine.resolve import NotRunnable, Resolved, unresolved
from edgewise.ports.files import Files, FilesError
from edgewise.ports.randomness import Randomness, SystemRandomness
from edgewise.resources.artifact import Variant
from edgewise.resources.meta import Digest
from edgewise.trust.verify import FetchMissing, Untrusted

T = TypeVar("T")
_PROGRESS_SECONDS = 1.0
_RANGE_IGNORED, _RANGE_REFUSED = 200, 416


class Fetcher:
    """One fetch."""

    def __init__(
        self,
        job: FetchJob,
        files: Files,
        write: Callable[[Line], None],
        *,
        limits: AgentLimits = LIMITS,
        randomness: Randomness | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._job = job
        self._files = files
        self._write = write
        self._limits = limits
        self._randomness = randomness or SystemRandomness()
        self._sleep = sleep
        self._tree = ""
        self._told = (("", ""), 0.0)
        self._arrived = 0

    def run(self) -> Fetched | Failed:
        """Fetch, verify and install."""
        try:
            return self._run()
        except (NotRunnable, Untrusted, InstallError, IdentityDamaged, FetchMissing, LinkError, FilesError, OSError) as error:
            return failure(error)

    def _run(self) -> Fetched:
        identity = read_identity(self._files)
        if identity is None:
            raise IdentityDamaged("this device has not joined")
        client = connect(self._job.place, identity)
        try:
            return self._fetch(client, identity)
        finally:
            client.close()

    def _fetch(self, client: Client, identity: Identity) -> Fetched:
        job = self._job
        self._tell("Download", 0, job.artifact.size)
        time_now = now(job.place)
        resolver = Resolver(client, identity.repository_root, files=self._files, data=job.place.data, now=time_now, limits=self._limits)
        resolved: Resolved = self._patiently(lambda: resolver.resolve(job.artifact, job.parameters))
        wanted = plan(resolved.variant)
        self._tree = wanted.tree
        self._tell("Download", 0, wanted.size)
        self._patiently(lambda: self._stage(client, resolved.variant, wanted.tree))
        self._tell("Install", wanted.size, wanted.size)
        return Fetched(tree=wanted.tree, variant=resolved.variant, parameters=resolved.parameters)

    def _patiently(self, work: Callable[[], T]) -> T:
        """Try again what may work in a moment. Every try that brought bytes begins the count of failures anew."""
        persistence = Persistence(self._randomness, self._limits)
        while True:
            before = self._arrived
            try:
                return work()
            except (Unreachable, Refused, InstallTransient) as error:
                if not _may_pass(error):
                    raise
                if self._arrived > before:
                    persistence.got_on()
                pause = persistence.failed(error.retry_after or 0.0 if isinstance(error, Refused) else 0.0)
                if pause is None:
                    raise
                self._sleep(pause)

    def _stage(self, client: Client, variant: Variant, tree: str) -> None:
        stage(self._files, variant, tree, lambda digest, offset: self._blob(client, digest, offset), self._progress)

    def _blob(self, client: Client, digest: Digest, offset: int) -> Iterator[bytes]:
        headers = (("Range", f"bytes={offset}-"),) if offset else ()
        timeouts = Timeouts(read=self._limits.read_seconds, total=None)
        with _whole(client.stream("GET", f"/v1/blobs/{digest}", headers=headers, timeouts=timeouts), digest) as incoming:
            skip = 0
            if offset and incoming.status == _RANGE_IGNORED:
                skip = offset  # it begins again; what is here already is passed over
            elif offset and not incoming.headers.get("content-range", "").startswith(f"bytes {offset}-"):
                raise ProtocolBroken(f"asked for {digest} from {offset} on, got {incoming.headers.get('content-range', 'no range')!r:.100}")
            for chunk in incoming.chunks(self._limits.chunk_bytes):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                piece, skip = chunk[skip:] if skip else chunk, 0
                self._arrived += len(piece)
                yield piece

    def _progress(self, done: int, total: int) -> None:
        self._tell("Download" if done < total else "Verify", done, total)

    def _tell(self, stage_name: FetchStage, done: int, total: int) -> None:
        last, at = self._told
        telling = (stage_name, self._tree)
        if telling == last and time.monotonic() - at < _PROGRESS_SECONDS:
            return
        self._told = (telling, time.monotonic())
        self._write(Progress(stage=stage_name, done=done, total=total, tree=self._tree))


def failure(error: Exception) -> Failed:
    """Return what the engine is told of an error."""
    match error:
        case Untrusted() | NotRunnable() | FetchMissing():
            return unresolved(error)
        case InstallError() | FilesError():
            return failed(error)
        case OSError():
            return _disk_failure(error)
        case _:
            return Failed(kind="transient", reason=type(error).__name__, message=str(error))


def _disk_failure(error: OSError) -> Failed:
    """Say it as the installer does, for those who write to the disk by themselves."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    where = f" ({error.filename})" if error.filename else ""
    message = f"the disk {'is full' if full else 'failed'}: {error.strerror or error}{where}"
    return Failed(kind="transient", reason="DiskFull" if full else "DiskFailed", message=message)


def _may_pass(error: Exception) -> bool:
    match error:
        case Refused():
            return may_pass(error.status)
        case InstallTransient():
            return error.reason == "EndedEarly"
        case _:
            return True


@contextlib.contextmanager
def _whole(stream: contextlib.AbstractContextManager[Incoming], digest: Digest) -> Iterator[Incoming]:
    """Say it plainly when there is nothing at an offset where there must be something."""
    try:
        with stream as incoming:
            yield incoming
    except Refused as error:
        if error.status == _RANGE_REFUSED:
            raise InstallUntrusted("WrongSize", f"what the control plane holds as {digest} is shorter than what was signed") from error
        raise
