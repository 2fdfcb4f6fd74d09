"""A camera that stands at an inspection station: posts held-out images to the model on its device and knows the truth.

It finds the model through the local workload API, asks it at a fixed rate without ever asking twice for one image, and reports accuracy
(about the revision that answered), latency, errors and dropped requests. A request without an answer is dropped, whatever the cause.
"""

import http.client
import json
import os
import time
from pathlib import Path

from edgewise import workload

TIMEOUT_SECONDS = 5.0
LOG_EVERY_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.5


def main() -> None:
    """Look for the model, then post images until stopped."""
    samples = json.loads((Path(os.environ["EDGEWISE_BUNDLE"]) / "samples.json").read_text(encoding="utf-8"))
    settings = workload.parameters()
    name, period = str(settings["model"]), 1.0 / float(settings["rate"])
    camera = Camera(name)
    next_at = next_log = time.monotonic()
    number = 0
    while True:
        next_at = max(next_at + period, time.monotonic())
        time.sleep(max(0.0, next_at - time.monotonic()))
        if not camera.ready():
            time.sleep(LOOK_AGAIN_SECONDS)
            continue
        camera.post(samples[number % len(samples)])
        number += 1
        if time.monotonic() >= next_log:
            next_log = time.monotonic() + LOG_EVERY_SECONDS
            print(f"sent {camera.sent} answered {camera.answered} errors {camera.errors} dropped {camera.dropped}", flush=True)


class Camera:
    """One connection to the model, and the counts."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._connection: http.client.HTTPConnection | None = None
        self.sent = self.answered = self.errors = self.dropped = 0

    def ready(self) -> bool:
        """Return whether the model has ever been found on this device; its address stays the same from then on."""
        if self._connection is None:
            try:
                found = workload.service(self._model)
            except workload.WorkloadError:
                return False
            if not found.ready:
                return False
            host, _, port = found.address.removeprefix("http://").rpartition(":")
            self._connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)
        return True

    def post(self, sample: dict[str, object]) -> None:
        """Post one image and report how it went."""
        body = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": sample["image"]}]})
        self.sent += 1
        workload.count("camera.requests.sent", unit="{request}")
        started = time.monotonic()
        try:
            status, revision, answer = self._ask(body)
        except (OSError, http.client.HTTPException) as error:
            self.dropped += 1
            workload.count("camera.requests.dropped", unit="{request}")
            print(f"dropped: {type(error).__name__}: {error}", flush=True)
            return
        self.answered += 1
        workload.count("camera.requests.answered", unit="{request}")
        workload.metric("camera.latency", time.monotonic() - started, unit="s")
        if status != http.HTTPStatus.OK:
            self.errors += 1
            workload.count("camera.requests.errors", unit="{request}")
            return
        label = next(output["data"][0] for output in json.loads(answer)["outputs"] if output["name"] == "label")
        workload.feedback(self._model, revision, correct=label == sample["label"])

    def _ask(self, body: str) -> tuple[int, str, bytes]:
        assert self._connection is not None
        try:
            self._connection.request("POST", f"/v2/models/{self._model}/infer", body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.status, response.headers.get("edgewise-revision", ""), response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


if __name__ == "__main__":
    main()
