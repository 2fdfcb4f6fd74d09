"""A control plane made of answers: what the client asks is recorded, what it gets is written in the test."""

import json

import httpx
import msgspec
import pytest

from edgewise.client.connection import ClientLimits
from edgewise.client.context import Context
from edgewise.client.fleet import Client

TOKEN = "ewo1_" + "t" * 43


class Script:
    """Answers requests: by `(method, path)`, each key's answers in order, the last one again and again."""

    def __init__(self):
        self.asked = []
        self._answers = {}

    def on(self, method, path, *answers):
        self._answers[method, path] = list(answers)

    async def __call__(self, request):
        body = await request.aread()
        self.asked.append((request.method, request.url.raw_path.decode(), body, request.headers))
        answers = self._answers.get((request.method, request.url.path))
        if not answers:
            return httpx.Response(404, content=b'{"error": {"reason": "NotFound", "message": "nothing there"}}')
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(request) if callable(answer) else answer

    @property
    def paths(self):
        return [f"{method} {path}" for method, path, _, _ in self.asked]


def answer(content, status=200, **headers):
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return lambda _: httpx.Response(status, content=data, headers=headers)


def refusal(status, reason, message, **more):
    return answer({"error": {"reason": reason, "message": message, **more}}, status)


class Chunks(httpx.AsyncByteStream):
    """A body that comes in pieces and may break off."""

    def __init__(self, *pieces):
        self._pieces = pieces

    async def __aiter__(self):
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def events(*items, broken=False):
    """Answer server-sent events; `broken`: the connection is lost after them."""
    pieces = [b": watching\n\n", *(b"data: " + json.dumps(item).encode() + b"\n\n" for item in items)]
    if broken:
        pieces.append(httpx.ReadError("lost"))
    return lambda _: httpx.Response(200, stream=Chunks(*pieces), headers={"content-type": "text/event-stream"})


@pytest.fixture
def script():
    return Script()


@pytest.fixture
async def client(script):
    context = Context(address="https://control.test:7420", token=TOKEN, authority="", namespace="line-3")
    limits = ClientLimits(retry_seconds=1.0, poll_seconds=0.01, reconnect_seconds=1.0)
    async with Client(context, limits=limits, transport=httpx.MockTransport(script)) as fleet:
        yield fleet


@pytest.fixture
def tools():
    class Tools:
        pass

    Tools.answer, Tools.refusal, Tools.events, Tools.Chunks, Tools.TOKEN = (
        staticmethod(answer),
        staticmethod(refusal),
        staticmethod(events),
        Chunks,
        TOKEN,
    )
    return Tools
