"""HTTP on one connection: whatever comes is bounded and answered."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.serve.answers import ok, problem
from edgewise.serve.conversation import Budget, Conversation, Writer
from edgewise.serve.limits import ServeLimits

LIMITS = ServeLimits(head_bytes_max=500, body_bytes_max=1000, buffered_bytes_max=1500, pipelined_requests_max=3, framing_bytes_max=200)


def _talk(limits=LIMITS, budget=None) -> Conversation:
    return Conversation(limits, budget or Budget(limits.buffered_bytes_max))


def _post(body: bytes, *headers: str, target: str = "/v2/models/m/infer") -> bytes:
    return "\r\n".join((f"POST {target} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", "")).encode() + body


GET = b"GET /v2/health/live?verbose=1 HTTP/1.1\r\nhost: x\r\n\r\n"


def test_a_request_comes_out_whole():
    talk = _talk()
    talk.feed(_post(b"hello"))
    (request,) = talk.requests
    assert (request.method, request.path, request.body, request.keep_alive) == ("POST", "/v2/models/m/infer", b"hello", True)
    assert not talk.partial


def test_queries_are_cut_off_and_close_is_seen():
    talk = _talk()
    talk.feed(GET + b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert [(each.path, each.keep_alive) for each in talk.requests] == [("/v2/health/live", True), ("/", False)]
    old = _talk()
    old.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert not old.requests[0].keep_alive


@given(st.lists(st.sampled_from([GET, _post(b""), _post(b"x" * 400), _post(b'{"a":1}')]), min_size=1, max_size=3), st.data())
def test_how_the_bytes_are_cut_makes_no_difference(requests, data):
    stream = b"".join(requests)
    whole, cut = _talk(), _talk()
    whole.feed(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        cut.feed(stream[start:end])
    assert cut.problem is None
    assert whole.requests == cut.requests
    assert len(cut.requests) == len(requests)


@pytest.mark.parametrize(("size", "status"), [(999, None), (1000, None), (1001, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_is_bounded(size, status, chunked):
    talk = _talk()
    if chunked:
        talk.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, size, 400):
            piece = b"x" * min(400, size - start)
            talk.feed(b"%x\r\n%s\r\n" % (len(piece), piece))
        talk.feed(b"0\r\n\r\n")
    else:
        talk.feed(_post(b"x" * size))
    assert (talk.problem.status if talk.problem else None) == status
    assert len(talk.requests) == (status is None)


def test_a_large_length_is_refused_before_the_body_comes():
    for length in ("1001", "9" * 18):
        talk = _talk()
        talk.feed(f"POST / HTTP/1.1\r\ncontent-length: {length}\r\n\r\n".encode())
        assert talk.problem.status == 413


@pytest.mark.parametrize("length", ["9" * 30, "-1", "1e3", "", "+5", "5, 5", "0x5"])
def test_a_length_that_is_none_is_refused(length):
    talk = _talk()
    talk.feed(f"POST / HTTP/1.1\r\ncontent-length: {length}\r\n\r\nhello".encode())
    assert talk.problem.status in {400, 413}


def test_length_and_chunks_together_are_refused():
    talk = _talk()
    talk.feed(b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert talk.problem.status == 400


def _head(size: int) -> bytes:
    start, end = b"GET / HTTP/1.1\r\na: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(("size", "status"), [(400, None), (700, 431)])
@pytest.mark.parametrize("step", [10_000, 7])
def test_the_head_is_bounded(size, status, step):
    talk = _talk()
    data = _head(size)
    for start in range(0, size, step):
        talk.feed(data[start : start + step])
    assert (talk.problem.status if talk.problem else None) == status


@pytest.mark.parametrize("piece", [b"GET /" + b"x" * 400, b"GET / HTTP/1.1\r\n" + b"y" * 300, b"GET / HTTP/1.1\r\na: " + b"z" * 300])
def test_a_head_that_never_ends_is_refused(piece):
    talk = _talk()
    talk.feed(piece)
    for _ in range(10):
        talk.feed(piece[-100:].replace(b"\r\n", b""))
    assert talk.problem.status == 431


@pytest.mark.parametrize("endless", [b"1;" + b"e" * 60, b"0\r\n" + b"t" * 60, b"0\r\nt: " + b"t" * 60])
def test_chunk_extensions_and_trailers_are_bounded(endless):
    talk = _talk()
    talk.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    talk.feed(endless)
    for _ in range(20):
        talk.feed(b"x" * 60)
    assert talk.problem is not None
    assert talk.problem.status in {400, 431}


def test_all_connections_share_a_budget():
    budget = Budget(LIMITS.buffered_bytes_max)
    one, two = _talk(budget=budget), _talk(budget=budget)
    one.feed(_post(b"x" * 1000))
    two.feed(_post(b"x" * 600))
    assert two.problem.status == 503
    assert two.problem.retry_after > 0
    two.close()
    one.release(one.requests.popleft())
    three = _talk(budget=budget)
    three.feed(_post(b"x" * 1000))
    assert three.problem is None
    three.close()
    one.close()
    assert budget.take(LIMITS.buffered_bytes_max)
    assert not budget.take(1)


def test_too_many_requests_before_an_answer_are_refused():
    talk = _talk()
    talk.feed(GET * 3)
    assert talk.problem is None
    talk.feed(GET)
    assert talk.problem.status == 400
    assert len(talk.requests) == 3
    talk.feed(GET)
    assert len(talk.requests) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_other_protocols_are_refused(data):
    talk = _talk()
    talk.feed(data)
    assert talk.problem.status == 400


def test_a_wish_to_change_the_protocol_is_passed_over_where_it_can_be():
    talk = _talk()
    talk.feed(b"GET /a HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n\r\n")
    assert [(each.path, each.keep_alive) for each in talk.requests] == [("/a", False)]
    with_body = _talk()
    with_body.feed(b"POST /a HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi")
    assert not with_body.requests
    assert with_body.problem.status == 400


@pytest.mark.parametrize(
    ("encoding", "status"), [("br", 415), ("gzip, gzip", 415), ("zstd", 415), ("gzip", None), ("Deflate", None), ("identity", None)]
)
def test_bodies_may_be_compressed_with_gzip_or_deflate(encoding, status):
    talk = _talk()
    talk.feed(_post(b"hi", f"content-encoding: {encoding}"))
    assert (talk.problem.status if talk.problem else None) == status


def test_the_headers_that_matter_come_with_the_request():
    talk = _talk()
    talk.feed(_post(b"hello", "Accept-Encoding:  gzip ", "inference-header-content-length: 3", "cookie: secret"))
    (request,) = talk.requests
    assert request.headers == {"accept-encoding": "gzip", "inference-header-content-length": "3"}
    assert request.header_bytes == 3


@pytest.mark.parametrize("value", ["-1", "", "3.0", "0x3", "9" * 40, "3, 3", "\u00b2"])
def test_a_length_of_the_json_that_is_none_is_told_as_such(value):
    talk = _talk()
    talk.feed(_post(b"hello", f"inference-header-content-length: {value}"))
    assert talk.requests[0].header_bytes == -1


def test_trailers_are_no_headers():
    talk = _talk()
    talk.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\ninference-header-content-length: 3\r\n\r\n")
    assert talk.requests[0].header_bytes is None


def test_a_client_that_waits_to_send_is_told_to():
    talk = _talk()
    talk.feed(b"POST / HTTP/1.1\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
    assert talk.wants_continue
    talk.feed(b"hello")
    assert not talk.wants_continue
    assert talk.requests[0].body == b"hello"
    large = _talk()
    large.feed(b"POST / HTTP/1.1\r\ncontent-length: 5000\r\nexpect: 100-continue\r\n\r\n")
    assert not large.wants_continue
    assert large.problem.status == 413


@settings(max_examples=150)
@given(
    st.lists(
        st.binary(max_size=80)
        | st.sampled_from([b"GET / HTTP/1.1\r\n", b"content-length: 5\r\n", b"\r\n", b"0\r\n\r\n", b"transfer-encoding: chunked\r\n"]),
        max_size=12,
    )
)
def test_no_bytes_break_it(pieces):
    budget = Budget(LIMITS.buffered_bytes_max)
    talk = _talk(budget=budget)
    for piece in pieces:
        talk.feed(piece)
    assert len(talk.requests) <= LIMITS.pipelined_requests_max
    talk.close()
    assert budget.take(LIMITS.buffered_bytes_max)


def test_answers_become_bytes():
    write = Writer("rev-1")
    assert write(ok({"a": 1}), close=False) == (
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\nedgewise-revision: rev-1\r\n\r\n{"a":1}'
    )
    told = write(problem(503, "later", retry_after=2), close=True)
    assert b"retry-after: 2\r\n" in told
    assert b"connection: close\r\n" in told
    assert json.loads(told.partition(b"\r\n\r\n")[2]) == {"error": "later"}
    assert b"allow: GET\r\n" in write(problem(405, "no", allow="GET"), close=False)
