"""The distributions of a model's inputs and outputs, as quantile sketches: mergeable, a few kilobytes, of bounded error.

Sketches are KLL (Karnin, Lang, Liberty, "Optimal Quantile Approximation in Streams", FOCS 2016) by Apache DataSketches: with k = 128 a rank
is right within about 2 %. Values are sampled, so that a large tensor costs little. A sketch holds some of the values that it saw, though
nothing that ties them to each other or to a request; where not even that may leave the device, inputs are not sketched
(`EDGEWISE_SKETCH_INPUTS=0`).
"""

import threading
from collections.abc import Iterable
from typing import Final

import datasketches
import msgspec
import numpy as np

from edgewise.serve.measurements import Told
from edgewise.serve.tensors import Array, TensorSpec

SKETCH_TYPE: Final = "kll-float"
COLUMNS_MAX: Final = 16
"""Up to so many columns of a two-dimensional tensor are told apart; a wider one is sketched as a whole."""
SKETCHES_MAX: Final = 24
VALUES_MAX: Final = 64
"""How many values of one tensor are looked at, evenly spaced."""
QUANTILES: Final = (0.05, 0.5, 0.95)
"""Those shown to people and to Prometheus."""
_K: Final = 128


class _Sketch(msgspec.Struct):
    kll: datasketches.kll_floats_sketch
    told: Told


class Sketches:
    """One sketch per numeric tensor or column. `observe` is called by one thread, `take` by another."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._lock = threading.Lock()
        self._sketches: dict[str, _Sketch] = {}

    def observe(self, tensors: Iterable[tuple[TensorSpec, Array]]) -> None:
        """Take in some of the tensors' values. Text is left out, and so are values that are not finite."""
        for spec, array in tensors:
            if array.dtype.kind in "biuf":
                if array.ndim == 2 and 1 < array.shape[1] <= COLUMNS_MAX:
                    rows = _spread(np.arange(array.shape[0]))
                    for column in range(array.shape[1]):
                        self._update(f"{spec.name}.{column}", array[rows, column])
                else:
                    self._update(spec.name, _spread(array.reshape(-1)))

    def take(self) -> list[Told]:
        """Return what the sketches hold and begin them anew."""
        with self._lock:
            sketches, self._sketches = self._sketches, {}
        for sketch in sketches.values():
            sketch.told.sketch, sketch.told.sketch_type = sketch.kll.serialize(), SKETCH_TYPE
        return [sketch.told for sketch in sketches.values() if sketch.told.count]

    def put_back(self, told: Iterable[Told]) -> None:
        """Merge what was taken and could not be told into what came since."""
        with self._lock:
            for one in told:
                older, one.sketch, one.sketch_type = datasketches.kll_floats_sketch.deserialize(one.sketch), b"", ""
                newer = self._sketches.get(one.name)
                if newer is None:
                    self._sketches[one.name] = _Sketch(older, one)
                else:
                    newer.kll.merge(older)
                    newer.told.merge(one)

    def quantiles(self) -> list[tuple[str, float, float]]:
        """Return metric, quantile and value of what the sketches hold now."""
        with self._lock:
            return [
                (name, quantile, sketch.kll.get_quantile(quantile))
                for name, sketch in sorted(self._sketches.items())
                for quantile in QUANTILES
            ]

    def _update(self, name: str, values: Array) -> None:
        numbers = values.astype(np.float32)
        numbers = numbers[np.isfinite(numbers)]
        if not numbers.size:
            return
        name = f"{self.prefix}.{_safe(name)}"
        with self._lock:
            sketch = self._sketches.get(name)
            if sketch is None:
                if len(self._sketches) >= SKETCHES_MAX:
                    return
                sketch = self._sketches[name] = _Sketch(datasketches.kll_floats_sketch(_K), Told(name=name, unit="1"))
            sketch.kll.update(numbers)
            for number in numbers.tolist():
                sketch.told.add(number)


def _spread(values: Array) -> Array:
    return values[:: -(-values.size // VALUES_MAX)] if values.size > VALUES_MAX else values


def _safe(name: str) -> str:
    """Return a tensor's name as a part of a metric's."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_./") else "_" for letter in name)[:80]
