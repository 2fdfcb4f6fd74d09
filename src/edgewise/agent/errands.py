"""What the carrier has short-lived processes and the disk do: fetch, open secrets, remove."""

from collections.abc import Callable

from edgewise.agent.config import AgentConfig, TimeFloor
from edgewise.agent.helper import Helper
from edgewise.agent.jobs import FetchJob, Place, Progress, Renewed, RenewJob, Unsealed, UnsealJob
from edgewise.agent.secrets import Secrets
from edgewise.agent.slots import instance_folder
from edgewise.agent.views import release_of
from edgewise.engine import trees
from edgewise.engine.model import State
from edgewise.engine.protocol import Failed, Fetch, Fetched, Remove, Start
from edgewise.ports.files import Files
from edgewise.wire.desired import SealedSecret


class Errands:
    """See `carrier.Helpers`. `state` returns the engine's present state."""

    def __init__(
        self,
        data_folder: str,
        files: Files,
        config: AgentConfig,
        floor: TimeFloor,
        helper: Helper,
        *,
        state: Callable[[], State],
    ) -> None:
        self._data = data_folder
        self._files = files
        self._config = config
        self._floor = floor
        self._helper = helper
        self._state = state
        self.secrets = Secrets(self._unseal)

    def fetch(self, effect: Fetch, progress: Callable[[Progress], None]) -> Fetched | Failed:
        """Fetch, verify and install in a process of its own."""
        job = FetchJob(place=self._place(), artifact=effect.artifact, parameters=effect.parameters)
        try:
            return self._helper.fetch(effect.id, job, progress)
        finally:
            self._helper.forget(effect.id)

    def cancel(self, effect: int) -> None:
        """Give up a fetch."""
        self._helper.cancel(effect)

    def renew(self, *, force: bool) -> Renewed:
        """Renew the certificate if it is time, or now. Raises `HelperFailed`."""
        return self._helper.renew(RenewJob(place=self._place(), force=force))

    def prepare(self, start: Start) -> str:
        """Open the secrets that a start needs; return what is wrong, or an empty text."""
        if not start.launch.secrets:
            return ""
        return self.open_secrets(start.instance, start.launch.revision)

    def open_secrets(self, instance: str, revision: str) -> str:
        """Open the secrets of one revision of an instance; return what is wrong, or an empty text."""
        release = release_of(self._state(), instance, revision)
        if release is None:
            return f"revision {revision} of {instance} is not known here"
        return self.secrets.prepare(instance, release.secrets)

    def remove(self, effect: Remove) -> None:
        """Remove trees and the folders of instances that are gone. Raises `FilesError`."""
        trees.remove(self._files, effect.keep_trees, tuple(map(instance_folder, effect.instances)))

    def stop(self) -> None:
        """End every helper process."""
        self._helper.cancel_all()

    def _unseal(self, namespace: str, secrets: tuple[SealedSecret, ...]) -> Unsealed:
        document = self._state().durable.document
        uid = document.uid if document is not None else ""
        return self._helper.unseal(UnsealJob(place=self._place(), device_uid=uid, namespace=namespace, secrets=secrets))

    def _place(self) -> Place:
        return Place(data=self._data, addresses=self._config.addresses, proxy=self._config.proxy, floor=self._floor.floor)
