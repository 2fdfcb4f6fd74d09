"""The baseline: a bare uvicorn endpoint that decodes a report and encodes an answer, with the gateway's own TLS and nothing else.

`python -m benchmarks._bare DATA` prints the port that it listens on. `GET` answers 204 at once.
"""

import contextlib
import socket
import ssl
import sys
import time
from pathlib import Path

import msgspec
import uvicorn

from edgewise.control.data import open_data
from edgewise.control.process import _raise_file_limit
from edgewise.control.tls import gateway_context, load_new_certificate
from edgewise.wire.report import Report, ReportAnswer
from edgewise.wire.version import CONTENT_TYPE

_REPORT = msgspec.msgpack.Decoder(Report)
_ENCODER = msgspec.msgpack.Encoder()
_TYPE = (b"content-type", CONTENT_TYPE.encode())


async def endpoint(scope, receive, send) -> None:
    """Decode the body as a report; answer that everything is kept."""
    if scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    report = _REPORT.decode(body)
    marks = {lane: items.first + len(items.items) - 1 for lane, items in report.lanes.items()}
    answer = _ENCODER.encode(ReportAnswer(marks=marks, time=time.time()))
    await send({"type": "http.response.start", "status": 200, "headers": [_TYPE, (b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    """Serve until SIGINT."""
    _raise_file_limit()
    folder = open_data(Path(sys.argv[1]), "bench", time.time())
    tls: ssl.SSLContext = gateway_context(folder.keys)
    load_new_certificate((tls,), folder.keys.issuer(), ("127.0.0.1",), time.time(), 86_400.0)
    folder.close()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4_096)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        endpoint,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        ws="none",
        ssl_context_factory=lambda _config, _default: tls,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=600,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
