"""One model in memory, whatever runs it: loaded, warmed up, and asked."""

import time
from pathlib import Path
from typing import Final

from edgewise.serve.runtimes.choose import loading
from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed, Options
from edgewise.serve.tensors import zeros

_WARM_SIZES: Final = (1, 32, 224)
"""What free dimensions other than the first are set to for the first inference, until one works."""
_ALONE: Final = Options()


class Model:
    """A loaded, warmed-up model. `run` is the runtime's (see `contract.py`). Raises `ModelFailed`."""

    def __init__(self, path: Path, runtime: str = "onnxruntime", options: Options = _ALONE) -> None:
        started = time.monotonic()
        self.runtime = runtime
        self._loaded = loading(runtime)(path, options)
        self.inputs, self.outputs = self._loaded.inputs, self._loaded.outputs
        self.platform, self.device = self._loaded.platform, self._loaded.device
        if not self.outputs:
            raise ModelFailed("the model has no output that is a tensor")
        self.run = self._loaded.run
        self._warm_up()
        self.load_seconds = time.monotonic() - started

    def _warm_up(self) -> None:
        names = [each.name for each in self.outputs]
        failure = ""
        for size in _WARM_SIZES:
            try:
                self.run({each.name: zeros(each, size) for each in self.inputs}, names)
            except InferenceFailed as error:
                failure = failure or str(error)
            else:
                return
        raise ModelFailed(f"the model does not answer: {failure}")
