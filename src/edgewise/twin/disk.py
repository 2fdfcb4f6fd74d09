"""A disk in memory that forgets what was not synced, fails as it is told to, and loses power at a chosen operation.

`crash` makes the disk that a device finds after the power came back, in each of the ways that the port's contract allows. Faults are
attributes that are set and cleared while a device runs. Nothing here is random: what a fault hits is drawn from a stream that the caller
gives.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from edgewise.ports.files import Damaged, Entry, Files, FilesError, Full, Missing, PathRefused, ReadOnly
from edgewise.twin._nodes import Crash, Node, after, copied, fingerprint, nodes
from edgewise.twin._paths import file_parts_of, parts_of
from edgewise.twin.kernel import Stream

__all__ = ["ENDLESS", "Crash", "PowerCut", "RecordingAppender", "RecordingDisk", "Rot", "TwinDisk"]

ENDLESS: Final = 1 << 40
"""The capacity of a disk that never fills, bytes."""
_TRACE_LINES_MAX: Final = 200


class PowerCut(BaseException):
    """The power is gone: no operation works any more. Not an `Exception`, because no code may handle it."""


class Rot(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file at rest: one bit of it turned (`bit` counts from its start), or it was cut to `bit // 8` bytes."""

    path: str
    cut: bool
    bit: int


class TwinDisk(Files, Protocol):
    """What the twin asks of a device's disk besides the port."""

    def crash(self, how: Crash, chance: Stream | None = None) -> "TwinDisk":
        """Return the disk as it is found after the power came back. `chance` is needed for `Crash.MIXED`."""
        ...

    def used_bytes(self) -> int:
        """Return how many bytes all files hold."""
        ...


class RecordingDisk:
    """`Files` in memory, every changing operation of which is counted.

    Faults: `full`, `read_only` and `broken` (reads and writes give an I/O error) hold while they are set; `failing_syncs` counts the next
    syncs of files that fail, and what they should have synced is lost (see `Node.lost`). `capacity` in bytes may change at any time.
    `cut_after`: the power goes once that many operations were done. `fail_at` and `fail_with`: the operation of that number (1 is the
    first), and with `fail_on` all that follow, raise this error instead; a failed append leaves half of its data. With
    `fail_late`, replacing and renaming are done for programs to see, and it is only their coming to the platter that fails.
    `watch` is called before every operation that changes something, when the disk is as a power cut would find it."""

    def __init__(self, root: Node | None = None, capacity: int = ENDLESS) -> None:
        self.root = root or Node(folder=True, mode=0o700)
        self.capacity = capacity
        self.full = self.read_only = self.broken = False
        self.failing_syncs = 0
        self.operations = 0
        self.cut_after: int | None = None
        self.fail_at: int | None = None
        self.fail_on = self.fail_late = False
        self.fail_with: type[FilesError] = Full
        self.dead = False
        self.watch: Callable[[str], None] | None = None
        self._moved: list[tuple[Node, str, Node]] = []
        self.trace: deque[str] = deque(maxlen=_TRACE_LINES_MAX)
        self.used = sum(len(node.seen) for _, node in nodes(self.root)) if root else 0

    # ---- power ----

    def power_off(self) -> None:
        """Take the power away: every further operation raises `PowerCut`."""
        self.dead = True

    def crash(self, how: Crash, chance: Stream | None = None) -> "RecordingDisk":
        """See `TwinDisk.crash`. This disk stays as it is, so that one cut can be looked at in every way. Faults are not inherited."""
        return RecordingDisk(after(self.root, how, chance or Stream(0)), self.capacity)

    def copy(self) -> "RecordingDisk":
        """Return an equal disk that goes its own way from here, with power and without faults."""
        other = RecordingDisk(None, self.capacity)
        other.root, other.used = copied(self.root), self.used
        other.operations, other.trace = self.operations, self.trace.copy()
        return other

    def fingerprint(self) -> bytes:
        """Return what tells two disks apart, as programs see them."""
        return fingerprint(self.root)

    def settled(self) -> bool:
        """Whether nothing is unsynced."""
        return self.crash(Crash.ALL).fingerprint() == self.crash(Crash.DROPPED).fingerprint()

    # ---- decay ----

    def rot(self, chance: Stream, below: str = "") -> Rot | None:
        """Turn one bit of a file below a folder, or cut the file short: `chance` picks which. Returns None when no file holds anything."""
        found = [(path, node) for path, node in nodes(self.root) if node.seen and (not below or path.startswith(f"{below}/"))]
        if not found:
            return None
        path, node = found[chance.below(len(found))]
        bit, cut = chance.below(8 * len(node.seen)), chance.chance(0.25)
        if cut:
            content = node.seen[: bit // 8]
        else:
            turned = bytearray(node.seen)
            turned[bit // 8] ^= 1 << bit % 8
            content = bytes(turned)
        self.used += len(content) - len(node.seen)
        node.rot(content)
        return Rot(path=path, cut=cut, bit=bit)

    # ---- reading ----

    def read(self, path: str, limit: int) -> bytes:
        """See `Files.read`."""
        data = self.read_at(path, 0, limit + 1)
        if len(data) > limit:
            raise Damaged(path, f"more than {limit} bytes")
        return data

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """See `Files.read_at`."""
        self._reading(path)
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is None:
            raise Missing(path, "no such file")
        if node.folder:
            raise PathRefused(path, "a folder")
        return node.seen[offset : offset + size]

    def list(self, folder: str) -> tuple[Entry, ...]:
        """See `Files.list`."""
        self._reading(folder)
        node = self._folder(parts_of(folder), folder)
        if node is None:
            return ()
        return tuple(
            Entry(name=name, kind="folder" if inner.folder else "file", size=len(inner.seen)) for name, inner in sorted(node.names.items())
        )

    def free_bytes(self) -> int:
        """See `Files.free_bytes`."""
        self._alive()
        return 0 if self.full else max(0, self.capacity - self.used)

    def used_bytes(self) -> int:
        """See `TwinDisk.used_bytes`."""
        return self.used

    def mode_of(self, path: str) -> int:
        """Return the mode that a file or folder was made with. Raises `Missing`."""
        folder, name = self._parent(path)
        if name not in folder.names:
            raise Missing(path, "no such file")
        return folder.names[name].mode

    # ---- changing ----

    def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        self._alive()
        node = self.root
        for part in parts_of(path):
            inner = node.names.get(part)
            if inner is None:
                self._change("make_folder", path)
                self._room(path, 1)
                inner = Node(folder=True, mode=0o700)
                node.names[part] = node.kept_names[part] = inner
            if not inner.folder:
                raise PathRefused(path, "a file is in the way")
            node = inner

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """See `Files.replace`. A power cut in the middle of it may leave a file `.NAME.new` behind, as on the real disk."""
        folder, name = self._parent(path)
        old = folder.names.get(name)
        if old is not None and old.folder:
            raise PathRefused(path, "a folder")
        self._take_away(folder, f".{name}.new")
        self._alive()
        under_way = folder.names[f".{name}.new"] = Node(folder=False, mode=mode)
        under_way.write(data)
        try:
            late = self._change("replace", path, may_be_late=True)
            self._room(path, len(data))
        except FilesError:
            del folder.names[f".{name}.new"]
            raise
        del folder.names[f".{name}.new"]
        self.used += len(data) - (len(old.seen) if old else 0)
        node = folder.names[name] = Node(folder=False, mode=mode, content=data)
        self._fail_late(late, path)
        folder.kept_names[name] = node

    def _take_away(self, folder: Node, name: str) -> None:
        left = folder.names.pop(name, None)
        folder.kept_names.pop(name, None)
        self.used -= len(left.seen) if left else 0

    def appender(self, path: str, mode: int = 0o600) -> "RecordingAppender":
        """See `Files.appender`."""
        self._reading(path)
        folder, name = self._parent(path)
        node = folder.names.get(name)
        made = node is None
        if node is None:
            self._change("create", path)
            self._room(path, 1)
            node = folder.names[name] = Node(folder=False, mode=mode)
        if node.folder:
            raise PathRefused(path, "a folder")
        if made:
            node.home = (folder, name)
        return RecordingAppender(self, path, node, made=made)

    def rename(self, source: str, target: str) -> None:
        """See `Files.rename`."""
        old, old_name = self._parent(source)
        new, new_name = self._parent(target)
        node = old.names.get(old_name)
        if node is None:
            raise Missing(source, "no such file")
        there = new.names.get(new_name)
        if there is node:
            return
        if there is not None and (there.folder != node.folder or there.names):
            raise PathRefused(target, "something else is in the way")
        if any(inner is new for _, inner in nodes(node)):
            raise PathRefused(target, "a folder does not go into itself")
        late = self._change("rename", f"{source} -> {target}", may_be_late=True)
        self.used -= len(there.seen) if there else 0
        del old.names[old_name]
        new.names[new_name] = node
        if late:
            self._moved.append((old, old_name, node))
        self._fail_late(late, source)
        old.kept_names.pop(old_name, None)
        new.kept_names[new_name] = node

    def sync_folder(self, path: str) -> None:
        """See `Files.sync_folder`."""
        self._alive()
        node = self._folder(parts_of(path), path)
        if node is None:
            raise Missing(path, "no such folder")
        self._change("sync_folder", path)
        node.kept_names = dict(node.names)
        for old, name, moved in self._moved:  # a rename comes to the platter as a whole
            if moved in node.names.values() and old.kept_names.get(name) is moved:
                del old.kept_names[name]

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
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
        self._change("remove", path)
        self.used -= len(node.seen)
        del folder.names[name]

    # ---- inside ----

    def _alive(self) -> None:
        if self.dead:
            raise PowerCut("the power is gone")

    def _reading(self, path: str) -> None:
        self._alive()
        if self.broken:
            raise Damaged(path, "made to fail")

    def _change(self, what: str, path: str, *, may_be_late: bool = False) -> bool:
        """Count one changing operation. Raises what it is to fail with, or returns True when it is to fail late."""
        self._alive()
        if self.watch is not None:
            self.watch(f"{what} {path}")
        if self.cut_after is not None and self.operations >= self.cut_after:
            self.dead = True
            raise PowerCut(f"before operation {self.operations + 1}: {what} {path}")
        self.operations += 1
        self.trace.append(f"{what} {path}")
        if self.broken:
            raise Damaged(path, "made to fail")
        if self.read_only:
            raise ReadOnly(path, "made to fail")
        if self.fail_at is None or (self.operations != self.fail_at and not (self.fail_on and self.operations > self.fail_at)):
            return False
        if may_be_late and self.fail_late:
            return True
        raise self.fail_with(path, "made to fail")

    def _fail_late(self, late: bool, path: str) -> None:
        if late:
            raise self.fail_with(path, "made to fail")

    def _room(self, path: str, more: int) -> None:
        if self.full or self.used + more > self.capacity:
            raise Full(path, "no room left")

    def _folder(self, parts: tuple[str, ...], path: str) -> Node | None:
        self._alive()
        node = self.root
        for part in parts:
            inner = node.names.get(part)
            if inner is None:
                return None
            if not inner.folder:
                raise PathRefused(path, "not a folder")
            node = inner
        return node

    def _parent(self, path: str) -> tuple[Node, str]:
        *above, name = file_parts_of(path)
        folder = self._folder(tuple(above), path)
        if folder is None:
            raise Missing(path, "no such folder")
        return folder, name


class RecordingAppender:
    """See `Appender`. Only the one that made a file brings its name to the platter: as on the real disk, a later one cannot know."""

    __slots__ = ("_disk", "_failed", "_made", "_node", "_path")

    def __init__(self, disk: RecordingDisk, path: str, node: Node, *, made: bool) -> None:
        self._disk, self._path, self._node, self._made = disk, path, node, made
        self._failed = False

    @property
    def size(self) -> int:
        """See `Appender.size`."""
        return len(self._node.seen)

    def append(self, data: bytes) -> None:
        """See `Appender.append`. What fits of it is there when the disk is full."""
        disk = self._disk
        try:
            disk._change("append", self._path)  # noqa: SLF001 - the two are one
        except FilesError:
            self._write(data[: len(data) // 2])
            raise
        room = disk.free_bytes()
        self._write(data[:room])
        if room < len(data):
            raise Full(self._path, "no room left")

    def _write(self, data: bytes) -> None:
        if data:
            self._node.write(data)
            self._disk.used += len(data)

    def sync(self) -> None:
        """See `Appender.sync`."""
        if self._failed:
            self._disk._alive()  # noqa: SLF001 - the two are one
            raise Damaged(self._path, "an earlier sync failed")
        try:
            self._disk._change("sync", self._path)  # noqa: SLF001 - the two are one
            if self._disk.failing_syncs:
                self._disk.failing_syncs -= 1
                raise Damaged(self._path, "made to fail")
        except FilesError:
            self._failed = True
            self._node.sync_fails()
            raise
        self._node.sync()
        folder, name = self._node.home or (None, "")
        if self._made and folder is not None and folder.names.get(name) is self._node:
            folder.kept_names[name] = self._node

    def truncate(self, size: int) -> None:
        """See `Appender.truncate`."""
        self._disk._change("truncate", self._path)  # noqa: SLF001 - the two are one
        self._disk.used += size - len(self._node.seen)
        self._node.cut(size)

    def close(self) -> None:
        """See `Appender.close`."""
