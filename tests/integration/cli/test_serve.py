"""`edgewise serve`: a model file on its own."""

import http.client
import json
import re
import shlex
import signal
import socket
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

RUN = [sys.executable, "-c", "from edgewise.cli.main import main; main()", "serve"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "double it.onnx"
    value = (TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", *value)],
        [helper.make_tensor_value_info("y", *value)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_what_it_says_and_stops_when_told(model, stop):
    with subprocess.Popen([*RUN, str(model), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline()]
            while lines[-1] and not lines[-1].startswith("Ctrl-C"):
                lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
            said = "".join(lines)
            host, port = re.search(r"http://([\d.]+):(\d+)/v2/models/double-it\n", said).groups()
            assert "takes x: FP32 [-1, 2]" in said
            assert "authentication" not in said
            # What it tells people to try works.
            words = shlex.split(next(line for line in lines if line.strip().startswith("curl ")))
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            connection.request("POST", words[1].partition(port)[2], words[3])
            answer = json.loads(connection.getresponse().read())
            assert answer["outputs"][0]["data"] == [2.0, 2.0]
            connection.close()
        finally:
            process.send_signal(stop)
        assert process.wait(60) == 0
        assert "stopping" in process.stderr.read()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=10)


def _fails(*arguments: str) -> str:
    ended = subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1, ended
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_errors_say_what_is_wrong_and_what_to_do(model, tmp_path):
    assert "no such file" in _fails(str(tmp_path / "nowhere.onnx"))
    (tmp_path / "text.onnx").write_text("hello")
    assert "does not load" in _fails(str(tmp_path / "text.onnx"), "--port", "0")
    (tmp_path / "readme.md").write_text("hello")
    assert "no model file" in _fails(str(tmp_path / "readme.md"))
    (tmp_path / "empty").mkdir()
    assert "it holds 0" in _fails(str(tmp_path / "empty"), "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = _fails(str(model), "--port", str(taken.getsockname()[1]))
    assert "cannot listen" in said
    assert "--port 0" in said
    assert "--without-authentication" in _fails(str(model), "--host", "0.0.0.0", "--port", "0")
    assert "is no name" in _fails(str(model), "--name", "a/b")
    assert "there is no runtime 'tflow'" in _fails(str(model), "--runtime", "tflow", "--port", "0")


def test_a_stop_that_comes_while_it_says_what_it_serves_is_a_stop(model):
    early = (
        "import os, signal\nfrom pathlib import Path\nfrom edgewise.cli import serving\n"
        "serving._tell = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"serving.run(serving.Asked(path=Path({str(model)!r}), host='127.0.0.1', port=0, name='m', runtime='', threads=0))\n"
    )
    ended = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stderr) == (0, "stopping: what is under way is answered\n")
