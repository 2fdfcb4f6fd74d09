"""The process itself: first start, signals, kill -9, one process per folder, ports in use, tokens shown once."""

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from edgewise.control.config import ControlConfig
from edgewise.control.data import DataError
from edgewise.control.process import ControlPlane, ListenError
from edgewise.trust.keys import new_device_key, new_sealing_key, signing_request
from edgewise.trust.tokens import read_join_token
from edgewise.wire.enrolment import JoinAnswer, JoinRequest
from edgewise.wire.report import EventReport, LaneItems, Report

API = "/apis/v1alpha1"

PROGRAM = textwrap.dedent(
    """
    import sys, msgspec, logging
    from pathlib import Path
    from edgewise.control.limits import LIMITS
    from edgewise.control.process import ControlConfig, run
    logging.basicConfig(level=logging.INFO)
    def ready(ready):
        print(msgspec.json.encode({"api": ready.api_address, "gateway": ready.gateway_addresses[0],
            "token": ready.admin_token, "authority": ready.authority_pem}).decode(), flush=True)
    limits = msgspec.structs.replace(LIMITS, shutdown_seconds=600)  # so that a test notices what is waited for
    run(ControlConfig(data=Path(sys.argv[1]), api_port=0, gateway_port=0, gateway_host="127.0.0.1", limits=limits), ready)
    """
)


class Process:
    def __init__(self, data: Path) -> None:
        with (data.parent / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(data)], stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        assert line, (data.parent / "log").read_text()
        self.told = msgspec.json.decode(line)

    def client(self, path: str, token: str | None = None, certificate: Path | None = None) -> httpx.Client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.told["authority"])
        if certificate:
            context.load_cert_chain(certificate)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.told[path], verify=context, headers=headers, timeout=60, trust_env=False)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()
        return code


@pytest.fixture
def run(tmp_path: Path):
    started: list[Process] = []

    def start(data: Path = tmp_path / "data") -> Process:
        started.append(Process(data))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


def test_nothing_acknowledged_is_lost_by_kill_9(run, tmp_path):
    first = run()
    token = first.told["token"]
    with first.client("api", token) as api:
        secret = read_join_token(api.post(f"{API}/jointokens", json={"site": "lab"}).json()["token"]).secret
        key = new_device_key()
        request = JoinRequest(
            secret=secret, device="cam-1", signing_request=signing_request(key, "cam-1"), sealing_key=new_sealing_key()[1]
        )
        with first.client("gateway") as gateway:
            joined = msgspec.msgpack.decode(gateway.post("/v1/join", content=msgspec.msgpack.encode(request)).content, type=JoinAnswer)
        certificate = tmp_path / "cam-1.pem"
        certificate.write_text(key + joined.certificate)
        kept = 0
        with first.client("gateway", certificate=certificate) as gateway:
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                event = EventReport(device="cam-1", at=time.time(), type="Normal", reason="Count", message=str(kept + 1))
                report = Report(incarnation="i", session="s", lanes={"events": LaneItems(first=kept + 1, items=(event,))})
                assert gateway.post("/v1/report", content=msgspec.msgpack.encode(report)).status_code == 200
                kept += 1
                api.put(f"{API}/sites/s{kept % 50}", json={"kind": "Site", "metadata": {"name": f"s{kept % 50}"}})
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = run()
    assert second.told["token"] is None
    assert second.told["authority"] == first.told["authority"]
    with second.client("api", token) as api:
        events = []
        while True:
            after = events[-1]["number"] if events else 1
            page = api.get(f"{API}/events", params={"source": "cam-1", "after": after, "limit": 1000}).json()["items"]
            if not page:
                break
            events += page
        assert [each["message"] for each in events] == [str(i + 1) for i in range(kept)]
        assert api.get(f"{API}/devices/cam-1").status_code == 200
    with second.client("gateway", certificate=certificate) as gateway:
        event = EventReport(device="cam-1", at=time.time(), type="Normal", reason="Count", message="again")
        report = Report(incarnation="i", session="s", lanes={"events": LaneItems(first=kept, items=(event,))})
        assert gateway.post("/v1/report", content=msgspec.msgpack.encode(report)).status_code == 200
    assert second.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_while_a_watch_is_open(run, number):
    process = run()
    with process.client("api", process.told["token"]) as api, api.stream("GET", f"{API}/sites", params={"watch": "true"}) as watch:
        assert watch.status_code == 200
        assert process.end(number) == 0
        assert b"ERROR" not in b"".join(watch.iter_bytes())


async def plane(folder: Path, **settings) -> ControlPlane:
    defaults = {"api_port": 0, "gateway_port": 0, "gateway_host": "127.0.0.1"}
    return ControlPlane(ControlConfig(data=folder, **{**defaults, **settings}))


async def test_a_folder_has_one_control_plane(tmp_path):
    first, second = await plane(tmp_path), await plane(tmp_path)
    await first.start()
    try:
        with pytest.raises(DataError, match="another control plane is running"):
            await second.start()
    finally:
        await first.stop()
    third = await plane(tmp_path)
    await third.start()
    await third.stop()


async def test_a_port_in_use_is_said(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        control = await plane(tmp_path, api_port=port)
        with pytest.raises(ListenError, match=f"port {port}"):
            await control.start()


async def test_a_first_token_that_was_not_shown_is_replaced(tmp_path):
    tokens = []
    for shown in (False, False, True, True):
        control = await plane(tmp_path)
        ready = await control.start()
        tokens.append(ready.admin_token)
        if shown:
            control.shown()
        rows = control.services.runner.view.access_tokens
        assert len(rows) == 1, "an older first token still counts"
        await control.stop()
    assert all(tokens[:3])
    assert len(set(tokens)) == 4
    assert tokens[3] is None


async def test_a_new_admin_token_is_made_when_asked_for(tmp_path):
    control = await plane(tmp_path)
    await control.start()
    control.shown()
    await control.stop()
    control = await plane(tmp_path, new_admin_token=True)
    ready = await control.start()
    assert ready.admin_token
    assert len(control.services.runner.view.access_tokens) == 2
    await control.stop()


async def test_a_restored_folder_begins_a_new_epoch(tmp_path):
    epochs = []
    for restored in (False, False, True):
        control = await plane(tmp_path, restored=restored)
        await control.start()
        epochs.append(control.services.store.epoch)
        timestamp = msgspec.json.decode(control.services.repository.get("timestamp.json"))["signed"]
        await control.stop()
    assert epochs[0] == epochs[1] < epochs[2]
    assert timestamp["version"] > 100_000
    assert timestamp["meta"]["snapshot.json"]["version"] > 100_000


async def test_it_outlives_a_document_that_cannot_be_read(tmp_path):
    from edgewise.store.contract import Key, Put, Transaction

    control = await plane(tmp_path)
    await control.start()
    try:
        store = control.services.store
        bad = Put(key=Key("Workload", "x", "bad"), spec=b"\xc1 damaged", uid="u")
        await store.write(Transaction(now=time.time(), writes=(bad,)))
        good = Put(key=Key("Site", "", "good"), spec=msgspec.msgpack.encode({}), uid="v")
        await store.write(Transaction(now=time.time(), writes=(good,)))
        async with asyncio.timeout(60):
            while "good" not in control.services.runner.view.sites:
                await asyncio.sleep(0.02)
            while not [row for row in await store.recent_events() if row.reason == "Unreadable"]:
                await asyncio.sleep(0.02)
    finally:
        await control.stop()
    again = await plane(tmp_path)
    await again.start()
    await again.stop()
