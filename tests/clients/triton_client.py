"""Talk to a model server with Triton's own client, unmodified. Not a test: the tests run it in an environment of its own.

Arguments: HOST:PORT, the model's name, one of its versions. The model answers each input as it came: `x_FP32` as `y_FP32`, and so on for
every datatype in its metadata.
"""

import json
import sys

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

VALUES = {
    "BOOL": [True, False, True],
    "BYTES": ["a,b", "ü\n", ""],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-32768, 0, 32767],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP16": [-0.5, 65504.0, 0.25],
    "BF16": [-0.5, 1.0, 3.0],
    "FP32": [-0.1, 3.4e38, 1e-40],
    "FP64": [-0.1, 1e308, 5e-324],
}


def array(datatype: str, shape: tuple[int, ...] = (3,)) -> np.ndarray:
    """Return values of a datatype, the ends of its range among them."""
    dtype = triton_to_np_dtype(datatype)
    if datatype == "BYTES":
        values = np.array([text.encode() for text in VALUES[datatype]], dtype=object)
    else:
        values = np.array(VALUES[datatype], dtype=dtype)
    return np.resize(values, shape) if 0 not in shape else np.zeros(shape, dtype=dtype)


def inputs(specs: list[dict], shape: tuple[int, ...], *, binary: bool) -> tuple[dict[str, np.ndarray], list[http.InferInput]]:
    """Return values for each of the model's inputs, and what the client sends of them."""
    arrays, tensors = {}, []
    for spec in specs:
        arrays[spec["name"]] = array(spec["datatype"], shape)
        tensor = http.InferInput(spec["name"], list(shape), spec["datatype"])
        # The client itself sends no BF16 as JSON.
        tensor.set_data_from_numpy(arrays[spec["name"]], binary_data=binary or spec["datatype"] == "BF16")
        tensors.append(tensor)
    return arrays, tensors


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both hold the same values. Texts are bytes or not, as they came."""
    if one.dtype == object:
        return [_text(each) for each in one.ravel()] == [_text(each) for each in other.ravel()] and one.shape == other.shape
    return one.shape == other.shape and np.array_equal(one, other)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def refused(call, words: str) -> None:
    """Expect that the server refuses, and says why."""
    try:
        call()
    except InferenceServerException as error:
        assert words in str(error), error  # noqa: PT017 - there is no pytest in that environment
    else:
        raise AssertionError(f"not refused: {words}")


def main() -> None:
    """Go through it all; end with 0 when everything was as it should be."""
    address, name, version = sys.argv[1:]
    client = http.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    assert client.is_model_ready(name, version)
    assert not client.is_model_ready(name, "no-such-version")
    assert not client.is_model_ready("no-such-model")
    about = client.get_server_metadata()
    assert about["name"] == "edgewise"
    assert {"binary_tensor_data", "model_configuration", "model_repository", "statistics"} <= set(about["extensions"])
    metadata = client.get_model_metadata(name, version)
    assert metadata["name"] == name
    assert version in metadata["versions"]
    config = client.get_model_config(name, version)
    assert [each["name"] for each in config["input"]] == [each["name"] for each in metadata["inputs"]]
    assert client.get_model_repository_index() == [{"name": name, "version": version, "state": "READY", "reason": ""}]
    refused(lambda: client.load_model(name), "signed")
    refused(lambda: client.unload_model(name), "signed")
    refused(lambda: client.get_model_metadata("no-such-model"), "no model")

    asked = 0
    specs = metadata["inputs"]
    for shape in ((3,), (1,), (1000,), (0,)):
        for binary in (True, False):
            for request, response in ((None, None), ("gzip", "deflate"), ("deflate", "gzip")):
                arrays, tensors = inputs(specs, shape, binary=binary)
                outputs = [http.InferRequestedOutput(each["name"], binary_data=binary) for each in metadata["outputs"]]
                answer = client.infer(
                    name,
                    tensors,
                    outputs=outputs,
                    request_id="r-1",
                    request_compression_algorithm=request,
                    response_compression_algorithm=response,
                )
                asked += 1
                content = answer.get_response()
                assert (content["model_name"], content["model_version"], content["id"]) == (name, version, "r-1")
                for key, value in arrays.items():
                    out = "y" + key[1:]
                    got = answer.as_numpy(out)
                    if key == "x_BF16" and not binary:  # as JSON these are numbers, and the client reads them into its own type
                        got = got.astype(value.dtype)
                    assert same(value, got), (key, shape, binary, value, got)

    arrays, tensors = inputs(specs, (3,), binary=True)
    answer = client.infer(name, tensors)  # nothing asked for: everything comes, as binary data
    assert all(same(value, answer.as_numpy("y" + key[1:])) for key, value in arrays.items())
    waiting = client.async_infer(name, tensors, model_version=version)
    assert same(arrays[specs[0]["name"]], waiting.get_result().as_numpy("y" + specs[0]["name"][1:]))
    asked += 2
    if any(each["name"] == "y_FP32" for each in metadata["outputs"]):
        answer = client.infer(name, tensors, outputs=[http.InferRequestedOutput("y_FP32", class_count=2)])
        assert [_text(each).split(":")[1] for each in answer.as_numpy("y_FP32")] == ["1", "2"]
        odd = http.InferInput("x_FP32", [3], "FP32").set_data_from_numpy(np.array([np.nan, np.inf, -np.inf], dtype="float32"))
        others = [each for each in tensors if each.name() != "x_FP32"]
        answer = client.infer(name, [*others, odd], outputs=[http.InferRequestedOutput("y_FP32", binary_data=True)])
        assert np.array_equal(answer.as_numpy("y_FP32"), [np.nan, np.inf, -np.inf], equal_nan=True)
        wanted = [http.InferRequestedOutput("y_FP32", binary_data=False)]
        refused(lambda: client.infer(name, [*others, odd], outputs=wanted), "not finite")
        asked += 2
    refused(lambda: client.infer(name, tensors[:-1]), "missing") if len(tensors) > 1 else None
    refused(lambda: client.infer("no-such-model", tensors), "no model")
    wrong = http.InferInput(specs[0]["name"], [3], "FP64" if specs[0]["datatype"] != "FP64" else "FP32")
    wrong.set_data_from_numpy(array(wrong.datatype()))
    refused(lambda: client.infer(name, [wrong, *tensors[1:]]), specs[0]["datatype"])

    (stats,) = client.get_inference_statistics(name, version)["model_stats"]
    assert (stats["name"], stats["version"]) == (name, version)
    assert stats["inference_stats"]["success"]["count"] >= asked
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert stats["execution_count"] >= asked
    assert client.get_inference_statistics()["model_stats"][0]["name"] == name
    client.close()
    sys.stdout.write(json.dumps({"asked": asked, "datatypes": sorted(each["datatype"] for each in specs)}) + "\n")


if __name__ == "__main__":
    main()
