"""The listening socket of each instance, kept across slots and restarts.

An instance gets a port on 127.0.0.1 once. It is written down, so that it is the same after a reboot if it is still free; it is bound as
soon as this process starts, so that nobody else takes it while the instance is still on its way (clients know the address). The socket
belongs to this process and is inherited by each slot's process: while one server is replaced by another, or is started again after a crash,
connections wait in the kernel's queue instead of being refused.
"""

import _socket
import errno

from edgewise.supervisor.files import read_object, replace_object
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.loop import say

FILE = "supervisor/ports.json"
HOST = "127.0.0.1"


class Listeners:
    """The listening sockets by the instance's folder name."""

    def __init__(self, limits: SupervisorLimits) -> None:
        self._limits = limits
        self._sockets: dict[str, _socket.socket] = {}
        self._ports: dict[str, int] = {}
        for name, port in read_object(FILE).items():
            if isinstance(port, int) and 0 < port < 65536:
                self._ports[name] = port
        for name, port in self._ports.items():
            self._hold(name, port)

    def open(self, folder: str) -> "tuple[int, str]":
        """Return descriptor and address (`http://127.0.0.1:PORT`) of an instance's socket, made when it is not there. Raises `OSError`."""
        listener = self._sockets.get(folder)
        if listener is None:
            listener = self._sockets[folder] = self._listen(folder)
        return listener.fileno(), f"http://{HOST}:{listener.getsockname()[1]}"

    def forget(self, folder: str) -> None:
        """Close an instance's socket and give its port back."""
        listener = self._sockets.pop(folder, None)
        if listener is not None:
            listener.close()
        if self._ports.pop(folder, None) is not None:
            self._keep()

    def _hold(self, folder: str, port: int) -> None:
        try:
            listener = self._bind(port)
        except OSError as error:
            say(f"port {port} of {folder} cannot be bound: {error}")
            return
        if listener is None:
            say(f"port {port} of {folder} was taken by somebody else; it gets another one if that is still so when it starts")
        else:
            self._sockets[folder] = listener

    def _listen(self, folder: str) -> "_socket.socket":
        count = int(self._limits.port_count)
        # The same name begins at the same port on every device, so that ports differ as little as can be.
        start = int.from_bytes(folder.encode()[-24:], "big") % 7919 % count
        candidates = [int(self._limits.port_first) + (start + step) % count for step in range(min(count, 200))]
        taken = set(self._ports.values())
        for port in (self._ports.get(folder, 0), *(candidate for candidate in candidates if candidate not in taken), -1):
            if port == 0:
                continue
            listener = self._bind(max(port, 0))
            if listener is not None:
                self._remember(folder, listener.getsockname()[1])
                return listener
        raise OSError(errno.EADDRINUSE, "no port is free")

    def _bind(self, port: int) -> "_socket.socket | None":
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            listener.bind((HOST, port))
            listener.listen(int(self._limits.listen_backlog))
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        return listener

    def _remember(self, folder: str, port: int) -> None:
        if self._ports.get(folder) != port:
            self._ports[folder] = port
            self._keep()

    def _keep(self) -> None:
        try:
            replace_object(FILE, dict(self._ports))
        except OSError as error:
            say(f"the ports could not be written down: {error}")
