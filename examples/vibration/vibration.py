"""A vibration sensor on a bearing: overlapping windows of an accelerometer's samples, freed of their mean, and the share of the unusual.

Synthetic: a shaft at 25 Hz with noise; now and then a damaged bearing knocks at 117 Hz. Replace `samples` by what your sensor gives.
Parameters: `model`, `input`, `window` (samples, 256), `hop` (samples between windows, 128), `threshold` (of the model's first output).
"""

import itertools
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator

from edgewise import workload
from edgewise.model_client import ModelClient, ModelError, Tensor

RATE = 3_200
"""Samples per second."""


def samples(seed: int = 1) -> Iterator[float]:
    """Give accelerations in g, forever."""
    noise = random.Random(seed)
    for number in itertools.count():
        at = number / RATE
        shaft = 0.4 * math.sin(2 * math.pi * 25 * at)
        damaged = (at % 60.0) > 50.0
        knock = 1.5 * math.exp(-((at * 117) % 1.0) * 12) * math.sin(2 * math.pi * 1_200 * at) if damaged else 0.0
        yield shaft + knock + noise.gauss(0.0, 0.05)


def windows(values: Iterable[float], window: int, hop: int) -> Iterator[list[float]]:
    """Cut overlapping windows, each freed of its mean (gravity and drift)."""
    kept: deque[float] = deque(maxlen=window)
    for number, value in enumerate(values, start=1):
        kept.append(value)
        if number >= window and (number - window) % hop == 0:
            mean = math.fsum(kept) / window
            yield [each - mean for each in kept]


def main() -> None:
    """Ask about each window as it is complete; report the score, and how many were unusual."""
    settings = workload.parameters()
    name, window, hop = str(settings["model"]), int(settings.get("window", 256)), int(settings.get("hop", 128))
    model = ModelClient(workload.service(name).address, name, seconds=2.0)
    due = time.monotonic()
    for values in windows(samples(), window, hop):
        due = max(due + hop / RATE, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            answer = model.ask({str(settings["input"]): Tensor.of("FP32", (1, window), values)})
        except ModelError as error:
            workload.count("vibration.windows.dropped", unit="{window}")
            print(f"dropped: {error}", flush=True)
            continue
        score = next(iter(answer.outputs.values())).values()[0]
        workload.metric("vibration.score", score)
        if score > float(settings.get("threshold", 0.5)):
            workload.count("vibration.windows.unusual", unit="{window}")
        workload.heartbeat()


if __name__ == "__main__":
    main()
