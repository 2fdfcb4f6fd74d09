"""Which file of a tree is the model, and which runtime runs it."""

import importlib
from pathlib import Path
from typing import Final, cast

from edgewise.serve.runtimes.contract import Load, ModelFailed

_BY_SUFFIX: Final = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "litert"}
"""OpenVINO's `.xml` has its weights in the `.bin` beside it."""
_ALSO: Final = {"openvino": (".onnx",)}
RUNTIMES: Final = tuple(sorted(set(_BY_SUFFIX.values())))


def find_model(tree: Path, runtime: str = "") -> tuple[Path, str]:
    """Return the tree's only model file (`tree` may be that file) and its runtime: `runtime` when one is asked for, else the one of the
    file's suffix. Raises `ModelFailed`."""
    if runtime and runtime not in RUNTIMES:
        raise ModelFailed(f"there is no runtime {runtime!r}: there are {', '.join(RUNTIMES)}")
    try:
        files = [tree] if tree.is_file() else tree.iterdir()
        found = [each for each in files if each.suffix in _BY_SUFFIX and each.is_file()]
    except OSError as error:
        raise ModelFailed(f"the model's folder cannot be read: {error.strerror}") from error
    if len(found) != 1:
        raise ModelFailed(f"the model's folder must hold exactly one file of {', '.join(_BY_SUFFIX)}, it holds {len(found)}")
    path = found[0]
    own = _BY_SUFFIX[path.suffix]
    if runtime and runtime != own and path.suffix not in _ALSO.get(runtime, ()):
        raise ModelFailed(f"{runtime} does not run {path.suffix} files")
    return path, runtime or own


def loading(runtime: str) -> Load:
    """Return what loads models of `runtime`. Raises `ModelFailed` when it is not installed here."""
    try:
        module = importlib.import_module(f"edgewise.serve.runtimes.{runtime}")
    except ImportError as error:
        extra = "serve" if runtime == "onnxruntime" else runtime
        raise ModelFailed(f"{error.name or error} is not installed here: install edgewise[{extra}]") from error
    return cast("Load", module.load)
