"""The small parts: addresses, workers, log, unit, telemetry, log pieces."""

import threading
import time
from types import SimpleNamespace

import pytest

from edgewise.agent.addresses import Address, parse_address
from edgewise.agent.aggregate import Window
from edgewise.agent.limits import AgentLimits
from edgewise.agent.log import Log
from edgewise.agent.streams import log_pieces
from edgewise.agent.telemetry import frame
from edgewise.agent.tls import days_since_epoch
from edgewise.agent.unit import UnitRefused, unit_text
from edgewise.agent.workers import Pool, Stepper
from edgewise.wire.desired import StreamRequest
from edgewise.wire.report import Series


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("https://example.org", "example.org", 443, "example.org:443"),
        ("https://example.org:7421/", "example.org", 7421, "example.org:7421"),
        ("https://[::1]:7421", "::1", 7421, "[::1]:7421"),
        ("https://[fe80::1]", "fe80::1", 443, "[fe80::1]:443"),
    ],
)
def test_addresses_are_read(text, host, port, authority):
    address, credentials = parse_address(text)
    assert address == Address(host, port)
    assert address.authority == authority
    assert credentials == ""


def test_credentials_of_a_proxy_are_read():
    assert parse_address("http://me:p@ss@proxy:3128", "http", 3128) == (Address("proxy", 3128), "me:p@ss")


@pytest.mark.parametrize(
    "text",
    [
        "http://x",
        "https://",
        "https://x:0",
        "https://x:70000",
        "https://x:y",
        "https://x/path",
        "https://[::1",
        "https://[::1]x",
        "https://ü:1",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        parse_address(text)


@pytest.mark.parametrize(
    ("date", "days"), [((1970, 1, 1), 0), ((2000, 2, 29), 11016), ((2000, 3, 1), 11017), ((2026, 11, 21), 20778), ((2100, 3, 1), 47541)]
)
def test_days_are_counted_as_the_calendar_does(date, days):
    import datetime as dt

    assert days_since_epoch(*date) == days == (dt.date(*date) - dt.date(1970, 1, 1)).days


def test_a_stepper_survives_what_it_steps_into(log, wait_for, monkeypatch):
    monkeypatch.setattr("edgewise.agent.workers._AFTER_A_CRASH_SECONDS", 0.01)
    calls = []

    def step():
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("x")

    stepper = Stepper("test", step, log)
    stepper.start()
    wait_for(lambda: len(calls) == 3)
    time.sleep(0.05)
    assert len(calls) == 3  # None: waits for a wake
    stepper.wake()
    wait_for(lambda: len(calls) == 4)
    stepper.stop()
    stepper.join(60)
    assert not stepper.alive


def test_a_wake_during_a_step_is_not_lost(log, wait_for):
    inside, go, calls = threading.Event(), threading.Event(), []

    def step():
        calls.append(1)
        inside.set()
        go.wait(5)

    stepper = Stepper("test", step, log)
    stepper.start()
    assert inside.wait(5)
    stepper.wake()
    go.set()
    wait_for(lambda: len(calls) == 2)
    stepper.stop()
    stepper.join(60)


def test_a_pool_bounds_its_threads_and_lets_them_go(log, wait_for):
    pool = Pool("pool-test", 3, 0.05, log)
    running, most, go, done = [0], [0], threading.Event(), []
    lock = threading.Lock()

    def task():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(5)
        with lock:
            running[0] -= 1
            done.append(1)

    for _ in range(10):
        pool.submit(task)
    wait_for(lambda: running[0] == 3)
    go.set()
    wait_for(lambda: len(done) == 10)
    assert most[0] == 3
    wait_for(lambda: not any(each.name == "pool-test" for each in threading.enumerate()))
    pool.submit(lambda: 1 / 0)
    pool.submit(lambda: done.append(2))
    wait_for(lambda: done[-1] == 2)
    wait_for(lambda: not any(each.name == "pool-test" for each in threading.enumerate()))


def test_the_log_does_not_repeat_itself(capsys, monkeypatch):
    now = 5.0
    monkeypatch.setattr("edgewise.agent.log.time", SimpleNamespace(monotonic=lambda: now))
    lines = Log(repeat_seconds=60)
    for _ in range(10):
        lines.warning("same", "detail\nand more")
    lines.error("other")
    assert capsys.readouterr().err == "<4>same: detail and more\n<3>other\n"
    now += 60
    lines.warning("same", "x")
    assert capsys.readouterr().err == "<4>same: x (and 9 more)\n"


def test_the_unit_allows_little():
    text = unit_text("/var/lib/edgewise", groups=("video", "render"))
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/edgewise",
        "Restart=always",
        "User=edgewise",
        "CapabilityBoundingSet=",
        "SupplementaryGroups=video render",
    ):
        assert line in text.splitlines()
    assert "SupplementaryGroups" not in unit_text("/var/lib/edgewise")
    assert "{" not in text


@pytest.mark.parametrize(
    ("data", "user"),
    [("relative", "a"), ("/a b", "a"), ("/a\nExecStart=/bin/sh", "a"), ("/a/../b", "a"), ("/a%n", "a"), ("/a", "Root"), ("/a", "a b")],
)
def test_what_could_break_out_of_a_unit_is_refused(data, user):
    with pytest.raises(UnitRefused):
        unit_text(data, user)


def test_a_window_becomes_a_frame_that_tells_what_was_dropped():
    series = Series(name="m", unit="", type="gauge", instance="n/w", revision="r", count=1, sum=1, sum_squares=1, min=1, max=1, last=1)
    whole = frame(Window(start=1.0, end=16.0, monotonic=7.0, series=(series,)), "d", "boot")
    assert (whole.device, whole.boot_id, whole.start, whole.end, whole.monotonic, whole.series) == ("d", "boot", 1.0, 16.0, 7.0, (series,))
    lossy = frame(Window(start=1.0, end=16.0, monotonic=7.0, series=(series,), dropped=9), "d", "boot")
    assert lossy.series[0] == series
    assert (lossy.series[1].name, lossy.series[1].sum) == ("edgewise.metrics.dropped", 9.0)


LOG_LIMITS = AgentLimits(stream_poll_seconds=0.01)


def request(**changes) -> StreamRequest:
    return StreamRequest(id="1", device="d", instance="n/w", **changes)


def test_the_tail_of_a_log_reaches_into_the_file_before(tmp_path):
    (tmp_path / "current.log").write_bytes(b"3\n4\n")
    (tmp_path / "current.log.1").write_bytes(b"0\n1\n2\n")
    assert b"".join(log_pieces(str(tmp_path), request(tail_lines=3), LOG_LIMITS, lambda: False)) == b"2\n3\n4\n"
    assert b"".join(log_pieces(str(tmp_path), request(tail_lines=99), LOG_LIMITS, lambda: False)) == b"0\n1\n2\n3\n4\n"
    assert b"".join(log_pieces(str(tmp_path), request(tail_lines=0), LOG_LIMITS, lambda: False)) == b""


def test_the_tail_is_bounded(tmp_path):
    (tmp_path / "current.log").write_bytes(b"x" * 999 + b"\n" + b"y" * 1999 + b"\n")
    limits = AgentLimits(stream_tail_bytes_max=2000)
    assert b"".join(log_pieces(str(tmp_path), request(), limits, lambda: False)) == b"y" * 1999 + b"\n"


def test_following_a_log_goes_through_a_rotation_and_loses_nothing(tmp_path):
    current = tmp_path / "current.log"
    current.write_bytes(b"1\n")
    stop = []
    pieces = log_pieces(str(tmp_path), request(follow=True), LOG_LIMITS, lambda: bool(stop))

    def until(wanted: bytes) -> bytes:
        got = b""
        while len(got) < len(wanted):
            got += next(pieces)
        return got

    assert until(b"1\n") == b"1\n"
    with current.open("ab") as file:
        file.write(b"2\n")
    assert until(b"2\n") == b"2\n"
    with current.open("ab") as file:
        file.write(b"3\n")
    current.rename(tmp_path / "current.log.1")
    current.write_bytes(b"4\n")
    assert until(b"3\n4\n") == b"3\n4\n"
    stop.append(1)
    assert b"".join(pieces) == b""


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert b"".join(log_pieces(str(tmp_path / "nowhere"), request(), LOG_LIMITS, lambda: False)) == b""


def test_a_log_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret\n")
    (tmp_path / "current.log").symlink_to(tmp_path / "secret")
    assert b"".join(log_pieces(str(tmp_path), request(), LOG_LIMITS, lambda: False)) == b""
