"""What the server needs of a runtime."""

from pathlib import Path
from typing import Protocol

import msgspec

from edgewise.serve.tensors import Array, TensorSpec


class ModelFailed(Exception):
    """The model does not load, or does not answer its first inference. One line."""


class InferenceFailed(Exception):
    """The runtime could not run the model on this input. One line."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a model: on at most `threads` processors. `cache` is a folder that may hold what is compiled for this device, or None."""

    threads: int = 1
    cache: Path | None = None


class Runtime(Protocol):
    """A model that one runtime has loaded. `platform` is its name in the protocol's metadata, `device` what it runs on (`cpu`, `cuda`, …).
    A dimension of -1 is free; a shape of none is any."""

    platform: str
    device: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        """Return the named outputs, in that order. `inputs` are all of them, each of its spec's datatype and of a shape that fits. One
        thread at a time calls this. What is returned stays as it is when `run` is called again. Raises `InferenceFailed`."""
        ...


class Load(Protocol):
    """Loads a model file. Raises `ModelFailed` for whatever is wrong with it, and for a runtime that is not installed here."""

    def __call__(self, path: Path, options: Options) -> Runtime:
        """Return the loaded model."""
        ...


def line(error: Exception) -> str:
    """Return an error's message as one line of bounded length."""
    return " ".join(str(error).split())[:500] or type(error).__name__
