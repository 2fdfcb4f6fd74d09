"""What an idle device costs on the wire: real polls through a relay that counts bytes, scaled to the polls of an hour."""

import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._device import control_plane, join
from benchmarks.row import Row
from edgewise.agent.config import read_config
from edgewise.agent.gateway import Gateway
from edgewise.agent.http import Client
from edgewise.agent.jobs import Place
from edgewise.agent.limits import LIMITS
from edgewise.agent.place import connect
from edgewise.engine.identity import read_identity
from edgewise.ports.disk import DiskFiles
from edgewise.wire.desired import Position

_POLLS = 10
_WAIT_SECONDS = 1.0
_BYTES_PER_HOUR_MAX = 20_000
_SEGMENT_BYTES = 20 + 20 + 12
"""IPv4, TCP, and TCP's time stamps."""
_TCP_INFO_SEGMENTS = 136
"""Where `tcpi_segs_out` and `tcpi_segs_in` are (linux/tcp.h)."""


class Relay:
    """Passes one connection at a time on and counts what goes through."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes = 0
        self.connections = 0
        self._near: socket.socket | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def segments(self) -> int:
        """TCP segments of the open connection so far, both ways."""
        assert self._near is not None
        info = self._near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        return sum(struct.unpack_from("=II", info, _TCP_INFO_SEGMENTS))

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                far = socket.create_connection(self._target)
                self.connections += 1
                self._near = near
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.bytes += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def measure() -> Iterator[Row]:
    """Yield the row."""
    with tempfile.TemporaryDirectory(prefix="edgewise-bench-") as folder, control_plane(Path(folder)) as place:
        data = join(place, "idle-1")
        host, _, port = place.gateway.removeprefix("https://").rpartition(":")
        relay = Relay((host, int(port)))
        files = DiskFiles(str(data))
        identity = read_identity(files)
        assert identity is not None
        client: Client = connect(Place(data=str(data), addresses=(relay.address,)), identity)
        gateway = Gateway(client)
        state = gateway.desired(Position(0, 0), _WAIT_SECONDS)
        position = state.position if state is not None else Position(0, 0)
        handshake = relay.bytes
        gateway.desired(position, _WAIT_SECONDS)
        time.sleep(0.2)
        before, segments = relay.bytes, relay.segments()
        for _ in range(_POLLS):
            gateway.desired(position, _WAIT_SECONDS)
        time.sleep(0.2)
        per_poll = (relay.bytes - before) / _POLLS
        packets = (relay.segments() - segments) / _POLLS
        client.close()
        relay.close()
        assert read_config(files).device == "idle-1"
    polls = 3600 / LIMITS.poll_wait_seconds
    keepalives = 3600 / LIMITS.poll_wait_seconds * 2  # one probe and its answer in the middle of each poll
    value = polls * (per_poll + packets * _SEGMENT_BYTES) + keepalives * _SEGMENT_BYTES
    note = f"{per_poll:.0f} bytes of TLS and {packets:.1f} segments a poll, {polls:.0f} polls an hour, keep-alive probes included; "
    note += f"a new connection costs {handshake} bytes once"
    yield Row(
        name="idle device on the wire, telemetry off",
        unit="bytes/h",
        value=value,
        target=f"at most {_BYTES_PER_HOUR_MAX:,}",
        met=value <= _BYTES_PER_HOUR_MAX,
        note=note,
    )


if __name__ == "__main__":
    for row in measure():
        print(f"{row.name}: {row.value:.0f} {row.unit} ({row.target}: {'met' if row.met else 'NOT met'}) {row.note}")
