"""The door: who gets in, who is dropped, and that nobody who is silent keeps the others waiting."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time

import msgspec
import pytest

from edgewise.control.accepting import Door
from edgewise.control.limits import LIMITS
from edgewise.trust.authority import Issuer, create_authority


class Hello(asyncio.Protocol):
    """Says hello to whoever has got in."""

    def __init__(self, made):
        made.append(self)

    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


class Listener(socket.socket):
    """A listening socket on which `accept` fails as told."""

    failures = ()

    def accept(self):
        if self.failures:
            raise self.failures.pop()
        return super().accept()


class Rig:
    def __init__(self, door, listener, root, made):
        self.door, self.listener, self.made = door, listener, made
        self.port = listener.getsockname()[1]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(cadata=root)
        self.plain = []

    def silent(self, count):
        """Connect and say nothing; the kernel takes the connections in, whether or not the event loop runs."""
        sockets = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(count)]
        self.plain += sockets
        return sockets

    async def greeted(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        with contextlib.closing(writer):
            return await reader.read()


@pytest.fixture
def rig(request):
    @contextlib.asynccontextmanager
    async def make(**limits):
        now = time.time()
        authority = create_authority("test", now)
        issuer = Issuer(authority.issuing_key_pem, authority.issuing_cert_pem, authority.root_cert_pem)
        key, chain = issuer.issue_server(("127.0.0.1",), now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        handle = os.memfd_create("server")
        os.write(handle, (key + chain).encode())
        context.load_cert_chain(f"/proc/self/fd/{handle}")
        os.close(handle)
        made = []
        with Listener(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(200)
            door = Door(listener, context, lambda: Hello(made), msgspec.structs.replace(LIMITS, **limits))
            door.open()
            rig = Rig(door, listener, authority.root_cert_pem, made)
            try:
                yield rig
            finally:
                for each in rig.plain:
                    each.close()
                door.close()
                await door.wait_closed()

    return make


async def test_everybody_who_comes_at_once_gets_in(rig):
    async with rig() as door, asyncio.timeout(60):
        assert await asyncio.gather(*(door.greeted() for _ in range(100))) == [b"hello"] * 100


async def test_those_who_say_nothing_keep_nobody_waiting(rig):
    async with rig() as door, asyncio.timeout(60):
        door.silent(100)
        assert await door.greeted() == b"hello"


async def test_those_who_say_nothing_are_dropped(rig):
    async with rig(handshake_seconds=0.2) as door, asyncio.timeout(60):
        (silent,) = door.silent(1)
        assert await asyncio.to_thread(silent.recv, 100) == b""
        while True:  # whoever is quick enough gets in
            with contextlib.suppress(OSError):
                assert await door.greeted() == b"hello"
                break


async def test_nonsense_is_dropped(rig):
    async with rig() as door, asyncio.timeout(60):
        (rude,) = door.silent(1)
        rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while await asyncio.to_thread(rude.recv, 100):
                pass
        assert await door.greeted() == b"hello"


async def test_no_handshake_is_begun_with_those_who_have_gone(rig):
    async with rig() as door, asyncio.timeout(60):
        for gone in door.silent(50):
            gone.close()
        assert await door.greeted() == b"hello"
        assert len(door.made) == 1


async def test_a_closed_door_takes_nobody_in_and_drops_who_waits(rig):
    async with rig() as door, asyncio.timeout(60):
        waiting = door.silent(30)
        while len(door.made) < 30:
            await asyncio.sleep(0.01)
        door.door.close()
        door.door.close()
        await door.door.wait_closed()
        assert [await asyncio.to_thread(each.recv, 1) for each in waiting] == [b""] * 30
        (late,) = door.silent(1)
        await asyncio.sleep(0.05)
        assert len(door.made) == 30
        late.close()


async def test_it_goes_on_when_no_more_files_could_be_opened(rig):
    async with rig() as door, asyncio.timeout(60):
        door.listener.failures = [OSError(errno.EMFILE, "too many open files")] * 2
        assert await door.greeted() == b"hello"
        assert door.listener.failures == []
