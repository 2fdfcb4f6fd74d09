"""What is measured of each inference: called by the inference thread after it has handed the answer on, so that no client waits for it."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgewise.serve.comparison import Comparison
from edgewise.serve.energy import Meter
from edgewise.serve.exposition import lines, quantile_lines
from edgewise.serve.feedback import Feedback, predicted
from edgewise.serve.inference import Identity
from edgewise.serve.limits import ServeLimits
from edgewise.serve.measurements import SECONDS_BOUNDS, SHARE_BOUNDS, Measurements, Told
from edgewise.serve.sketching import Sketches
from edgewise.serve.tensors import Array, TensorSpec

CLASSES_MAX: Final = 32
"""Classes up to this one are counted one by one; those above together."""
_CLASS_BOUNDS: Final = tuple(index + 0.5 for index in range(CLASSES_MAX))

Tensors = list[tuple[TensorSpec, Array]]


class Observer:
    """All that one model's inferences tell. `inputs_allowed`: whether inputs may be sketched."""

    def __init__(
        self,
        limits: ServeLimits,
        *,
        inputs_allowed: bool = True,
        root: Path = Path("/sys"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.measurements = Measurements()
        self.feedback = Feedback(self.measurements, limits, monotonic)
        self._limits = limits
        self._inputs = Sketches("model.input") if inputs_allowed else None
        self._outputs = Sketches("model.output")
        self._monotonic = monotonic
        self._due = 0.0
        self._meter = Meter(root, monotonic)
        self._meter.read()
        self._processor = _processor_seconds()
        self._requests = 0

    def answered(self, request: str, inputs: Tensors, outputs: Tensors) -> None:
        """Look at one inference: its answer is remembered when it has an id, its distributions are when some time has passed."""
        self._requests += 1
        now = self._monotonic()
        look = now >= self._due
        if not (look or request):
            return
        if request:
            self.feedback.remember(request, outputs)
        if not look:
            return
        prediction = predicted(outputs)
        self._due = now + 1.0 / self._limits.observations_per_second_max
        if self._inputs is not None:
            self._inputs.observe(inputs)
        if prediction is None or prediction.kind == "value":
            self._outputs.observe(outputs)
            return
        self.measurements.extend("model.confidence", prediction.confidence, "1", SHARE_BOUNDS)
        classes = [float(row) for row in prediction.rows if not isinstance(row, str)]
        self.measurements.extend("model.output.class", classes, "1", _CLASS_BOUNDS)

    def remember(self, request: str, outputs: Tensors) -> None:
        """Remember what a candidate said to a copy, for labels that come later."""
        self.feedback.remember(request, outputs)

    def compared(self, comparison: Comparison) -> None:
        """Take in how a copy's answer compares with the one that the client got."""
        self.measurements.add("model.shadow.disagreement", 0.0 if comparison.agrees else 1.0)
        if comparison.distance is not None:
            self.measurements.add("model.shadow.distance", comparison.distance)
        if comparison.seconds is not None:
            self.measurements.add("model.shadow.duration", comparison.seconds, "s", SECONDS_BOUNDS)

    def served(self, seconds: float, queued: float, status: int) -> None:
        """Count one inference request: seconds from whole request to answer, those of them that it waited, and how it ended. What the
        client did wrong (4xx but 422) is no error of the model or of its server."""
        self.measurements.add("model.server.errors", 1.0 if status >= 500 or status == 422 else 0.0)
        if status < 400:
            self.measurements.add("model.server.request.duration", seconds, "s", SECONDS_BOUNDS)
            self.measurements.add("model.server.queue.duration", queued, "s", SECONDS_BOUNDS)

    def take(self, *, sketches: bool) -> list[Told]:
        """Take what is to be told, with the sketches or without."""
        self._measure_energy()
        told = self.measurements.take()
        for sketch in self._sketches() if sketches else ():
            told.extend(sketch.take())
        return told

    def put_back(self, told: list[Told]) -> None:
        """Keep what could not be told for the next time."""
        self.measurements.put_back([one for one in told if not one.sketch])
        for sketch in self._sketches():
            sketch.put_back([one for one in told if one.sketch and one.name.startswith(sketch.prefix)])

    def text(self, identity: Identity) -> str:
        """Return everything as Prometheus takes it; quantiles are of what was seen since the sketches were last told."""
        labels = f'instance="{identity.instance}",revision="{identity.revision}"'
        quantiles = [one for sketches in self._sketches() for one in sketches.quantiles()]
        return "\n".join((*lines(self.measurements.totals(), labels), *quantile_lines(quantiles, labels), ""))

    def _sketches(self) -> list[Sketches]:
        return [self._outputs] if self._inputs is None else [self._outputs, self._inputs]

    def _measure_energy(self) -> None:
        requests, self._requests = self._requests, 0
        joules, (own, every) = self._meter.read(), _processor_seconds()
        (own_before, every_before), self._processor = self._processor, (own, every)
        if joules is not None and requests and every > every_before:
            share = min(1.0, (own - own_before) / (every - every_before))
            self.measurements.add("model.energy", joules * share / requests, "J")


def _processor_seconds() -> tuple[float, float]:
    """Return the processor seconds that this process used, and those that the machine was busy."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        busy = sum(int(value) for at, value in enumerate(fields) if at not in {3, 4})
        return time.process_time(), busy / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0, 0.0
