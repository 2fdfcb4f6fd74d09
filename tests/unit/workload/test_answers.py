"""Who may ask what, and what it does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.agent.aggregate import AggregateLimits, Aggregator
from edgewise.agent.workload_answers import REVISIONS_REMEMBERED, Answers, ApiCalls, ApiRefused, InstanceView, Request


class Clock:
    now = 100.0

    def wall(self):
        return 1e9 + self.now

    def monotonic(self):
        return self.now


class Bench:
    def __init__(self, **limits):
        self.beats = []
        self.aggregator = Aggregator(AggregateLimits(**limits))
        self.calls = ApiCalls(self.beats.append, lambda instance, name: {"password": f"of {instance} {name}"} if name != "sealed" else None)
        self.answers = Answers("device-1", self.calls, self.aggregator, Clock())
        self.publish()

    def publish(self, **changes):
        camera = InstanceView(
            name="shop/camera", revision="c1", parameters={"rate": 10}, config={"mode": "fast"}, secrets=("rtsp", "sealed")
        )
        eye = InstanceView(name="shop/eye", revision="e1", address="http://127.0.0.1:20001", ready=True)
        other = InstanceView(name="bank/safe", revision="s1", address="http://127.0.0.1:20002", ready=True, secrets=("code",))
        views = {view.name: view for view in (camera, eye, other)} | changes.pop("views", {})
        self.answers.publish(views)

    def ask(self, method, path, body=b"", instance="shop/camera", revision=""):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.answers.answer(Request(instance=instance, method=method, path=path, revision=revision, body=data))

    def refusal(self, *arguments, **fields):
        with pytest.raises(ApiRefused) as caught:
            self.ask(*arguments, **fields)
        return caught.value.status, caught.value.reason

    def series(self):
        window = self.aggregator.take(0, 0)
        return {} if window is None else {(one.name, one.instance, one.revision): (one.count, one.sum) for one in window.series}


@pytest.fixture
def bench():
    return Bench()


def test_a_workload_finds_services_of_its_namespace_only(bench):
    found = bench.ask("GET", "/v1/services/eye")
    assert (found.name, found.address, found.revision, found.ready) == ("eye", "http://127.0.0.1:20001", "e1", True)
    for name in ("safe", "bank/safe", "camera", "nobody", "../bank/safe", ""):
        assert bench.refusal("GET", f"/v1/services/{name}") == (404, "NotFound"), name


def test_a_workload_reads_its_own_config_parameters_and_secrets_only(bench):
    assert bench.ask("GET", "/v1/config") == {"mode": "fast"}
    assert bench.ask("GET", "/v1/config", instance="shop/eye") == {}
    assert bench.ask("GET", "/v1/instance").parameters == {"rate": 10}
    assert bench.ask("GET", "/v1/secrets/rtsp") == {"password": "of shop/camera rtsp"}
    for name in ("code", "sealed", "", "rtsp/x"):
        assert bench.refusal("GET", f"/v1/secrets/{name}") == (404, "NotFound"), name
    assert bench.refusal("GET", "/v1/secrets/rtsp", instance="shop/eye") == (404, "NotFound")


def test_a_heartbeat_is_the_callers_own(bench):
    bench.ask("POST", "/v1/heartbeat")
    bench.ask("POST", "/v1/heartbeat", instance="shop/eye")
    assert bench.beats == ["shop/camera", "shop/eye"]


def test_metrics_are_the_callers_unless_they_say_about_whom(bench):
    metrics = [
        {"name": "camera.latency", "value": 0.5, "unit": "s"},
        {"name": "camera.latency", "values": [1.0, 2.0], "unit": "s"},
        {"name": "model.errors", "value": 1, "type": "counter", "subject": {"workload": "eye", "revision": "e1"}},
    ]
    assert bench.ask("POST", "/v1/metrics", {"metrics": metrics}).accepted == 3
    assert bench.series() == {("camera.latency", "shop/camera", "c1"): (3, 3.5), ("model.errors", "shop/eye", "e1"): (1, 1.0)}


@pytest.mark.parametrize(
    "subject",
    [
        {"workload": "safe", "revision": "s1"},
        {"workload": "nobody", "revision": "e1"},
        {"workload": "eye", "revision": "never-ran-here"},
        {"workload": "eye", "revision": ""},
    ],
)
def test_metrics_about_others_are_denied_and_the_rest_is_taken(bench, subject):
    bad = {"name": "model.accuracy", "value": 0.0, "subject": subject}
    assert bench.refusal("POST", "/v1/metrics", {"metrics": [bad]}) == (403, "Denied")
    taken = bench.ask("POST", "/v1/metrics", {"metrics": [{"name": "x", "value": 1}, bad]})
    assert (taken.accepted, [(one.index, one.reason) for one in taken.refused]) == (1, [(1, "Denied")])
    assert bench.series() == {("x", "shop/camera", "c1"): (1, 1.0)}


def test_a_revision_that_just_left_may_still_be_spoken_of(bench):
    for n in range(2, REVISIONS_REMEMBERED + 2):
        bench.publish(views={"shop/eye": InstanceView(name="shop/eye", revision=f"e{n}")})
    assert bench.refusal("POST", "/v1/feedback", {"service": "eye", "revision": "e1", "correct": 1}) == (403, "Denied")
    assert bench.ask("POST", "/v1/feedback", {"service": "eye", "revision": "e2", "correct": 1}).accepted == 1
    bench.publish(views={"shop/eye": InstanceView(name="shop/eye", revision="e9", also_running=("e10",))})
    assert bench.ask("POST", "/v1/feedback", {"service": "eye", "revision": "e10", "wrong": 1}).accepted == 1


def test_two_revisions_of_the_caller_are_told_apart_and_lies_are_not_believed(bench):
    bench.publish(views={"shop/camera": InstanceView(name="shop/camera", revision="c2", also_running=("c3",))})
    point = {"metrics": [{"name": "x", "value": 1}]}
    for revision in ("", "c1", "c2", "c3", "e1", "made-up"):
        bench.ask("POST", "/v1/metrics", point, revision=revision)
    assert bench.series() == {
        ("x", "shop/camera", "c1"): (1, 1.0),
        ("x", "shop/camera", "c2"): (4, 4.0),
        ("x", "shop/camera", "c3"): (1, 1.0),
    }


def test_feedback_is_the_models_accuracy(bench):
    bench.ask("POST", "/v1/feedback", {"service": "eye", "revision": "e1", "correct": 9, "wrong": 1})
    assert bench.series() == {("model.accuracy", "shop/eye", "e1"): (10, 9.0)}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"metrics": 3}',
        b'{"metrics": [{}]}',
        b'{"metrics": [{"name": "x"}]}',
        b'{"metrics": [{"name": "x", "value": "1"}]}',
        b'{"metrics": [{"name": "x", "value": 1e999}]}',
        b'{"metrics": [{"name": "x", "value": NaN}]}',
        b'{"metrics": [{"name": "", "value": 1}]}',
        b'{"metrics": [{"name": "9x", "value": 1}]}',
        b'{"metrics": [{"name": "x y", "value": 1}]}',
        b'{"metrics": [{"name": "x", "value": 1, "type": "sum"}]}',
        b'{"metrics": [{"name": "x", "value": 1, "colour": "red"}]}',
        b'{"metrics": [{"name": "x", "value": 1, "instance": "bank/safe"}]}',
        b'{"metrics": [{"name": "x", "value": 1, "subject": {"workload": "../bank", "revision": ""}}]}',
        b'{"metrics": [{"name": "' + b"x" * 129 + b'", "value": 1}]}',
        b'{"metrics": [{"name": "x", "value": 1, "unit": "' + b"s" * 33 + b'"}]}',
        b'{"metrics": [' + b",".join([b'{"name": "x", "value": 1}'] * 1001) + b"]}",
        b'{"metrics": [{"name": "x", "values": [' + b",".join([b"1"] * 10_001) + b"]}]}",
    ],
)
def test_bad_metrics_are_refused(bench, body):
    assert bench.refusal("POST", "/v1/metrics", body)[0] == 400
    assert bench.series() == {}


def test_limits_are_taken_at_the_limit(bench):
    assert bench.ask("POST", "/v1/metrics", {"metrics": [{"name": "x" * 128, "value": 1, "unit": "s" * 32}] * 1000}).accepted == 1000
    assert bench.ask("POST", "/v1/metrics", {"metrics": [{"name": "y", "values": [1] * 10_000}]}).accepted == 1
    assert bench.ask("POST", "/v1/metrics", {"metrics": []}).accepted == 0
    assert bench.ask("POST", "/v1/feedback", {"service": "eye", "revision": "e1", "correct": 10_000}).accepted == 10_000
    for body in (
        {"service": "eye", "revision": "e1", "correct": 10_001},
        {"service": "eye", "revision": "e1", "wrong": -1},
        {"service": "eye", "revision": "e1"},
    ):
        assert bench.refusal("POST", "/v1/feedback", body) == (400, "Invalid")


def test_too_many_series_are_said():
    bench = Bench(series_max=1)
    bench.ask("POST", "/v1/metrics", {"metrics": [{"name": "x", "value": 1}]})
    assert bench.refusal("POST", "/v1/metrics", {"metrics": [{"name": "y", "value": 1}]}) == (429, "TooManySeries")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/config", 405),
        ("GET", "/v1/metrics", 405),
        ("DELETE", "/v1/services/eye", 405),
        ("GET", "/v1/config/x", 404),
        ("GET", "/v2/config", 404),
        ("GET", "/", 404),
        ("GET", "", 404),
        ("GET", "*", 404),
        ("GET", "/v1/exec", 404),
        ("GET", "http://elsewhere/v1/config", 404),
    ],
)
def test_there_is_nothing_else(bench, method, path, status):
    assert bench.refusal(method, path)[0] == status


def test_an_instance_that_left_gets_nothing(bench):
    bench.answers.publish({})
    assert bench.refusal("GET", "/v1/config") == (404, "NotFound")


@given(st.text(max_size=40), st.sampled_from(["GET", "POST", "PUT"]), st.binary(max_size=60))
def test_anything_is_answered_or_refused(path, method, body):
    refusals = []
    try:
        Bench().ask(method, f"/v1/{path}", body)
    except ApiRefused as refused:
        refusals.append(refused.status)
    assert all(400 <= status < 500 for status in refusals)


SUMMARY = {
    "name": "model.server.request.duration", "unit": "s", "count": 3, "sum": 0.6, "sumSquares": 0.14, "min": 0.1, "max": 0.3, "last": 0.2,
    "bounds": [0.1, 0.25], "buckets": [1, 1, 1],
}  # fmt: skip


def test_what_a_workload_summarised_is_taken_for_its_own_revision(bench):
    bench.publish(views={"shop/camera": InstanceView(name="shop/camera", revision="c1", also_running=("c2",))})
    sketch = {"sketch": "AAEC", "sketchType": "kll-float"}
    body = {"metrics": [{"name": "x", "value": 1}], "summaries": [SUMMARY, SUMMARY | sketch | {"revision": "c2"}]}
    assert bench.ask("POST", "/v1/metrics", body).accepted == 3
    first, second = bench.aggregator.take(0, 0).series[1:]
    assert (first.instance, first.revision, first.count, first.sum, first.buckets) == ("shop/camera", "c1", 3, 0.6, (1, 1, 1))
    assert (second.revision, second.sketch, second.sketch_type) == ("c2", b"\0\1\2", "kll-float")


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"buckets": [1, 1]}, (400, "Invalid")),
        ({"buckets": [1, 1, 2]}, (400, "Invalid")),
        ({"buckets": [4, -1, 0]}, (400, "Invalid")),
        ({"bounds": [0.25, 0.1]}, (400, "Invalid")),
        ({"bounds": [0.1, 0.1]}, (400, "Invalid")),
        ({"bounds": []}, (400, "Invalid")),
        ({"count": 0}, (400, "Invalid")),
        ({"sumSquares": -1}, (400, "Invalid")),
        ({"last": 0.5}, (400, "Invalid")),
        ({"sketch": "no Base64!"}, (400, "Invalid")),
        ({"sketch": "AAAA" * 2731}, (400, "Invalid")),
        ({"bounds": list(range(65)), "buckets": [3] + [0] * 65}, (400, "Invalid")),
        ({"revision": "never-ran-here"}, (403, "Denied")),
        ({"subject": {"workload": "eye", "revision": "e1"}}, (400, "Invalid")),
    ],
)
def test_a_summary_that_is_not_true_of_itself_is_refused(bench, changes, answer):
    assert bench.refusal("POST", "/v1/metrics", {"summaries": [SUMMARY | changes]}) == answer
    assert bench.series() == {}


def test_a_summary_for_which_the_window_has_no_room_is_told_so_and_the_rest_is_taken(bench):
    sketched = SUMMARY | {"sketch": "AAEC", "sketchType": "kll-float"}
    taken = bench.ask("POST", "/v1/metrics", {"summaries": [sketched, sketched]})
    assert (taken.accepted, [(one.index, one.reason) for one in taken.refused]) == (1, [(1, "WindowFull")])
