"""Where the control plane is and how to speak to it: named contexts in one file that only its user can read.

The file is `~/.config/edgewise/contexts.json` (or under `$XDG_CONFIG_HOME`), or what `$EDGEWISE_CONFIG` says. It holds bearer tokens, so
it is written with mode 0600, replaced atomically, and refused when others can read it.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from edgewise.client.errors import ContextError
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.meta import DEFAULT_NAMESPACE

FILE_BYTES_MAX: Final = 1_000_000


class Context(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One control plane as one user sees it. `address` is `https://HOST:PORT` of the operator API, `authority` the pinned root certificate
    in PEM. `signing_key` is the path of the release key that `artifact push` signs with."""

    address: str
    token: str
    authority: str
    namespace: str = DEFAULT_NAMESPACE
    signing_key: str = ""

    def __repr__(self) -> str:
        return f"Context(address={self.address!r}, namespace={self.namespace!r}, token=…)"


class Contexts(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All contexts of a user, and the name of the one in use."""

    current: str = ""
    contexts: dict[str, Context] = {}
    version: int = 1


def contexts_path(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the contexts are kept."""
    environment = os.environ if environment is None else environment
    if environment.get("EDGEWISE_CONFIG"):
        return Path(environment["EDGEWISE_CONFIG"]).expanduser()
    base = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "edgewise" / "contexts.json"


def read_contexts(path: Path) -> Contexts:
    """Return the contexts in `path`; none when there is no such file. Raises `ContextError` when others can read it or it is damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ContextError(f"{path} cannot be read: {error.strerror}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise ContextError(f"{path} is not a file")
    with os.fdopen(descriptor, "rb") as file:
        if mode & 0o077:
            raise ContextError(f"{path} holds tokens and can be read by others (mode {stat.S_IMODE(mode):04o}): type chmod 600 {path}")
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ContextError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    try:
        contexts = msgspec.json.decode(data, type=Contexts)
    except UNREADABLE:
        raise ContextError(f"{path} is damaged: remove it, then add the context again with edgewise context add") from None
    if contexts.version != 1:
        raise ContextError(f"{path} was written by a newer edgewise (version {contexts.version})")
    return contexts


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Replace `path`, atomically and readable by its user only. Raises `ContextError`."""
    text = msgspec.json.format(msgspec.json.encode(contexts), indent=2)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".contexts-", dir=path.parent)  # mode 0600
    except OSError as error:
        raise ContextError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise ContextError(f"{path} cannot be written: {error.strerror}") from None


def choose_context(contexts: Contexts, name: str = "") -> tuple[str, Context]:
    """Return the context called `name`, or the current one. Raises `ContextError` when there is none."""
    wanted = name or contexts.current
    if not contexts.contexts:
        raise ContextError("no context yet: type edgewise up to start a control plane, or edgewise context add to name one")
    if not wanted:
        raise ContextError(f"no context is in use: type edgewise context use with one of {', '.join(sorted(contexts.contexts))}")
    context = contexts.contexts.get(wanted)
    if context is None:
        raise ContextError(f"there is no context {wanted!r}; there are {', '.join(sorted(contexts.contexts))}")
    return wanted, context
