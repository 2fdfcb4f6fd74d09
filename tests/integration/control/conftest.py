"""A whole control plane in the test's event loop, reached over real TLS, and a device that speaks the wire by hand. Lets the
tests in this folder import their helper."""

import base64
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import pytest_asyncio

from edgewise.control.config import ControlConfig, Ready
from edgewise.control.limits import ControlLimits
from edgewise.control.process import ControlPlane
from edgewise.control.services import Services
from edgewise.trust.authority import Issuer
from edgewise.trust.keys import new_device_key, new_sealing_key, signing_request
from edgewise.trust.tokens import read_join_token
from edgewise.wire.desired import DesiredState
from edgewise.wire.enrolment import ErrorAnswer, JoinAnswer, JoinRequest
from edgewise.wire.report import DeviceReport, EventReport, LaneItems, Report, ReportAnswer

sys.path.insert(0, str(Path(__file__).parent))

T = TypeVar("T")
API = "/apis/v1alpha1"


class FakeClock:
    """The machine's clock, moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def wall(self) -> float:
        return time.time() + self.offset

    def monotonic(self) -> float:
        return time.monotonic()


class Device:
    """A device: key, certificate, one connection pool to the gateway."""

    def __init__(self, name: str, address: str, key: str, certificate: str, root: str, folder: Path) -> None:
        self.name = name
        self.key = key
        self.certificate = certificate
        self._address = address
        self._root = root
        self._folder = folder
        self.number = 0
        self.http = self.connect()

    def connect(self, certificate: str | None = None) -> httpx.AsyncClient:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self._root)
        chain = certificate if certificate is not None else self.certificate
        if chain:
            path = self._folder / f"{self.name}-{os.urandom(4).hex()}.pem"
            path.write_text(self.key + chain)
            context.load_cert_chain(path)
        return httpx.AsyncClient(base_url=self._address, verify=context, timeout=110, trust_env=False)

    async def report(self, *items: Any, session: str = "s1", lane: str = "status", http: httpx.AsyncClient | None = None) -> httpx.Response:
        """Send the next items of a lane."""
        body = msgspec.msgpack.encode(self.message(*items, session=session, lane=lane))
        return await (http or self.http).post("/v1/report", content=body)

    def message(self, *items: Any, session: str = "s1", lane: str = "status") -> Report:
        first, self.number = self.number + 1, self.number + len(items)
        return Report(incarnation="i1", session=session, lanes={lane: LaneItems(first=first, items=items)})

    def event(self, message: str = "hello") -> EventReport:
        return EventReport(device=self.name, at=time.time(), type="Normal", reason="Test", message=message)

    def status(self, **fields: Any) -> DeviceReport:
        return DeviceReport(device=self.name, **fields)

    async def desired(self, after: str = "", wait: float = 0, session: str = "", http: httpx.AsyncClient | None = None) -> httpx.Response:
        params = {"after": after, "wait": str(wait), **({"session": session} if session else {})}
        return await (http or self.http).get("/v1/desired", params=params)


class Fleet:
    """A running control plane and ways to use it."""

    def __init__(self, plane: ControlPlane, ready: Ready, clock: FakeClock, folder: Path) -> None:
        self.plane = plane
        self.ready = ready
        self.clock = clock
        self.folder = folder
        self._devices: list[Device] = []
        self._names = 0
        self.gateway = ready.gateway_addresses[-1]
        self.admin = self.api(ready.admin_token)

    @property
    def services(self) -> Services:
        return self.plane.services

    @property
    def issuer(self) -> Issuer:
        return self.services.issuer

    def api(self, token: str | None) -> httpx.AsyncClient:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ready.authority_pem)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.ready.api_address, verify=context, headers=headers, timeout=110, trust_env=False)

    async def token(self, **wanted: Any) -> str:
        answer = await self.admin.post(f"{API}/jointokens", json={"site": "lab", **wanted})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def role(self, role: str) -> httpx.AsyncClient:
        answer = await self.admin.post(f"{API}/accesstokens", json={"name": f"a {role}", "role": role})
        assert answer.status_code == 201, answer.text
        return self.api(answer.json()["token"])

    def stranger(self) -> httpx.AsyncClient:
        """A client of the gateway without a certificate."""
        return self.named("nobody", "", "").http

    def named(self, name: str, key: str, certificate: str) -> Device:
        device = Device(name, self.gateway, key, certificate, self.ready.authority_pem, self.folder)
        self._devices.append(device)
        return device

    def join_request(self, secret: str, name: str, key: str, **fields: Any) -> bytes:
        request = JoinRequest(
            secret=secret,
            device=name,
            signing_request=signing_request(key, name),
            sealing_key=fields.pop("sealing_key", new_sealing_key()[1]),
            **fields,
        )
        return msgspec.msgpack.encode(request)

    def name(self) -> str:
        """A name that no device of this fleet has yet."""
        self._names += 1
        return f"cam-{self._names}"

    async def join(self, **fields: Any) -> Device:
        name = self.name()
        secret, key = read_join_token(await self.token()).secret, new_device_key()
        async with self.stranger() as http:
            answer = await http.post("/v1/join", content=self.join_request(secret, name, key, **fields))
        assert answer.status_code == 200, answer.content
        return self.named(name, key, decoded(answer, JoinAnswer).certificate)

    async def close(self) -> None:
        for device in self._devices:
            await device.http.aclose()
        await self.admin.aclose()
        await self.plane.stop()


def decoded(answer: httpx.Response, wanted: type[T]) -> T:
    assert answer.headers["content-type"] == "application/vnd.edgewise+msgpack"
    return msgspec.msgpack.decode(answer.content, type=wanted)


def reason(answer: httpx.Response) -> str:
    return decoded(answer, ErrorAnswer).reason


@asynccontextmanager
async def started(folder: Path, **settings: Any) -> AsyncIterator[Fleet]:
    clock = settings.pop("clock", None) or FakeClock()
    defaults: dict[str, Any] = {
        "api_port": 0,
        "gateway_port": 0,
        "gateway_host": "127.0.0.1",
        "limits": ControlLimits(shutdown_seconds=1.0),
    }
    plane = ControlPlane(ControlConfig(data=folder / "data", **{**defaults, **settings}), clock)
    ready = await plane.start()
    plane.shown()
    fleet = Fleet(plane, ready, clock, folder)
    try:
        yield fleet
    finally:
        await fleet.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """One control plane for all tests of a module: use new names, leave the clock alone."""
    async with started(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    """Start a control plane with other settings."""
    return lambda **settings: started(tmp_path, **settings)


@pytest.fixture
def wire() -> Any:
    """What tests need of this module: conftest modules cannot be imported under importlib mode."""

    class Wire:
        api = API
        clock = FakeClock
        decode = staticmethod(decoded)
        reason = staticmethod(reason)
        limits = ControlLimits
        state = DesiredState
        answer = ReportAnswer

        @staticmethod
        def b64(data: bytes) -> str:
            return base64.b64encode(data).decode()

        @staticmethod
        async def until(check: Callable[[], Awaitable[Any] | Any], seconds: float = 60.0) -> Any:
            import asyncio
            import inspect

            end = time.monotonic() + seconds
            while True:
                result = check()
                if inspect.isawaitable(result):
                    result = await result
                if result:
                    return result
                assert time.monotonic() < end, "it did not happen in time"
                await asyncio.sleep(0.02)

    return Wire
