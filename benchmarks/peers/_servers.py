"""Install and start the peers, one worker each, as their documentation has it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from benchmarks._serve_servers import Started, answers, running, wait_for

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("EDGEWISE_PEERS", HERE.parents[1] / ".venv/peers"))


def install(name: str) -> Path:
    """Return the folder of a peer's programs, installed first where they are missing."""
    place = FOLDER / name
    if not (place / "bin" / name).exists():
        print(f"installing {name} into {place}", file=sys.stderr, flush=True)
        venv.create(place, with_pip=True, symlinks=True)
        pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / f"requirements-{name}.txt")], check=True)
    return place / "bin"


@contextlib.contextmanager
def mlserver(tree: Path) -> Iterator[Started]:
    """MLServer with its inference in the process that serves. With a worker process, its default, it ended at its start here."""
    programs = install("mlserver")
    with tempfile.TemporaryDirectory(prefix="ew") as folder:
        port = _free_port()
        settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", "http_port": port, "grpc_port": _free_port()}
        Path(folder, "settings.json").write_text(json.dumps({**settings, "metrics_endpoint": None}))
        Path(folder, "m").mkdir()
        model = {"name": "m", "implementation": "mlserver_model.Onnx", "parameters": {"uri": str(tree / "model.onnx")}}
        Path(folder, "m", "model-settings.json").write_text(json.dumps(model))
        argv = [str(programs / "mlserver"), "start", folder]
        with running(argv, cwd=folder, env={**_environment(programs), "PYTHONPATH": str(HERE)}, **_SILENT) as process:
            wait_for(process, lambda: answers(("127.0.0.1", port), "/v2/models/m/ready", 200))
            yield Started(("127.0.0.1", port), process.pid)


@contextlib.contextmanager
def bentoml(tree: Path, shape: tuple[int, ...]) -> Iterator[Started]:
    """BentoML with one worker and without its access log."""
    programs = install("bentoml")
    with tempfile.TemporaryDirectory(prefix="ew") as folder:
        port = _free_port()
        sizes = ",".join(str(each) for each in shape)
        told = {"EDGEWISE_BENCH_MODEL": str(tree / "model.onnx"), "EDGEWISE_BENCH_SHAPE": sizes}
        own = {"BENTOML_HOME": folder, "BENTOML_DO_NOT_TRACK": "True"}
        argv = [str(programs / "bentoml"), "serve", "bentoml_service:Onnx", "--host", "127.0.0.1", "--port", str(port)]
        with running([*argv, "--working-dir", str(HERE)], cwd=HERE, env={**_environment(programs), **told, **own}, **_SILENT) as process:
            wait_for(process, lambda: answers(("127.0.0.1", port), "/readyz", 200))
            yield Started(("127.0.0.1", port), process.pid)


_SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _environment(programs: Path) -> dict[str, str]:
    return {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/tmp"), "PYTHONDONTWRITEBYTECODE": "1"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
