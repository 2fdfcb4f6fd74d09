"""Secrets, opened by the short-lived process when an instance that needs them starts, and kept in memory only."""

import threading
from collections.abc import Callable, Mapping

from edgewise.agent.helper import HelperFailed
from edgewise.agent.jobs import Unsealed
from edgewise.wire.desired import SealedSecret


class Secrets:
    """Opened secrets by instance and name. `unseal(namespace, secrets)` runs the helper process and raises `HelperFailed`."""

    def __init__(self, unseal: Callable[[str, tuple[SealedSecret, ...]], Unsealed]) -> None:
        self._unseal = unseal
        self._lock = threading.Lock()
        self._opened: dict[tuple[str, str], tuple[bytes, dict[str, str]]] = {}

    def prepare(self, instance: str, secrets: tuple[SealedSecret, ...]) -> str:
        """Open those of `secrets` that are not open yet. Returns what is wrong with the others, or an empty text."""
        with self._lock:
            missing = tuple(each for each in secrets if self._opened.get((instance, each.name), (b"", {}))[0] != each.sealed)
        if not missing:
            return ""
        try:
            unsealed = self._unseal(instance.partition("/")[0], missing)
        except HelperFailed as error:
            return str(error)
        with self._lock:
            for each in missing:
                if each.name in unsealed.secrets:
                    self._opened[instance, each.name] = (each.sealed, unsealed.secrets[each.name])
        return "; ".join(f"secret {name}: {why}" for name, why in sorted(unsealed.failed.items()))

    def get(self, instance: str, name: str) -> Mapping[str, str] | None:
        """Return an opened secret, or None."""
        with self._lock:
            found = self._opened.get((instance, name))
        return found[1] if found is not None else None

    def keep(self, instances: Mapping[str, object]) -> None:
        """Forget the secrets of all other instances."""
        with self._lock:
            self._opened = {key: value for key, value in self._opened.items() if key[0] in instances}
