"""A camera: frames of 96 by 96 pixels, scaled and turned into what an image model takes, asked at a steady rate.

Synthetic: a bright square wanders over a dark, noisy belt. Replace `frames` by what your camera gives. Parameters: `model` (the workload
that serves the model), `rate` (frames per second), `input` (the name of the model's input).
"""

import random
import time
from collections.abc import Iterator

from edgewise import workload
from edgewise.model_client import ModelClient, ModelError, Tensor

SIDE = 96
CHANNELS = 3


def frames(seed: int = 1) -> Iterator[bytes]:
    """Give frames as a camera does: RGB, a byte per channel, row by row."""
    noise = random.Random(seed)
    for number in range(1_000_000_000):
        left, top = (number * 3) % (SIDE - 16), (number * 2) % (SIDE - 16)
        frame = bytearray(noise.randbytes(SIDE * SIDE * CHANNELS).translate(_DARK))
        for row in range(top, top + 16):
            start = (row * SIDE + left) * CHANNELS
            frame[start : start + 16 * CHANNELS] = b"\xdc" * (16 * CHANNELS)
        yield bytes(frame)


def tensor(frame: bytes) -> Tensor:
    """Turn rows of pixels into planes of FP32 from 0 to 1: one picture, channels first."""
    planes = (frame[channel::CHANNELS] for channel in range(CHANNELS))
    return Tensor.of("FP32", (1, CHANNELS, SIDE, SIDE), [_SCALED[value] for plane in planes for value in plane])


def main() -> None:
    """Ask about each frame; report latency and what was dropped. A frame without an answer is dropped: the next one is newer."""
    settings = workload.parameters()
    name, period = str(settings["model"]), 1.0 / float(settings["rate"])
    model = ModelClient(workload.service(name).address, name, seconds=2.0)
    for frame in frames():
        started = time.monotonic()
        try:
            model.ask({str(settings["input"]): tensor(frame)})
            workload.metric("camera.latency", time.monotonic() - started, unit="s")
        except ModelError as error:
            workload.count("camera.frames.dropped", unit="{frame}")
            print(f"dropped: {error}", flush=True)
        workload.heartbeat()
        time.sleep(max(0.0, period - (time.monotonic() - started)))


_DARK = bytes(value // 8 for value in range(256))
_SCALED = [value / 255.0 for value in range(256)]

if __name__ == "__main__":
    main()
