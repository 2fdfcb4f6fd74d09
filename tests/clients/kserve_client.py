"""Talk to a model server with KServe's own client, unmodified. Not a test: the tests run it in an environment of its own.

Arguments: URL, the model's name. The model answers each input as it came: `x_FP32` as `y_FP32`, and so on.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def values(datatype: str) -> np.ndarray:
    """Return three values of a datatype."""
    if datatype == "BYTES":
        return np.array([b"a,b", "ü".encode(), b""], dtype=object)
    return np.array([0, 1, 3]).astype(DTYPES[datatype])


async def infer(client: InferenceRESTClient, url: str, name: str, datatypes: list[str], *, binary: bool) -> None:
    """Ask for all outputs, and check them."""
    tensors = []
    for datatype in datatypes:
        tensor = InferInput(f"x_{datatype}", [3], datatype)
        tensor.set_data_from_numpy(values(datatype), binary_data=binary or datatype == "FP16")  # it sends no FP16 as JSON
        tensors.append(tensor)
    request = InferRequest(request_id="r-1", model_name=name, infer_inputs=tensors, parameters={"binary_data_output": binary})
    answer = await client.infer(url, request, model_name=name)
    assert answer.id == "r-1"
    assert answer.model_name == name
    got = {each.name: each.as_numpy() for each in answer.outputs}
    for datatype in datatypes:
        texts = [each.decode() if isinstance(each, bytes) else each for each in got[f"y_{datatype}"].tolist()]
        wanted = [each.decode() if isinstance(each, bytes) else each for each in values(datatype).tolist()]
        assert texts == wanted, (datatype, binary, texts)


async def main() -> None:
    """Go through it all; end with 0 when everything was as it should be."""
    url, name = sys.argv[1:]
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, name)
    try:
        ready = await client.is_model_ready(url, "no-such-model")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404  # noqa: PT017 - there is no pytest in that environment
    else:
        assert not ready
    async with httpx.AsyncClient() as plain:
        datatypes = [each["datatype"] for each in (await plain.get(f"{url}/v2/models/{name}")).json()["inputs"]]
        # A client that says nothing about what it sends is served.
        bare = await plain.post(f"{url}/v2/models/{name}/infer", content=b"{}")
        assert "content-type" not in bare.request.headers
        assert bare.status_code == 400
        assert set(bare.json()) == {"error"}
    for binary in (False, True):
        await infer(client, url, name, datatypes, binary=binary)
    try:
        await infer(client, url, name, datatypes[1:], binary=True)
    except httpx.HTTPStatusError as error:
        assert "missing" in str(error)  # noqa: PT017 - there is no pytest in that environment
    else:
        raise AssertionError("an input was missing")
    await client.close()
    sys.stdout.write(json.dumps({"datatypes": datatypes}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
