"""What an idle device costs on the wire: a real agent behind a proxy that counts, its polls shortened, scaled to the polls of an hour.

Bytes are those of TLS and of the IPv4 and TCP headers of every segment, pure acknowledgements too; frames of the link below are not in it.
Polls are scaled by their number, whatever else the agent sent meanwhile by time.
"""

import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._device import control_plane, device, join
from benchmarks.row import Row
from edgewise.agent.limits import LIMITS
from edgewise.control.limits import LIMITS as CONTROL_LIMITS

_POLLS = 6
_WAIT_SECONDS = 5.0
_QUIET_SECONDS = 2.5
"""After so long without a byte, an exchange is over: longer than a busy machine pauses within one, shorter than a poll."""
_SETTLE_SECONDS_MAX = 90.0
_BYTES_PER_HOUR_MAX = 20_000
_SEGMENT_BYTES = 20 + 20 + 12
"""IPv4, TCP, and TCP's time stamps."""
_TCP_INFO_SEGMENTS = 136
"""Where `tcpi_segs_out` and `tcpi_segs_in` are (linux/tcp.h)."""
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Tunnel:
    """One connection through the proxy, and what went through it."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._near, self._far = near, far
        self._lock = threading.Lock()
        self._payload = 0
        self._segments_before = self._segments_last = _segments(near)
        self._pumps = [threading.Thread(target=self._pump, args=pair, daemon=True) for pair in ((near, far), (far, near))]
        for pump in self._pumps:
            pump.start()

    @property
    def is_open(self) -> bool:
        return any(pump.is_alive() for pump in self._pumps)

    @property
    def bytes(self) -> int:
        """Bytes so far on the device's side, headers included, without the request to the proxy."""
        with contextlib.suppress(OSError):
            self._segments_last = _segments(self._near)
        return self._payload + (self._segments_last - self._segments_before) * _SEGMENT_BYTES

    def cut(self) -> None:
        """End it from the middle, as a network would."""
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                with self._lock:
                    self._payload += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class CountingProxy:
    """A CONNECT proxy on loopback."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.tunnels: list[Tunnel] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bytes(self) -> int:
        """Bytes so far, of all connections."""
        return sum(each.bytes for each in self.tunnels)

    def until_quiet(self) -> int:
        """Wait until nothing has passed for a moment; return `bytes`."""
        seen, since = self.bytes, time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            time.sleep(0.05)
            if self.bytes != seen:
                seen, since = self.bytes, time.monotonic()
        return seen

    def until_next(self) -> int:
        """Wait for the next exchange to begin and to be over; return `bytes`."""
        before, end = self.until_quiet(), time.monotonic() + _SETTLE_SECONDS_MAX
        while self.bytes == before:
            _hurry(end, "nothing was sent any more")
            time.sleep(0.05)
        return self.until_quiet()

    def close(self) -> None:
        self._listener.close()
        for each in self.tunnels:
            each.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += near.recv(4096)
                host, _, port = head.split()[1].decode().rpartition(":")
                far = socket.create_connection((host, int(port)))
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                near.sendall(_ESTABLISHED)
                self.tunnels.append(Tunnel(near, far))


def _segments(near: socket.socket) -> int:
    """Return the TCP segments of a connection so far, both ways."""
    return sum(struct.unpack_from("=II", near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), _TCP_INFO_SEGMENTS))


def _hurry(end: float, problem: str) -> None:
    if time.monotonic() > end:
        raise RuntimeError(problem)


def measure() -> Iterator[Row]:
    """Yield the rows."""
    proxy = CountingProxy()
    with contextlib.closing(proxy), tempfile.TemporaryDirectory(prefix="edgewise-bench-") as folder, control_plane(Path(folder)) as place:
        data = join(place, "idle-1", "--proxy", proxy.url, "--poll-wait", f"{_WAIT_SECONDS:g}s")
        joined = proxy.until_quiet()
        with device(place, data):
            _settle(proxy)
            polling = next(each for each in proxy.tunnels if each.is_open)
            proxy.until_next()
            polled, others, began = polling.bytes, proxy.bytes - polling.bytes, time.monotonic()
            for _ in range(_POLLS):
                proxy.until_next()
            polled, others = polling.bytes - polled, proxy.bytes - polling.bytes - others
            seconds = time.monotonic() - began
            before = len(proxy.tunnels)
            polling.cut()
            reconnected = _reconnected(proxy, before) - polled // _POLLS
    polls = 3600 / LIMITS.poll_wait_seconds
    probes = polls * int(LIMITS.poll_wait_seconds // min(LIMITS.keepalive_idle_seconds, CONTROL_LIMITS.keepalive_idle_seconds))
    value = polls * polled / _POLLS + probes * 2 * _SEGMENT_BYTES + others / seconds * 3600
    note = f"measured over {_POLLS} polls that waited {_WAIT_SECONDS:g} s, {polled / _POLLS:.0f} bytes each and {others} bytes beside them,"
    note += f" scaled to {polls:g} polls an hour that wait {LIMITS.poll_wait_seconds:g} s,"
    note += f" with {probes:g} keep-alive probes at most and their answers"
    yield Row(
        name="idle device on the wire, telemetry off",
        unit="bytes/h",
        value=value,
        target=f"at most {_BYTES_PER_HOUR_MAX:,}",
        met=value <= _BYTES_PER_HOUR_MAX,
        note=note,
    )
    told = "for information"
    note = "two connections: one to look at the authority, one to trust it; the certificate and the repository's root come back"
    yield Row(name="join, on the wire", unit="bytes", value=joined, target=told, met=None, note=note)
    note = "a whole TLS 1.3 handshake with both certificates, and the first poll until it is open"
    yield Row(name="reconnect, on the wire", unit="bytes", value=reconnected, target=told, met=None, note=note)


def _settle(proxy: CountingProxy) -> None:
    """Wait until what the start had to report is reported and its connection closed: only the poll is left."""
    end = time.monotonic() + _SETTLE_SECONDS_MAX
    while sum(each.is_open for each in proxy.tunnels) != 1:
        _hurry(end, "the agent does not become idle")
        time.sleep(0.2)


def _reconnected(proxy: CountingProxy, before: int) -> int:
    """Wait for the next connection; return what it costs until its second poll is open."""
    end = time.monotonic() + _SETTLE_SECONDS_MAX
    while len(proxy.tunnels) == before:
        _hurry(end, "the agent does not come back")
        time.sleep(0.05)
    proxy.until_next()
    return proxy.tunnels[before].bytes


if __name__ == "__main__":
    for row in measure():
        print(f"{row.name}: {row.value:.0f} {row.unit} ({row.target}) {row.note}")
