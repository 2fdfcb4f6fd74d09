"""The baseline: a bare ASGI endpoint on uvicorn that hands the body to ONNX Runtime and answers the output's bytes.

`python -m benchmarks._serve_bare MODEL THREADS N,N,…` prints the port that it listens on; the body is an FP32 tensor of that shape.
"""

import contextlib
import socket
import sys

import numpy as np
import onnxruntime as ort
import uvicorn


def make_app(path: str, threads: int, shape: tuple[int, ...]):
    """Return the application."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    async def app(_scope, receive, send) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        outputs = session.run(None, {"x": np.frombuffer(body, dtype="float32").reshape(shape)})
        answer = outputs[0].tobytes()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    """Serve until stopped."""
    shape = tuple(int(each) for each in sys.argv[3].split(","))
    sock = socket.create_server(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    app = make_app(sys.argv[1], int(sys.argv[2]), shape)
    config = uvicorn.Config(app, http="httptools", loop="uvloop", lifespan="off", access_log=False, log_level="error", ws="none")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
