"""A disk in memory that forgets what was not synced, and that loses power at a chosen operation.

Every node keeps two contents: what a program sees, and what is on the platter. `crash` makes the disk that a device finds after the power
came back, in one of several ways that the port's contract allows.
"""

import enum
import hashlib
from collections.abc import Iterator

from edgewise.ports.files import Damaged, Entry, FilesError, Full, Missing, PathRefused, ReadOnly

_ENDLESS = 1 << 40


class PowerCut(BaseException):
    """The power is gone: no operation works any more. Not an `Exception`, because no code may handle it."""


class Crash(enum.Enum):
    """What a power cut leaves of what was not synced."""

    ALL = "all of it"
    DROPPED = "none of it"
    TORN = "half of each append"
    GARBAGE = "garbage of its length"
    NAMES_DROPPED = "the contents but not the names"
    CONTENTS_DROPPED = "the names but not the contents"


class Node:
    """A file or a folder. `seen` and `names` are what programs see, `kept` and `kept_names` what is on the platter."""

    def __init__(self, *, folder: bool, mode: int = 0o600) -> None:
        self.folder, self.mode = folder, mode
        self.seen = bytearray()
        self.kept = b""
        self.names: dict[str, Node] = {}
        self.kept_names: dict[str, Node] = {}
        self.home: tuple[Node, str] | None = None


class SimDisk:
    """`Files` in memory. `cut_after`: the power goes once that many changing operations were done. `fail_at`/`fail_with`: the operation of
    that number (1 is the first), and with `fail_on` all that follow, raise this error instead; a failed append leaves half of its data."""

    def __init__(self, root: Node | None = None, capacity: int = _ENDLESS) -> None:
        self.root = root or Node(folder=True)
        self.capacity = capacity
        self.operations = 0
        self.cut_after: int | None = None
        self.fail_at: int | None = None
        self.fail_on = False
        self.fail_with: type[FilesError] = Full
        self.dead = False
        self.trace: list[str] = []

    # ---- cuts and faults ----

    def _change(self, what: str, path: str) -> bool:
        """Count one changing operation. Returns whether it must fail."""
        self._alive()
        if self.cut_after is not None and self.operations >= self.cut_after:
            self.dead = True
            raise PowerCut(f"before operation {self.operations + 1}: {what} {path}")
        self.operations += 1
        self.trace.append(f"{what} {path}")
        return self.fail_at is not None and (self.operations == self.fail_at or (self.fail_on and self.operations > self.fail_at))

    def _fail_if(self, failing: bool, path: str) -> None:
        if failing:
            raise self.fail_with(path, "made to fail")

    def _alive(self) -> None:
        if self.dead:
            raise PowerCut("the power is gone")

    def crash(self, how: Crash) -> "SimDisk":
        """Return the disk as it is found after the power came back."""
        return SimDisk(_after(self.root, how), self.capacity)

    def copy(self) -> "SimDisk":
        """Return an equal disk that goes its own way from here, with power."""
        other = SimDisk(_copy(self.root, {}), self.capacity)
        other.operations, other.trace = self.operations, list(self.trace)
        return other

    def fingerprint(self) -> bytes:
        """Return what tells two disks apart."""
        digest = hashlib.sha256()
        _digest(self.root, digest)
        return digest.digest()

    def settled(self) -> bool:
        """Whether nothing is unsynced."""
        return self.crash(Crash.ALL).fingerprint() == self.crash(Crash.DROPPED).fingerprint()

    # ---- reading ----

    def read(self, path: str, limit: int) -> bytes:
        data = self.read_at(path, 0, limit + 1)
        if len(data) > limit:
            raise Damaged(path, f"more than {limit} bytes")
        return data

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        self._alive()
        node = self._node(path)
        if node is None:
            raise Missing(path, "no such file")
        if node.folder:
            raise PathRefused(path, "a folder")
        return bytes(node.seen[offset : offset + size])

    def list(self, folder: str) -> tuple[Entry, ...]:
        self._alive()
        node = self._node(folder)
        if node is None or not node.folder:
            return ()
        found = [Entry(name=name, kind="folder" if one.folder else "file", size=len(one.seen)) for name, one in node.names.items()]
        return tuple(sorted(found, key=lambda entry: entry.name))

    def free_bytes(self) -> int:
        self._alive()
        if self.capacity >= _ENDLESS:
            return self.capacity
        return max(0, self.capacity - self.used_bytes())

    # ---- changing ----

    def make_folder(self, path: str) -> None:
        self._alive()
        node = self.root
        for part in _parts(path):
            inner = node.names.get(part)
            if inner is None:
                self._fail_if(self._change("make_folder", path), path)
                inner = Node(folder=True, mode=0o700)
                node.names[part] = node.kept_names[part] = inner
            if not inner.folder:
                raise PathRefused(path, "a file is in the way")
            node = inner

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        folder, name = self._parent(path)
        self._fail_if(self._change("replace", path), path)
        self._room(path, len(data))
        node = Node(folder=False, mode=mode)
        node.seen, node.kept = bytearray(data), bytes(data)
        folder.names[name] = folder.kept_names[name] = node

    def appender(self, path: str, mode: int = 0o600) -> "SimAppender":
        self._alive()
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is None:
            self._fail_if(self._change("create", path), path)
            node = folder.names[name] = Node(folder=False, mode=mode)
        node.home = (folder, name)
        if node.folder:
            raise PathRefused(path, "a folder")
        return SimAppender(self, path, node)

    def rename(self, source: str, target: str) -> None:
        old, old_name = self._parent(source)
        new, new_name = self._parent(target)
        node = old.names.get(old_name)
        if node is None:
            raise Missing(source, "no such file")
        there = new.names.get(new_name)
        if there is not None and there.folder and there.names:
            raise PathRefused(target, "a folder that is not empty")
        self._fail_if(self._change("rename", f"{source} -> {target}"), source)
        del old.names[old_name]
        old.kept_names.pop(old_name, None)
        new.names[new_name] = new.kept_names[new_name] = node
        node.home = (new, new_name)

    def sync_folder(self, path: str) -> None:
        node = self._node(path)
        if node is None:
            raise Missing(path, "no such folder")
        self._fail_if(self._change("sync_folder", path), path)
        node.kept_names = dict(node.names)

    def remove(self, path: str) -> None:
        self._alive()
        try:
            folder, name = self._parent(path)
        except Missing:
            return
        self._remove(folder, name, path)

    def _remove(self, folder: Node, name: str, path: str) -> None:
        node = folder.names.get(name)
        if node is None:
            return
        for inner in list(node.names):
            self._remove(node, inner, f"{path}/{inner}")
        self._fail_if(self._change("remove", path), path)
        del folder.names[name]

    # ---- inside ----

    def _node(self, path: str) -> Node | None:
        self._alive()
        node = self.root
        for part in _parts(path):
            inner = node.names.get(part)
            if inner is None:
                return None
            node = inner
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        *above, name = _parts(path)
        folder = self._node("/".join(above))
        if folder is None:
            raise Missing(path, "no such folder")
        return folder, name

    def used_bytes(self) -> int:
        return sum(len(node.seen) for node in _all(self.root))

    def _room(self, path: str, more: int) -> None:
        if self.capacity < _ENDLESS and more > self.free_bytes():
            raise Full(path, "no room left")


class SimAppender:
    """See `Appender`."""

    def __init__(self, disk: SimDisk, path: str, node: Node) -> None:
        self._disk, self._path, self._node = disk, path, node
        self._failed = False

    @property
    def size(self) -> int:
        return len(self._node.seen)

    def append(self, data: bytes) -> None:
        failing = self._disk._change("append", self._path)
        if failing:
            self._node.seen += data[: len(data) // 2]
        self._disk._fail_if(failing, self._path)
        self._disk._room(self._path, len(data))
        self._node.seen += data

    def sync(self) -> None:
        if self._failed:
            raise AssertionError(f"{self._path}: sync was called again after it failed")
        self._failed = self._disk._change("sync", self._path)
        self._disk._fail_if(self._failed, self._path)
        self._node.kept = bytes(self._node.seen)
        folder, name = self._node.home
        if folder.names.get(name) is self._node:
            folder.kept_names[name] = self._node

    def truncate(self, size: int) -> None:
        self._disk._fail_if(self._disk._change("truncate", self._path), self._path)
        del self._node.seen[size:]

    def close(self) -> None:
        return


def _parts(path: str) -> list[str]:
    parts = path.split("/") if path else []
    if any(part in {"", ".", ".."} for part in parts):
        raise PathRefused(path, "not a path inside the data folder")
    return parts


def _copy(node: Node, done: dict[int, Node]) -> Node:
    if id(node) not in done:
        other = done[id(node)] = Node(folder=node.folder, mode=node.mode)
        other.seen, other.kept = bytearray(node.seen), node.kept
        other.names = {name: _copy(inner, done) for name, inner in node.names.items()}
        other.kept_names = {name: _copy(inner, done) for name, inner in node.kept_names.items()}
    return done[id(node)]


def _all(node: Node) -> Iterator[Node]:
    yield node
    for inner in node.names.values():
        yield from _all(inner)


def _after(node: Node, how: Crash) -> Node:
    after = Node(folder=node.folder, mode=node.mode)
    if node.folder:
        names = node.kept_names if how in {Crash.DROPPED, Crash.NAMES_DROPPED} else node.names
        after.names = {name: _after(inner, how) for name, inner in names.items()}
        after.kept_names = dict(after.names)
        return after
    after.kept = _content(node, how)
    after.seen = bytearray(after.kept)
    return after


def _content(node: Node, how: Crash) -> bytes:
    seen, kept = bytes(node.seen), node.kept
    grown = len(seen) > len(kept) and seen.startswith(kept)
    match how:
        case Crash.ALL | Crash.NAMES_DROPPED:
            return seen
        case Crash.TORN if grown:
            return kept + seen[len(kept) : (len(kept) + len(seen)) // 2]
        case Crash.GARBAGE if grown:
            return kept + hashlib.shake_128(seen).digest(len(seen) - len(kept))
        case _:
            return kept


def _digest(node: Node, digest: "hashlib._Hash") -> None:
    digest.update(b"D" if node.folder else b"F" + len(node.seen).to_bytes(8, "big") + bytes(node.seen))
    for name in sorted(node.names):
        digest.update(name.encode() + b"\0")
        _digest(node.names[name], digest)
    digest.update(b"/")


__all__ = ["Crash", "Damaged", "Full", "PowerCut", "ReadOnly", "SimDisk"]
