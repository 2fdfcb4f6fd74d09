"""A CONNECT proxy on loopback that counts bytes: what a device behind it costs on the wire."""

import asyncio
import contextlib
import time

_CHUNK = 65536


class CountingProxy:
    """Relays what goes through, and counts it in both directions: TLS and HTTP, without the headers of TCP and IP."""

    def __init__(self) -> None:
        self.address = ""
        self._bytes = 0
        self._since = 0.0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def restart_count(self) -> None:
        """Count from now on."""
        self._bytes, self._since = 0, time.monotonic()

    def counted(self) -> tuple[int, float]:
        """Return bytes and seconds since the count was started."""
        return self._bytes, time.monotonic() - self._since

    def close(self) -> None:
        """Listen no more; what is open ends with the processes."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            head = await near.readuntil(b"\r\n\r\n")
            host, _, port = head.split(b" ", 2)[1].decode().rpartition(":")
            far, far_out = await asyncio.open_connection(host, int(port))
            near_out.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(self._relay(near, far_out), self._relay(far, near_out))
        near_out.close()

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                self._bytes += len(data)
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.close()
