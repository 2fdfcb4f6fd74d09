"""Running one command against the control plane of a context."""

import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from edgewise.client.fleet import Client

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. Ctrl-C cancels it and raises `KeyboardInterrupt`."""
    import asyncio

    return asyncio.run(work)


@asynccontextmanager
async def connected(context: str, namespace: str) -> "AsyncIterator[Client]":
    """Open a client for the named context (empty: the current one) and namespace (empty: the context's). Raises `Error`."""
    # httpx tries to import its own command line, and with it rich, click and pygments: a third of the time of a short command.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None stands for: cannot be imported
    from edgewise.client.fleet import Client

    async with Client.from_context(context, namespace=namespace) as client:
        yield client
