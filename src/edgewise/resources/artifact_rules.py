"""The rules for what is signed: manifests, their variants, files, commands, probes and declared parameters."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from edgewise.resources._rules import LIMITS, ValidationLimits, exactly_one, unique
from edgewise.resources.artifact import Command, Manifest, Parameter, Probe, Probes, Variant
from edgewise.resources.errors import Problem
from edgewise.resources.meta import Scalar

_PARAMETER: Final = re.compile(r"[A-Za-z_][-A-Za-z0-9_.]{0,62}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def manifest_problems(manifest: Manifest, limits: ValidationLimits = LIMITS) -> tuple[Problem, ...]:
    """Return everything that is wrong with a manifest that is to be signed."""
    return tuple(manifest_rules(manifest, "", limits))


def parameter_problem(name: str, value: Scalar, declared: Mapping[str, Parameter]) -> str | None:
    """Return what is wrong with setting the declared parameter `name` to `value`, or None."""
    parameter = declared.get(name)
    if parameter is None:
        known = ", ".join(sorted(declared)) or "none"
        return f"the artifact declares no parameter {name!r}; it declares: {known}"
    return _value_problem(parameter, value)


def manifest_rules(manifest: Manifest, base: str, limits: ValidationLimits) -> Iterator[Problem]:
    """Yield what is wrong with a manifest whose path begins with `base`."""
    if len(manifest.parameters) > limits.parameters_max:
        yield Problem(
            path=f"{base}parameters", message=f"{len(manifest.parameters)} parameters, at most {limits.parameters_max} are allowed"
        )
    for name, parameter in manifest.parameters.items():
        yield from parameter_name_rules(f"{base}parameters.{name}", name)
        yield from _parameter(f"{base}parameters.{name}", parameter)
    yield from unique(f"{base}variants", "name", (variant.name for variant in manifest.variants))
    for index, variant in enumerate(manifest.variants):
        yield from _variant(f"{base}variants[{index}]", variant, manifest, limits)


def _variant(path: str, variant: Variant, manifest: Manifest, limits: ValidationLimits) -> Iterator[Problem]:
    if manifest.type == "model" and variant.command is not None:
        yield Problem(
            path=f"{path}.command", message="a model has no command: the device's model server runs it", hint="or use type: bundle"
        )
    if manifest.type == "bundle" and variant.command is None:
        yield Problem(path=f"{path}.command", message="a bundle needs a command", hint='such as command: {argv: ["${python}", "main.py"]}')
    if variant.command is not None:
        yield from _command(f"{path}.command", variant.command, limits)
    if len(variant.files) > limits.files_max:
        yield Problem(path=f"{path}.files", message=f"{len(variant.files)} files, at most {limits.files_max} are allowed")
    for index, file in enumerate(variant.files):
        reason = file_path_problem(file.path, limits)
        if reason is not None:
            yield Problem(path=f"{path}.files[{index}].path", message=reason)
    yield from unique(f"{path}.files", "path", (file.path.casefold() for file in variant.files))
    yield from _folders(f"{path}.files", {file.path for file in variant.files})
    yield from _probes(f"{path}.probes", variant.probes, limits)


def file_path_problem(path: str, limits: ValidationLimits = LIMITS) -> str | None:
    """Return why `path` cannot be the path of a file in a variant, or None."""
    parts = path.split("/")
    if path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        return f"{path!r} must be relative, without empty, '.' or '..' parts"
    if not path.isprintable() or "\\" in path:
        return f"{path!r} holds a control character or a backslash"
    if (
        len(path.encode(errors="surrogateescape")) > limits.path_bytes_max
        or max(len(part.encode(errors="replace")) for part in parts) > 255
    ):
        return f"is longer than {limits.path_bytes_max} bytes, or one part of it longer than 255"
    return None


def _folders(path: str, files: set[str]) -> Iterator[Problem]:
    for file in sorted(files):
        parents = (file.rsplit("/", depth)[0] for depth in range(1, file.count("/") + 1))
        clash = next((parent for parent in parents if parent in files), None)
        if clash is not None:
            yield Problem(path=path, message=f"{clash!r} is both a file and the folder of {file!r}")


def _probes(path: str, probes: Probes, limits: ValidationLimits) -> Iterator[Problem]:
    for name, probe in (("start", probes.start), ("readiness", probes.readiness), ("liveness", probes.liveness)):
        if probe is not None:
            yield from _probe(f"{path}.{name}", probe, limits)


def _probe(path: str, probe: Probe, limits: ValidationLimits) -> Iterator[Problem]:
    chosen = {"httpPath": probe.http_path is not None, "command": probe.command is not None, "heartbeat": probe.heartbeat}
    yield from exactly_one(path, chosen)
    if probe.http_path is not None and not (
        probe.http_path.startswith("/") and probe.http_path.isascii() and probe.http_path.isprintable()
    ):
        yield Problem(path=f"{path}.httpPath", message="must begin with '/' and hold printable ASCII only")
    if probe.command is not None:
        yield from _command(f"{path}.command", probe.command, limits)


def _command(path: str, command: Command, limits: ValidationLimits) -> Iterator[Problem]:
    if not command.argv[0]:
        yield Problem(path=f"{path}.argv[0]", message="must not be empty")
    if any("\0" in text for text in (*command.argv, *command.environment.values())):
        yield Problem(path=path, message="holds a NUL character")
    if sum(len(text.encode(errors="replace")) for text in command.argv) > limits.argument_bytes_max:
        yield Problem(path=f"{path}.argv", message=f"is longer than {limits.argument_bytes_max} bytes")
    for name in command.environment:
        if not _VARIABLE.fullmatch(name) or name.startswith("EDGEWISE_"):
            yield Problem(path=f"{path}.environment.{name}", message="is not a variable's name, or begins with EDGEWISE_")


def parameter_name_rules(path: str, name: str) -> Iterator[Problem]:
    """Yield what is wrong with a parameter's name."""
    if not _PARAMETER.fullmatch(name):
        yield Problem(path=path, message=f"{name!r} is not a parameter's name: letters, digits, '-', '_' and '.', at most 63 characters")


def _parameter(path: str, parameter: Parameter) -> Iterator[Problem]:
    numeric = parameter.type in {"integer", "number"}
    if not numeric and (parameter.minimum is not None or parameter.maximum is not None):
        yield Problem(path=path, message="minimum and maximum are for integers and numbers only")
    if parameter.choices and parameter.type != "string":
        yield Problem(path=f"{path}.choices", message="is for strings only")
    if parameter.minimum is not None and parameter.maximum is not None and parameter.minimum > parameter.maximum:
        yield Problem(path=f"{path}.minimum", message=f"{parameter.minimum} is greater than maximum, {parameter.maximum}")
    reason = None if parameter.default is None else _value_problem(parameter, parameter.default)
    if reason is not None:
        yield Problem(path=f"{path}.default", message=reason)


def _value_problem(parameter: Parameter, value: Scalar) -> str | None:
    kinds: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
    if not isinstance(value, kinds[parameter.type]) or (isinstance(value, bool) and parameter.type != "boolean"):
        return f"must be a {parameter.type}, is {value!r}" if parameter.type != "integer" else f"must be an integer, is {value!r}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    if isinstance(value, int | float) and parameter.minimum is not None and value < parameter.minimum:
        return f"{value} is less than the minimum, {parameter.minimum:g}"
    if isinstance(value, int | float) and parameter.maximum is not None and value > parameter.maximum:
        return f"{value} is greater than the maximum, {parameter.maximum:g}"
    if parameter.choices and value not in parameter.choices:
        return f"{value!r} is none of {', '.join(parameter.choices)}"
    return None
