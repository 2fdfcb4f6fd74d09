"""Swapping a model under load: no request is dropped, and each answer says which revision gave it."""

import http.client
import json
import threading
import time

INFER = "/v2/models/m/infer"
SWAPS = 4


class Client(threading.Thread):
    """Asks until told to stop, never twice for the same: an exception is a dropped request."""

    def __init__(self, supervisor, body: bytes, *, keep: bool, pause: float) -> None:
        super().__init__(daemon=True)
        self.supervisor = supervisor
        self.body = body
        self.keep = keep
        self.pause = pause
        self.stopping = threading.Event()
        self.answers: list[tuple[float, float, str]] = []
        self.dropped: list[str] = []

    def run(self) -> None:
        connection = self.supervisor.connect()
        while not self.stopping.wait(self.pause):
            asked = time.monotonic()
            try:
                connection.request("POST", INFER, self.body)
                answer = connection.getresponse()
                content = json.loads(answer.read())
                assert answer.status == 200, content
                assert content["outputs"][0]["data"] == [2, 4, 6, 8]
                assert content["model_version"] == answer.headers["edgewise-revision"]
                self.answers.append((asked, time.monotonic(), answer.headers["edgewise-revision"]))
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.dropped.append(f"{time.monotonic()} {error!r}")
                connection.close()
            if not self.keep:
                connection.close()
        connection.close()


def test_no_request_is_dropped_while_models_are_swapped(supervisor, tree, bodies, wait):
    current = supervisor.start(tree, "m-0").activate()
    clients = [Client(supervisor, bodies(), keep=False, pause=0.001) for _ in range(3)]
    clients += [Client(supervisor, bodies(), keep=True, pause=pause) for pause in (0, 0, 0.01, 0.1, 0.9)]
    for client in clients:
        client.start()
    drained: list[tuple[float, str]] = []
    for n in range(1, SWAPS + 1):
        seen = [len(client.answers) for client in clients]
        wait(
            lambda seen=seen: all(len(client.answers) > before for client, before in zip(clients, seen, strict=True)), what="answers to all"
        )
        following = supervisor.start(tree, f"m-{n}").activate()
        current.drain()
        drained.append((time.monotonic(), f"m-{n - 1}"))
        assert current.ended() == 0
        current = following
    wait(
        lambda: (
            (sum(len(client.answers) for client in clients) > 500 and all(client.answers[-1][2] == f"m-{SWAPS}" for client in clients))
            or any(client.dropped for client in clients)
        ),
        what="answers of the last one to all",
    )
    for client in clients:
        client.stopping.set()
    for client in clients:
        client.join(60)
    assert [client.dropped for client in clients] == [[]] * len(clients)
    for client in clients:
        if client.keep:
            continue
        for asked, _, revision in client.answers:  # a new connection never reaches a server that drains
            assert not any(asked > at and revision == old for at, old in drained)


def test_an_old_server_that_dies_costs_only_what_it_held(supervisor, tree, bodies):
    """A crash instead of a drain: connections that it had accepted break, everything else goes to the other server."""
    old = supervisor.start(tree, "m-0").activate()
    supervisor.start(tree, "m-1").activate()
    old.kill()
    for _ in range(50):
        connection = supervisor.connect()
        connection.request("POST", INFER, bodies())
        answer = connection.getresponse()
        assert answer.headers["edgewise-revision"] == "m-1"
        answer.read()
        connection.close()
