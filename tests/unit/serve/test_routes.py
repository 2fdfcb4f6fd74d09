"""Paths, counters, arguments."""

import re

import pytest

from edgewise.serve import __main__ as program
from edgewise.serve.answers import Answer
from edgewise.serve.counters import Counters
from edgewise.serve.routes import find
from edgewise.serve.worker import Spent


@pytest.mark.parametrize(
    ("method", "path", "place"),
    [
        ("GET", "/v2", "server"),
        ("GET", "/v2/", "server"),
        ("GET", "/v2/health/live", "live"),
        ("GET", "/v2/health/ready", "ready"),
        ("GET", "/v2/models/double", "model"),
        ("GET", "/v2/models/double/versions/7", "model"),
        ("GET", "/v2/models/double/ready", "model-ready"),
        ("GET", "/v2/models/double/versions/double-abc/ready", "model-ready"),
        ("POST", "/v2/models/double/infer", "infer"),
        ("POST", "/v2/models/double/versions/7/infer", "infer"),
        ("GET", "/metrics", "metrics"),
        ("GET", "/v2/models/stats", "stats"),
        ("GET", "/v2/models/double/stats", "stats"),
        ("GET", "/v2/models/double/versions/7/stats", "stats"),
        ("GET", "/v2/models/double/config", "config"),
        ("POST", "/v2/repository/index", "index"),
        ("POST", "/v2/repository/models/double/load", "load"),
        ("POST", "/v2/repository/models/any/unload", "load"),
    ],
)
def test_both_sockets_answer_the_protocol(identity, method, path, place):
    assert find(method, path, identity, control=False) == place
    assert find(method, path, identity, control=True) == place


@pytest.mark.parametrize(
    ("method", "path", "place"), [("GET", "/ready", "control-ready"), ("POST", "/activate", "activate"), ("POST", "/drain", "drain")]
)
def test_only_the_control_socket_takes_orders(identity, method, path, place):
    assert find(method, path, identity, control=True) == place
    answer = find(method, path, identity, control=False)
    assert isinstance(answer, Answer)
    assert answer.status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v3", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/double/versions/8/infer", 404),
        ("POST", "/v2/models/double/versions//infer", 404),
        ("GET", "/v2/models/double/infer", 405),
        ("DELETE", "/v2/models/double", 405),
        ("POST", "/metrics", 405),
        ("GET", "/v2/health/live\n", 404),
        ("GET", "/v2/../metrics", 404),
    ],
)
def test_everything_else_is_refused(identity, method, path, status):
    answer = find(method, path, identity, control=False)
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert bool(answer.allow) == (status == 405)


def test_counters_as_prometheus_text(identity):
    counters = Counters()
    counters.answered(200)
    counters.answered(200)
    counters.answered(400)
    counters.inferred(0.003)
    counters.inferred(9.0)
    counters.spent(200, Spent(queue=0.001, run=0.002, rows=3))
    counters.spent(422, Spent(prepare=0.001))
    text = counters.text(identity)
    assert 'edgewise_serve_answers_total{code="200"} 2\n' in text
    assert 'edgewise_serve_info{instance="line-3/double",revision="double-abc",version="7"} 1\n' in text
    buckets = [int(each) for each in re.findall(r'_bucket\{le="[^"]+"\} (\d+)', text)]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 2
    assert buckets[-2] == 1
    assert int(re.search(r"process_resident_memory_bytes (\d+)", text)[1]) > 1_000_000


GOOD = ["--model", "/tree", "--listen-fd", "3", "--control", "/c", "--instance", "a/b", "--revision", "b-1"]


def test_arguments_are_read():
    assert program.read_arguments([*GOOD, "--threads", "2"]) == program.Arguments("/tree", 3, "/c", "a/b", "b-1", 2, "")
    assert program.read_arguments([*GOOD, "--runtime", "openvino"]).runtime == "openvino"
    assert 1 <= program.read_arguments(GOOD).threads <= 4


@pytest.mark.parametrize(
    "argv",
    [
        [],
        GOOD[:-2],
        [*GOOD, "--threads"],
        [*GOOD, "--threads", "0"],
        [*GOOD, "--threads", "65"],
        [*GOOD, "--threads", "two"],
        [*GOOD[:3], "-1", *GOOD[4:]],
        [*GOOD[:-1], "bad\r\nheader: x"],
        [*GOOD[:-1], 'quo"te'],
        [*GOOD, "--unknown", "x"],
    ],
)
def test_wrong_arguments_end_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        program.read_arguments(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err
