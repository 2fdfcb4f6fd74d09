"""Files and folders of the recording disk, and what a power cut makes of them.

A node holds what programs see and what is on the platter. Contents are immutable bytes, so that a copy of a disk costs little.
"""

import enum
import hashlib
from collections.abc import Callable, Iterator

from edgewise.twin.kernel import Stream


class Crash(enum.Enum):
    """What a power cut leaves of what was not synced. The values are the words of scenarios."""

    ALL = "all"
    """All of it: as if the program alone had been killed."""
    DROPPED = "dropped"
    """None of it."""
    TORN = "torn"
    """The first half of what each file grew by."""
    GARBAGE = "garbage"
    """Garbage of its length."""
    NAMES_DROPPED = "names-dropped"
    """The contents but not the names: what was made is gone, what was removed is back."""
    CONTENTS_DROPPED = "contents-dropped"
    """The names but not the contents."""
    REORDERED = "reordered"
    """The last write to each file but none before it: zeros where those would be."""
    MIXED = "mixed"
    """Every write and every name by a throw of its own."""

    @staticmethod
    def named(word: str, chance: Stream) -> "Crash":
        """Return the way of that name; for `any`, one that `chance` picks. Raises `ValueError`."""
        ways = tuple(Crash)
        return ways[chance.below(len(ways))] if word == "any" else Crash(word)


class Node:
    """A file or a folder. `seen` and `names` are what programs see, `kept` and `kept_names` what is on the platter. `low` is the length
    below which nothing changed since the last sync, `starts` where the writes since then begin, `lost` the spans that a failed sync
    left behind: programs see them, and no later sync brings them to the platter."""

    __slots__ = ("folder", "home", "kept", "kept_names", "lost", "low", "mode", "names", "seen", "starts")

    def __init__(self, *, folder: bool, mode: int = 0o600, content: bytes = b"") -> None:
        self.folder, self.mode = folder, mode
        self.seen = self.kept = content
        self.low = len(content)
        self.starts: tuple[int, ...] = ()
        self.lost: tuple[tuple[int, int], ...] = ()
        self.names: dict[str, Node] = {}
        self.kept_names: dict[str, Node] = {}
        self.home: tuple[Node, str] | None = None

    # ---- changing a file ----

    def write(self, data: bytes) -> None:
        """Append `data`, unsynced."""
        self.starts = (*self.starts, len(self.seen))
        self.seen += data

    def cut(self, size: int) -> None:
        """Truncate, or lengthen with zeros, unsynced."""
        self.seen = self.seen[:size].ljust(size, b"\0")
        self.low = min(self.low, size)
        self.starts = tuple(start for start in self.starts if start < size)
        self.lost = tuple((start, min(end, size)) for start, end in self.lost if start < size)

    def sync(self) -> None:
        """Bring the content to the platter, apart from what a failed sync lost."""
        kept = self.seen
        for start, end in self.lost:
            kept = kept[:start] + bytes(end - start) + kept[end:]
        self.kept, self.low, self.starts = kept, len(kept), ()

    def sync_fails(self) -> None:
        """Lose what was not synced: the system believes from here on that it is on the platter, and it is not."""
        if self.low < len(self.seen):
            self.lost = (*self.lost, (self.low, len(self.seen)))
        self.low, self.starts = len(self.seen), ()

    def rot(self, content: bytes) -> None:
        """Change the content at rest."""
        self.seen = self.kept = content
        self.low, self.starts, self.lost = len(content), (), ()


def copied(root: Node) -> Node:
    """Return an equal tree that goes its own way."""
    done: dict[Node, Node] = {}

    def copy(node: Node) -> Node:
        other = done.get(node)
        if other is None:
            other = done[node] = Node(folder=node.folder, mode=node.mode)
            other.seen, other.kept, other.low, other.starts, other.lost = node.seen, node.kept, node.low, node.starts, node.lost
            if node.folder:
                other.names = {name: copy(inner) for name, inner in node.names.items()}
                other.kept_names = {name: copy(inner) for name, inner in node.kept_names.items()}
        return other

    return copy(root)


def nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield every node that programs see, with its path, in the order of names."""
    yield path, node
    for name in sorted(node.names):
        yield from nodes(node.names[name], f"{path}/{name}" if path else name)


def fingerprint(root: Node) -> bytes:
    """Return what tells two trees apart, as programs see them."""
    parts: list[bytes] = []

    def add(node: Node) -> None:
        if node.folder:
            parts.append(b"D")
            for name in sorted(node.names):
                parts.append(name.encode() + b"\0")
                add(node.names[name])
            parts.append(b"/")
        else:
            parts.append(b"F%d:" % len(node.seen))
            parts.append(node.seen)

    add(root)
    return hashlib.sha256(b"".join(parts)).digest()


Look = tuple[tuple[str, bytes | None], ...]
"""A tree as programs see it: every path with its content, None for folders. Equal for equal trees."""


def platter(root: Node) -> tuple[object, ...]:
    """Return all there is, synced or not: what tells two disks apart while the power is on."""
    found: list[object] = []

    def add(node: Node, path: str) -> None:
        found.append((path, node.seen, node.kept, node.low, node.starts, node.lost))
        for name in sorted(node.names.keys() | node.kept_names.keys()):
            seen, kept = node.names.get(name), node.kept_names.get(name)
            if seen is not None:
                add(seen, f"{path}/{name}")
            if kept is not seen:
                found.append("kept")
                if kept is not None:
                    add(kept, f"{path}/{name}")

    add(root, "")
    return tuple(found)


def dirty(root: Node) -> tuple[bool, bool]:
    """Return whether contents, and whether names are unsynced."""
    contents = names = False
    left = [root]
    while left:
        node = left.pop()
        contents = contents or node.seen is not node.kept
        names = names or node.names != node.kept_names
        left.extend(node.names.values())
    return contents, names


def looks(root: Node, how: "Crash", chance: Stream) -> Look:
    """Return what is found after the power came back: as `after`, in short."""
    found: list[tuple[str, bytes | None]] = []
    content = _CONTENTS[how]

    def add(node: Node, path: str) -> None:
        for name, inner in _names(node, how, chance):
            below = f"{path}/{name}" if path else name
            if inner.folder:
                found.append((below, None))
                add(inner, below)
            else:
                found.append((below, content(_settled(inner) if inner.lost else inner, chance)))

    add(root, "")
    found.sort(key=lambda one: one[0])
    return tuple(found)


def built(look: Look) -> Node:
    """Return the tree that looks so, with everything on the platter."""
    folders = {"": Node(folder=True, mode=0o700)}
    for path, body in look:
        above, _, name = path.rpartition("/")
        node = Node(folder=True, mode=0o700) if body is None else Node(folder=False, content=body)
        folders[above].names[name] = folders[above].kept_names[name] = node
        if body is None:
            folders[path] = node
    return folders[""]


# ---- after a power cut ----


def after(root: Node, how: Crash, chance: Stream) -> Node:
    """Return the tree that is found after the power came back. Only `MIXED` draws from `chance`."""
    return built(looks(root, how, chance))


def _settled(node: Node) -> Node:
    """Return a file of which a part was lost, as the platter may ever see it: with zeros for that part."""
    other = Node(folder=False, mode=node.mode)
    other.seen = node.seen
    for start, end in node.lost:
        other.seen = other.seen[:start] + bytes(end - start) + other.seen[end:]
    other.kept, other.low, other.starts = node.kept, node.low, node.starts
    return other


def _names(node: Node, how: Crash, chance: Stream) -> Iterator[tuple[str, Node]]:
    match how:
        case Crash.DROPPED | Crash.NAMES_DROPPED:
            yield from node.kept_names.items()
        case Crash.MIXED:
            for name in sorted(node.names.keys() | node.kept_names.keys()):
                seen, kept = node.names.get(name), node.kept_names.get(name)
                inner = seen if seen is kept or chance.below(2) else kept
                if inner is not None:
                    yield name, inner
        case _:
            yield from node.names.items()


def _torn(node: Node, _: Stream) -> bytes:
    return node.seen[: (node.low + len(node.seen)) // 2] if _dirty(node) else node.kept


def _garbage(node: Node, _: Stream) -> bytes:
    if not _dirty(node):
        return node.kept
    return node.seen[: node.low] + hashlib.shake_128(node.seen).digest(len(node.seen) - node.low)


def _reordered(node: Node, _: Stream) -> bytes:
    if not _dirty(node) or not node.starts:
        return node.kept
    last = node.starts[-1]
    if last == node.low:
        last = (node.low + len(node.seen)) // 2  # one write is many pages
    return node.seen[: node.low] + bytes(last - node.low) + node.seen[last:]


def _mixed(node: Node, chance: Stream) -> bytes:
    """Return any subset of the writes, with zeros for those that are missing, ending anywhere."""
    if not _dirty(node) or not chance.below(4):
        return node.kept
    result = node.seen[: node.low]
    starts = sorted({node.low, *node.starts})
    for start, end in zip(starts, (*starts[1:], len(node.seen)), strict=True):
        piece = node.seen[start:end]
        result += piece if chance.below(2) else bytes(len(piece))
    return result if chance.below(2) else result[: node.low + chance.below(len(result) - node.low + 1)]


def _dirty(node: Node) -> bool:
    return node.seen != node.kept or node.low < len(node.kept)


_CONTENTS: dict[Crash, Callable[[Node, Stream], bytes]] = {
    Crash.ALL: lambda node, _: node.seen,
    Crash.DROPPED: lambda node, _: node.kept,
    Crash.TORN: _torn,
    Crash.GARBAGE: _garbage,
    Crash.NAMES_DROPPED: lambda node, _: node.seen,
    Crash.CONTENTS_DROPPED: lambda node, _: node.kept,
    Crash.REORDERED: _reordered,
    Crash.MIXED: _mixed,
}
