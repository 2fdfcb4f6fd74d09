"""The socket at `run/supervisor.sock`: connections, lines, and who is let in. What the verbs mean is in `requests.py`."""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH108

import _socket
import os
import sys

from edgewise.supervisor.files import remove_quietly
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.loop import READ, WRITE, Loop, say
from edgewise.supervisor.wire import VERSION, Invalid, decode_object, encode_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "run/supervisor.sock"


class Refused(Exception):
    """A request that is not carried out. `reason` is one CamelCase word, `number` an errno or 0."""

    def __init__(self, reason: str, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.number = number


class Reply:
    """Where the answer to one request goes, now or later. Nothing happens when the one who asked has gone."""

    __slots__ = ("_id", "connection")

    def __init__(self, connection: "Connection", number: object) -> None:
        self.connection = connection
        self._id = number

    def done(self, fields: "dict[str, object] | None" = None) -> None:
        """Answer that it was done."""
        self.connection.send({"v": VERSION, "id": self._id, "ok": True, **(fields or {})})

    def refuse(self, refused: Refused) -> None:
        """Answer that it was not done."""
        answer: dict[str, object] = {"v": VERSION, "id": self._id, "ok": False, "error": refused.reason, "message": str(refused)}
        self.connection.send({**answer, "errno": refused.number})


class Connection:
    """One client, whose process is `peer`. It may send many requests before it reads an answer."""

    def __init__(self, server: "Server", connection: "_socket.socket", peer: int) -> None:
        self._server = server
        self._socket = connection
        self._received = bytearray()
        self._to_send = bytearray()
        self._open = True
        self._ending = False
        self.subscribed = False
        self.peer = peer
        connection.setblocking(False)  # noqa: FBT003 -- positional only
        server.loop.watch(connection.fileno(), self._ready)

    def send(self, message: "dict[str, object]") -> None:
        """Send one line, as soon as the client takes it. A client that does not read is let go."""
        if not self._open:
            return
        self._to_send += encode_line(message)
        self._flush()
        if len(self._to_send) > self._server.limits.answer_bytes_max:
            self.close()

    def close(self) -> None:
        """End the connection."""
        if self._open:
            self._open = False
            self._server.loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._server.connections.discard(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._open and events & ~WRITE:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._ending:
            self.close()
            return
        self._received += data
        while self._open and not self._ending:
            line, newline, rest = self._received.partition(b"\n")
            if len(line) > self._server.limits.line_bytes_max:
                self._ending = True
                Reply(self, 0).refuse(Refused("TooLong", f"a request has at most {self._server.limits.line_bytes_max:.0f} bytes"))
                self._flush()
                return
            if not newline:
                return
            self._received = rest
            self._handle(bytes(line))

    def _handle(self, line: bytes) -> None:
        reply = Reply(self, 0)
        try:
            message = decode_object(line)
            reply = Reply(self, _number_of(message))
            _check_version(message)
            self._server.handle(message, reply)
        except Invalid as error:
            reply.refuse(Refused("Invalid", str(error)))
        except Refused as refused:
            reply.refuse(refused)

    def _flush(self) -> None:
        try:
            while self._to_send:
                del self._to_send[: self._socket.send(self._to_send)]
        except BlockingIOError:
            self._server.loop.change(self._socket.fileno(), READ | WRITE)
            return
        except OSError:
            self.close()
            return
        if self._ending:
            self.close()
        else:
            self._server.loop.change(self._socket.fileno(), READ)


def _number_of(message: "dict[str, object]") -> int:
    number = message.get("id")
    if isinstance(number, bool) or not isinstance(number, int):
        raise Invalid("id must be a whole number")
    return number


def _check_version(message: "dict[str, object]") -> None:
    if message.get("v") != VERSION:
        raise Refused("UnsupportedVersion", f"this supervisor speaks version {VERSION}")


class Server:
    """Listens and hands requests to `handle(message, reply)`, which raises `Invalid` or `Refused`."""

    def __init__(self, loop: Loop, limits: SupervisorLimits, handle: "Callable[[dict[str, object], Reply], None]") -> None:
        self.loop = loop
        self.limits = limits
        self.handle = handle
        self.connections: set[Connection] = set()
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        if os.path.lexists(PATH):
            os.unlink(PATH)
        # The working folder is the data folder, so the path is short however deep that is.
        mask = os.umask(0o177)
        self._listener.bind(PATH)
        os.umask(mask)
        self._listener.listen(int(limits.connections_max))
        self._listener.setblocking(False)  # noqa: FBT003 -- positional only
        loop.watch(self._listener.fileno(), self._accept)

    def tell(self, event: "dict[str, object]") -> None:
        """Send an event to all who subscribed."""
        for connection in list(self.connections):
            if connection.subscribed:
                connection.send({"v": VERSION, **event})

    def close(self) -> None:
        """Let everybody go and take the socket away."""
        self.loop.unwatch(self._listener.fileno())
        self._listener.close()
        for connection in list(self.connections):
            connection.close()
        remove_quietly(PATH)

    def _accept(self, _events: int) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 -- the C module has no other way to accept
        except OSError:
            return
        connection = _socket.socket(fileno=descriptor)
        peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        process, user = int.from_bytes(peer[:4], sys.byteorder), int.from_bytes(peer[4:8], sys.byteorder)
        if user not in (os.getuid(), 0):
            say(f"user {user} was refused")
            connection.close()
        elif len(self.connections) >= self.limits.connections_max:
            connection.close()
        else:
            self.connections.add(Connection(self, connection, process))
