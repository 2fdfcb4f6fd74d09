"""One model in memory, whatever runs it: loaded, warmed up, and asked."""

import time
from pathlib import Path
from typing import Final

from edgewise.serve.rows import can_be_tried, is_the_same, sample
from edgewise.serve.runtimes.choose import loading
from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed, Options
from edgewise.serve.tensors import zeros

_WARM_SIZES: Final = (1, 32, 224)
"""What free dimensions other than the first are set to for the first inference, until one works."""
_ALONE: Final = Options()


class Model:
    """A loaded, warmed-up model. `run` is the runtime's (see `contract.py`). `answers_rows_alone`: whether requests may be put together.
    Raises `ModelFailed`."""

    def __init__(self, path: Path, runtime: str = "onnxruntime", options: Options = _ALONE) -> None:
        started = time.monotonic()
        self.runtime = runtime
        self._loaded = loading(runtime)(path, options)
        self.inputs, self.outputs = self._loaded.inputs, self._loaded.outputs
        self.platform, self.device = self._loaded.platform, self._loaded.device
        if not self.outputs:
            raise ModelFailed("the model has no output that is a tensor")
        self.run = self._loaded.run
        free = self._warm_up()
        self.answers_rows_alone = can_be_tried(self.inputs, self.outputs) and self._try_rows(free)
        self.load_seconds = time.monotonic() - started

    def _warm_up(self) -> int:
        """Run the model once on zeros. Return what free dimensions were then."""
        names = [each.name for each in self.outputs]
        failure = ""
        for size in _WARM_SIZES:
            try:
                self.run({each.name: zeros(each, size) for each in self.inputs}, names)
            except InferenceFailed as error:
                failure = failure or str(error)
            else:
                return size
        raise ModelFailed(f"the model does not answer: {failure}")

    def _try_rows(self, free: int) -> bool:
        """Whether rows that run together are answered as each alone. Tried, since a model may do what it likes with its first dimension."""
        names = [each.name for each in self.outputs]
        rows = {each.name: sample(each, free) for each in self.inputs}
        count = len(next(iter(rows.values())))
        try:
            together = self.run(rows, names)
            alone = [self.run({name: array[at : at + 1] for name, array in rows.items()}, names) for at in range(count)]
        except InferenceFailed:
            return False
        return is_the_same(together, alone)
