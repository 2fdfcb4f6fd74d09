"""From a target's name to a variant that may run here, over the network. Short-lived process only."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping

from edgewise.agent.errors import Refused
from edgewise.agent.http import Client
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.engine.resolve import Resolved, WantedManifest, resolution
from edgewise.ports.files import Files
from edgewise.resources.meta import Scalar
from edgewise.trust.verify import Wanted
from edgewise.wire.desired import ArtifactTarget

_NOT_FOUND = 404


class Resolver:
    """Believes the pinned `root` and nothing else. `files` are those of the folder `data`, where the repository's metadata is cached; `now`
    is the time to judge it by."""

    def __init__(self, client: Client, root: bytes, *, files: Files, data: str, now: float, limits: AgentLimits = LIMITS) -> None:
        self._client = client
        self._root = root
        self._files = files
        self._data = data
        self._now = now
        self._limits = limits

    def resolve(self, artifact: ArtifactTarget, parameters: Mapping[str, Scalar]) -> Resolved:
        """Return what `artifact` stands for. Raises what `resolution` raises, and `LinkError`."""
        steps = resolution(self._files, self._root, artifact, parameters, self._now, manifest_bytes_max=self._limits.manifest_bytes_max)
        data: bytes | None = None
        with _alone(self._data):
            while True:
                try:
                    wanted = steps.send(data)
                except StopIteration as ended:
                    resolved: Resolved = ended.value
                    return resolved
                data = self._get(wanted)

    def _get(self, wanted: Wanted | WantedManifest) -> bytes | None:
        if isinstance(wanted, WantedManifest):
            return self._client.request("GET", f"/v1/blobs/{wanted.digest}", body_limit=wanted.limit).body
        try:
            return self._client.request("GET", f"/v1/repository/{wanted.name}", body_limit=wanted.limit).body
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise


@contextlib.contextmanager
def _alone(data: str) -> Iterator[None]:
    """Keep the other fetch of this device from the cache meanwhile: one that read earlier must not write after one that read later."""
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
