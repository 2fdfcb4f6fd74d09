"""From secrets at rest to secrets sealed to one device. What is sealed is MessagePack of a mapping of keys to values."""

import base64
import logging
from typing import Final

import msgspec

from edgewise.control.secrets import SecretBox
from edgewise.control.services import Services
from edgewise.store.contract import Key
from edgewise.trust.sealing import SealingError, seal, secret_context

_LOG: Final = logging.getLogger("edgewise.control.sealing")
_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


class Sealer:
    """The port by which the controllers have secrets sealed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._box = SecretBox(services.keys.at_rest)

    def seal(self, key: Key, device: str) -> bytes:
        """Return the secret stored at `key` sealed to a device's agent, empty when that cannot be done: the device says that the secret
        does not open, and everything else it is told still holds."""
        view = self._services.runner.view
        row, target, agent = view.secrets.get(key), view.devices.get(device), view.agent_of(device)
        if row is None or target is None or agent is None:
            return b""
        try:
            public = base64.urlsafe_b64decode(agent.spec.sealing_key + "=" * (-len(agent.spec.sealing_key) % 4))
            plain = _ENCODER.encode(self._box.open(row.original, row.spec))
            return seal(public, plain, secret_context(target.uid, row.original.namespace, row.original.name))
        except (SealingError, ValueError) as error:
            _LOG.error("secret %s/%s cannot be sealed to %s: %s", row.original.namespace, row.original.name, device, error)
            return b""
