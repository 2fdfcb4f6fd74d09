"""Ask a model server over the Open Inference Protocol V2, with binary tensors: what a workload imports beside `edgewise.workload`.

    from edgewise import workload
    from edgewise.model_client import ModelClient, Tensor

    model = ModelClient(workload.service("inspector").address, "inspector")
    answer = model.ask({"image": Tensor("FP32", (1, 3, 96, 96), pixels)})
    scores = answer.outputs["scores"].values()

Only the standard library is needed. One connection is kept open; when the server closed it meanwhile (a model swap does), the request is
sent once more on a new one, which is safe because inference changes nothing. A client is for one thread.
"""

import array
import contextlib
import http.client
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = ["Answer", "ModelClient", "ModelError", "Refused", "Tensor", "Unavailable"]

_CODES: Final = {
    "BOOL": "B",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024


class ModelError(Exception):
    """The model did not answer this request."""


class Refused(ModelError):
    """The server said no: the request is wrong (`status` 4xx), or it cannot serve it now (503, 429: later may do)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(ModelError):
    """The server cannot be reached, or did not answer in time."""


class Tensor(NamedTuple):
    """Values in row-major order, little-endian, nothing in between; `datatype` is the protocol's name, `FP32` for example."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview

    @staticmethod
    def of(datatype: str, shape: tuple[int, ...], values: Iterable[float]) -> "Tensor":
        """Make a tensor of numbers. Raises `ValueError` for datatypes that Python's arrays do not have (FP16, BF16, BYTES)."""
        return Tensor(datatype, shape, _swapped(array.array(_code(datatype), values)).tobytes())

    def values(self) -> "array.array[float]":
        """Return the numbers, flat. Raises `ValueError` for datatypes that Python's arrays do not have (FP16, BF16, BYTES)."""
        numbers: array.array[float] = array.array(_code(self.datatype))
        numbers.frombytes(bytes(self.data))
        return _swapped(numbers)


class Answer(NamedTuple):
    """What the model answered: its outputs by name, and the revision that did (for feedback)."""

    outputs: dict[str, Tensor]
    revision: str


class ModelClient:
    """One model at `address` (`http://HOST:PORT`), asked by its name. `seconds` is how long a request may take."""

    def __init__(self, address: str, model: str, *, seconds: float = 10.0) -> None:
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        self._path = f"/v2/models/{model}/infer"
        self._connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=seconds)

    def ask(self, inputs: Mapping[str, Tensor], *, request_id: str = "") -> Answer:
        """Return the model's answer. Labels that come later can be told by `request_id`. Raises `Refused`, `Unavailable`."""
        head = json.dumps(
            {
                "inputs": [
                    {"name": name, "shape": each.shape, "datatype": each.datatype, "parameters": {"binary_data_size": len(each.data)}}
                    for name, each in inputs.items()
                ],
                "parameters": {"binary_data_output": True},
            }
            | ({"id": request_id} if request_id else {})
        ).encode()
        body = b"".join((head, *(each.data for each in inputs.values())))
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        kept = self._connection.sock is not None
        try:
            return self._ask(body, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self._connection.close()
            if not kept:
                raise Unavailable(f"the model server closed the connection: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(f"the model server cannot be asked: {error!r}") from error
        try:
            return self._ask(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(f"the model server cannot be asked: {error!r}") from error

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def _ask(self, body: bytes, headers: dict[str, str]) -> Answer:
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        content = response.read(_ANSWER_BYTES_MAX)
        if response.status != http.HTTPStatus.OK:
            message = content[:1000].decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                message = str(json.loads(content)["error"])
            raise Refused(response.status, message)
        at = int(response.headers.get("inference-header-content-length", len(content)))
        outputs = {}
        for each in json.loads(content[:at])["outputs"]:
            end = at + int(each["parameters"]["binary_data_size"])
            outputs[str(each["name"])] = Tensor(str(each["datatype"]), tuple(each["shape"]), content[at:end])
            at = end
        return Answer(outputs, response.headers.get("edgewise-revision", ""))


def _code(datatype: str) -> str:
    code = _CODES.get(datatype)
    if code is None:
        raise ValueError(f"Python's arrays hold no {datatype}")
    return code


def _swapped(numbers: "array.array[float]") -> "array.array[float]":
    """Return the numbers with their bytes turned round on machines that are not little-endian, as the protocol is."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
