"""A microphone: chunks of 16-bit samples as sound cards give them, put together into half a second that moves on by a quarter.

Synthetic: silence with hum, and a whistle every ten seconds. Replace `chunks` by what your microphone gives (`arecord -t raw -f S16_LE`).
Silence is not asked about: that spares the device's processor. Parameters: `model`, `input`, `quiet` (root mean square, 0 to 1, 0.02).
"""

import array
import math
import random
import time
from collections.abc import Iterable, Iterator

from edgewise import workload
from edgewise.model_client import ModelClient, ModelError, Tensor

RATE = 16_000
CHUNK = 1_600
"""Samples that come at once: a tenth of a second."""
WINDOW = 8_000
HOP = 4_000


def chunks(seed: int = 1) -> Iterator[bytes]:
    """Give chunks as a sound card does, 16-bit samples each, forever."""
    noise = random.Random(seed)
    at = 0
    while True:
        whistles = (at / RATE) % 10.0 > 9.0
        values = array.array("h")
        for number in range(at, at + CHUNK):
            hum = 0.01 * math.sin(2 * math.pi * 50 * number / RATE)
            tone = 0.3 * math.sin(2 * math.pi * 2_500 * number / RATE) if whistles else 0.0
            values.append(int(32_767 * (hum + tone + noise.uniform(-0.002, 0.002))))
        at += CHUNK
        yield values.tobytes()


def windows(parts: Iterable[bytes]) -> Iterator["array.array[int]"]:
    """Put chunks of any size together into windows that overlap by half."""
    kept = bytearray()
    for part in parts:
        kept += part
        while len(kept) >= 2 * WINDOW:
            window = array.array("h")
            window.frombytes(bytes(kept[: 2 * WINDOW]))
            yield window
            del kept[: 2 * HOP]


def loudness(window: "array.array[int]") -> float:
    """Return the root mean square, 0 to 1."""
    return math.sqrt(math.fsum(value * value for value in window) / len(window)) / 32_768


def main() -> None:
    """Ask about each window that is not silent."""
    settings = workload.parameters()
    name, quiet = str(settings["model"]), float(settings.get("quiet", 0.02))
    model = ModelClient(workload.service(name).address, name, seconds=2.0)
    due = time.monotonic()
    for window in windows(chunks()):
        due = max(due + HOP / RATE, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))
        workload.heartbeat()
        level = loudness(window)
        workload.metric("audio.loudness", level)
        if level < quiet:
            workload.count("audio.windows.silent", unit="{window}")
            continue
        try:
            model.ask({str(settings["input"]): Tensor.of("FP32", (1, WINDOW), [value / 32_768 for value in window])})
        except ModelError as error:
            workload.count("audio.windows.dropped", unit="{window}")
            print(f"dropped: {error}", flush=True)


if __name__ == "__main__":
    main()
