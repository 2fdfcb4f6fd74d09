"""A gateway for the agent's tests: real TLS, real sockets, a few lines of HTTP, and faults on request."""

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h11
import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edgewise.agent.http import Client, Endpoint
from edgewise.agent.join import join
from edgewise.agent.tls import client_context
from edgewise.resources.artifact import Command, File, Manifest, Variant
from edgewise.trust.authority import (
    Authority,
    Issuer,
    authority_hash,
    certificate_hash,
    check_renewal,
    create_authority,
    read_chain,
)
from edgewise.trust.keys import new_device_key, signing_request
from edgewise.trust.repository import accept_delegated, add_release, create_repository, delegated_metadata, newest_root
from edgewise.trust.tokens import JoinToken, repository_hash
from edgewise.wire.desired import ArtifactTarget, DesiredState, parse_position
from edgewise.wire.enrolment import ErrorAnswer, JoinAnswer, JoinRequest, RenewAnswer, RenewRequest
from edgewise.wire.report import Report, ReportAnswer


class Request(msgspec.Struct):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: bytes
    connection: int
    at: float


class Reply(msgspec.Struct):
    """`cut`: so many bytes of the body go out, then the connection breaks. `close`: say so and close."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    cut: int | None = None
    close: bool = False
    chunked: bool = False
    delay: float = 0.0


Handler = Callable[[Request], Reply]


def error_reply(status: int, reason: str, **headers: str) -> Reply:
    body = msgspec.msgpack.encode(ErrorAnswer(reason=reason, message=f"because of {reason}"))
    return Reply(status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


class FakeGateway:
    def __init__(
        self,
        issuer: Issuer,
        folder: Path,
        *,
        now: float | None = None,
        hosts: tuple[str, ...] = ("127.0.0.1",),
        lifetime: float = 3600.0,
        port: int = 0,
    ):
        key, chain = issuer.issue_server(hosts, time.time() if now is None else now, lifetime)
        files = folder / f"server-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        files.mkdir()
        (files / "key.pem").write_text(key)
        (files / "chain.pem").write_text(chain)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files / "chain.pem", files / "key.pem")
        self.context.load_verify_locations(cadata=chain.partition("-----END CERTIFICATE-----\n")[2])  # issuing and root
        self.context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.verify_flags |= 0x200000
        self.handler: Handler = lambda _request: Reply(status=404)
        self.requests: list[Request] = []
        self.connections = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = port
        self.start()

    def start(self) -> None:
        self.stopping = False
        self._ending.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        self.stopping = True
        self._ending.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()
        for thread in self._threads:
            thread.join(60)
        self._threads.clear()

    def drop(self) -> None:
        """Break every open connection."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(plain, self.connections), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, plain: socket.socket, number: int) -> None:
        plain.settimeout(60)
        try:
            secured = self.context.wrap_socket(plain, server_side=True)
        except (OSError, ssl.SSLError):
            plain.close()
            return
        with self._lock:
            self._open.add(secured)
        try:
            while self._exchange(secured, number):
                pass
        except (OSError, h11.ProtocolError):
            pass
        finally:
            with self._lock:
                self._open.discard(secured)
            secured.close()

    def _exchange(self, secured: ssl.SSLSocket, number: int) -> bool:
        connection = h11.Connection(h11.SERVER)
        head, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = secured.recv(65536)
                self.bytes_in += len(data)
                if not data:
                    return False
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        request = Request(
            method=head.method.decode(),
            target=head.target.decode(),
            headers={name.decode(): value.decode() for name, value in head.headers},
            body=body,
            peer=secured.getpeercert(binary_form=True) or b"",
            connection=number,
            at=time.monotonic(),
        )
        with self._lock:
            self.requests.append(request)
        reply = self.handler(request)
        if reply.delay:
            self._ending.wait(reply.delay)
        return self._answer(secured, request, reply)

    def _answer(self, secured: ssl.SSLSocket, request: Request, reply: Reply) -> bool:
        lines = [f"HTTP/1.1 {reply.status} X"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if reply.close:
            lines.append("Connection: close")
        if reply.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif reply.status != 204 and not any(name.lower() == "content-length" for name in reply.headers):
            lines.append(f"Content-Length: {len(reply.body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        body = b"" if request.method == "HEAD" else reply.body
        if reply.chunked:
            body = (
                b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 1000]), body[i : i + 1000]) for i in range(0, len(body), 1000)) + b"0\r\n\r\n"
            )
        if reply.cut is not None:
            secured.sendall(head + body[: reply.cut])
            return False
        secured.sendall(head + body)
        self.bytes_out += len(head) + len(body)
        return not reply.close


def serve_blob(request: Request, data: bytes) -> Reply:
    """Answer with Range, as the real one does."""
    wanted = request.headers.get("range", "")
    if not wanted:
        return Reply(body=data)
    start = int(wanted.removeprefix("bytes=").partition("-")[0])
    if start >= len(data):
        return error_reply(416, "RangeNotSatisfiable")
    return Reply(status=206, body=data[start:], headers={"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})


@pytest.fixture(scope="session")
def authority() -> Authority:
    return create_authority("test", time.time())


@pytest.fixture(scope="session")
def issuer(authority: Authority) -> Issuer:
    return Issuer(authority.issuing_key_pem, authority.issuing_cert_pem, authority.root_cert_pem)


@pytest.fixture
def gateway(issuer: Issuer, tmp_path: Path, port_blocks) -> Iterator[FakeGateway]:
    """A gateway that gets its port back when it is started again."""
    ports = port_blocks()
    fake = FakeGateway(issuer, tmp_path, port=ports.free(1)[0])
    yield fake
    fake.stop()
    ports.give_back()


class Device(msgspec.Struct):
    key_path: str
    certificate_path: str
    certificate: str
    root: str


@pytest.fixture
def device(issuer: Issuer, authority: Authority, tmp_path: Path) -> Device:
    key = new_device_key()
    chain = issuer.issue_agent(signing_request(key, "device-1"), "device-1", time.time())
    (tmp_path / "device.key").write_text(key)
    (tmp_path / "device.pem").write_text(chain)
    return Device(str(tmp_path / "device.key"), str(tmp_path / "device.pem"), chain, authority.root_cert_pem)


@pytest.fixture
def client(gateway: FakeGateway, device: Device) -> Iterator[Client]:
    context = client_context(device.root, device.certificate_path, device.key_path)
    client = Client(Endpoint(addresses=(gateway.address,), context=context))
    yield client
    client.close()


@pytest.fixture(scope="session")
def helpers():
    """The names of this file that tests need, since test modules cannot import it."""

    class Helpers:
        pass

    found = Helpers()
    for each in (Reply, Request, FakeGateway, error_reply, serve_blob, authority_hash):
        setattr(found, each.__name__, each)
    return found


class FakeFleet:
    """A whole control plane in memory: joins anybody, serves a signed repository and blobs, keeps reports, hands out desired states."""

    def __init__(self, gateway: FakeGateway, issuer: Issuer) -> None:
        self.gateway, self.issuer = gateway, issuer
        self.blobs: dict[str, bytes] = {}
        self.blob_handler: Callable[[Request, bytes], Reply] = serve_blob
        self.repository_files, self.keys = create_repository(time.time())
        self.reports: list[Report] = []
        self.items: list[object] = []
        self.marks: dict[str, int] = {}
        self.documents: list[DesiredState] = []
        self.streams: dict[str, bytes] = {}
        self.report_refusal: Reply | None = None
        self.changed = threading.Condition()
        self.polls: list[tuple[float, str]] = []
        gateway.handler = self.handle

    def handle(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        if path == "/v1/join":
            return self._join(request)
        if path == "/v1/renew":
            asked = msgspec.msgpack.decode(request.body, type=RenewRequest)
            agent = check_renewal(asked.certificate, asked.signing_request, self.issuer, time.time())
            chain = self.issuer.issue_agent(asked.signing_request, agent, time.time())
            return Reply(body=msgspec.msgpack.encode(RenewAnswer(certificate=chain, authority=self.issuer.authority_pem)))
        if not request.peer:
            return error_reply(401, "NoCertificate")
        if path == "/v1/report":
            return self._report(request)
        if path == "/v1/desired":
            return self._desired(query)
        if path.startswith("/v1/repository/"):
            data = self.repository_files.get(path.rpartition("/")[2])
            return error_reply(404, "NotFound") if data is None else Reply(body=data)
        if path.startswith("/v1/blobs/"):
            data = self.blobs.get(path.rpartition("/")[2])
            return error_reply(404, "NotFound") if data is None else self.blob_handler(request, data)
        if path.startswith("/v1/streams/"):
            self.streams[path.rpartition("/")[2]] = request.body
            return Reply(status=204)
        return error_reply(404, "NotFound")

    def _join(self, request: Request) -> Reply:
        asked = msgspec.msgpack.decode(request.body, type=JoinRequest)
        answer = JoinAnswer(
            agent=asked.device,
            certificate=self.issuer.issue_agent(asked.signing_request, asked.device, time.time()),
            authority=self.issuer.authority_pem,
            repository_root=newest_root(self.repository_files),
        )
        return Reply(body=msgspec.msgpack.encode(answer))

    def _report(self, request: Request) -> Reply:
        if self.report_refusal is not None:
            return self.report_refusal
        report = msgspec.msgpack.decode(request.body, type=Report)
        with self.changed:
            self.reports.append(report)
            for lane, run in report.lanes.items():
                mark = self.marks.get(lane, 0)
                self.items += [item for number, item in enumerate(run.items, run.first) if number > mark]
                self.marks[lane] = max(mark, run.first + len(run.items) - 1)
            self.changed.notify_all()
        return Reply(body=msgspec.msgpack.encode(ReportAnswer(marks={lane: self.marks[lane] for lane in report.lanes}, time=time.time())))

    def _desired(self, query: str) -> Reply:
        fields = dict(part.split("=") for part in query.split("&"))
        after, end = parse_position(fields["after"]), time.monotonic() + min(float(fields["wait"]), 20)
        with self.changed:
            self.polls.append((time.monotonic(), fields["after"]))
            while True:
                newer = [each for each in self.documents if each.position > after or each.streams]
                if newer:
                    self.documents = [each for each in self.documents if not each.streams]
                    return Reply(body=msgspec.msgpack.encode(newer[-1]))
                left = end - time.monotonic()
                if left <= 0 or self.gateway.stopping:
                    return Reply(status=204)
                self.changed.wait(min(left, 0.2))

    def want(self, state: DesiredState) -> None:
        with self.changed:
            self.documents.append(state)
            self.changed.notify_all()

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def release(self, manifest: Manifest, *, now: float | None = None) -> ArtifactTarget:
        """Sign and publish; the files' bytes must be there as blobs."""
        data = msgspec.json.encode(manifest)
        digest = self.add_blob(data)
        target = f"releases/{manifest.namespace}/{manifest.artifact}/{manifest.version}.json"
        now = time.time() if now is None else now
        metadata = add_release(delegated_metadata(self.repository_files), target, digest, len(data), self.keys.releases[0], now)
        self.repository_files |= accept_delegated(self.repository_files, "releases", metadata, self.keys.online, now)
        variant = manifest.variants[0]
        return ArtifactTarget(
            target=target,
            digest=digest,
            length=len(data),
            type=manifest.type,
            variant=variant.name,
            size=sum(file.size for file in variant.files),
        )

    def bundle(self, files: dict[str, bytes], argv: tuple[str, ...] = ("${python}", "${bundle}/main.py"), **changes) -> Manifest:
        listed = tuple(File(path=path, digest=self.add_blob(data), size=len(data)) for path, data in files.items())
        variant = Variant(name="plain", files=listed, command=Command(argv=argv), **changes.pop("variant", {}))
        return Manifest(
            **{"type": "bundle", "namespace": "line-3", "artifact": "camera", "version": "1", "variants": (variant,), **changes}
        )

    def join(self, data: Path, device: str = "cam-1", **options) -> None:
        root = repository_hash(newest_root(self.repository_files))
        token = JoinToken((self.gateway.address,), certificate_hash(self.root_der()), root, "s" * 43)
        join(token, str(data), device=device, **options)

    def root_der(self) -> bytes:
        return read_chain(self.issuer.authority_pem)[-1].public_bytes(Encoding.DER)


@pytest.fixture
def fleet(gateway: FakeGateway, issuer: Issuer) -> FakeFleet:
    return FakeFleet(gateway, issuer)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    return wait
