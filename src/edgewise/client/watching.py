"""Watches: server-sent events read line by line, opened anew where they broke off, without a gap."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final, Generic

import msgspec

from edgewise.client.answers import Change, Event, Listing, R, WatchEvent
from edgewise.client.connection import API, ClientLimits, Connection, Params, decode
from edgewise.client.errors import Refused, Unreachable

_GONE: Final = frozenset({"Compacted", "Gone", "Expired", "HTTP410"})


class Compacted(Exception):
    """The asked revision is too old to watch from: list again."""


async def server_events(chunks: AsyncIterator[bytes], limits: ClientLimits) -> AsyncIterator[bytes]:
    """Yield the data of each server-sent event. Comments and other fields are passed over. Raises `Refused` for lines beyond the limit."""
    data: list[bytes] = []
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > limits.line_bytes_max:
            raise Refused(f"a watch sent a line of more than {limits.line_bytes_max} bytes", "TooLarge")
        for line in lines:
            text = line.removesuffix(b"\r")
            if text.startswith(b"data:"):
                data.append(text[5:].removeprefix(b" "))
            elif not text and data:
                yield b"\n".join(data)
                data = []


class Lookout(msgspec.Struct, frozen=True, kw_only=True):
    """What to watch: a kind's path and type, and by what it is chosen."""

    path: str
    params: Params


async def watch_once(connection: Connection, lookout: Lookout, after: int, limits: ClientLimits) -> AsyncIterator[WatchEvent]:
    """Yield what one connection brings after the revision `after`. Raises `Compacted`, `Unreachable` when it breaks, `Error`."""
    params = {**lookout.params, "watch": "true", "after": str(after)}
    try:
        async with connection.stream(lookout.path, params, limits.watch_silence_seconds) as chunks:
            async for data in server_events(chunks, limits):
                event = decode(data, WatchEvent)
                if event.type == "ERROR":
                    raise _ended(decode(event.object, _WatchError))
                yield event
    except Refused as error:
        if error.reason in _GONE:
            raise Compacted from None
        raise


class _WatchError(msgspec.Struct, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


def _ended(error: _WatchError) -> Exception:
    return Compacted() if error.reason in _GONE else Unreachable(error.message or "the control plane ended the watch")


class Backoff:
    """How long to wait before a watch is opened anew, and when to give up."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._failures = 0
        self._since = 0.0

    def worked(self) -> None:
        """Something arrived."""
        self._failures = 0

    async def failed(self, error: Unreachable) -> None:
        """Wait; raise `error` when it has lasted too long."""
        now = time.monotonic()
        if self._failures == 0:
            self._since = now
        self._failures += 1
        if now - self._since > self._limits.reconnect_seconds:
            raise error
        await asyncio.sleep(min(0.1 * 2 ** min(self._failures, 6), 5.0))


async def watch_events(connection: Connection, params: Params, after: int, limits: ClientLimits) -> AsyncIterator[Event]:
    """Yield events with numbers above `after`, opened anew where it breaks off."""
    backoff = Backoff(limits)
    lookout = Lookout(path=f"{API}/events", params=params)
    while True:
        try:
            async for change in watch_once(connection, lookout, after, limits):
                backoff.worked()
                if change.type == "BOOKMARK":
                    after = max(after, change.revision)
                    continue
                event = decode(change.object, Event)
                after = max(after, event.number)
                yield event
        except Unreachable as error:
            await backoff.failed(error)
        else:
            await asyncio.sleep(limits.poll_seconds)


class Mirror(Generic[R]):
    """What a watch has seen so far, so that a new list can be told as changes."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], R] = {}

    def replaced(self, listing: Listing[R]) -> list[Change[R]]:
        """Return the changes from what was seen to `listing`."""
        now = {(each.metadata.namespace, each.metadata.name): each for each in listing.items}
        changes: list[Change[R]] = [
            Change(type="DELETED", resource=old, revision=listing.revision) for key, old in self._seen.items() if key not in now
        ]
        for key, each in now.items():
            old = self._seen.get(key)
            if old is None:
                changes.append(Change(type="ADDED", resource=each, revision=each.metadata.revision))
            elif old.metadata.revision != each.metadata.revision:
                changes.append(Change(type="MODIFIED", resource=each, revision=each.metadata.revision))
        self._seen = dict(now)
        return changes

    def changed(self, change: Change[R]) -> None:
        """Note a change that was passed on."""
        key = (change.resource.metadata.namespace, change.resource.metadata.name)
        if change.type == "DELETED":
            self._seen.pop(key, None)
        else:
            self._seen[key] = change.resource
