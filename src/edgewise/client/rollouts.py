"""Waiting for a rollout to end."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgewise.client.errors import TimedOut, Unreachable
from edgewise.resources.rollout import Rollout
from edgewise.resources.states import RolloutState
from edgewise.resources.workload import Workload

if TYPE_CHECKING:
    from edgewise.client.fleet import Client

FINAL: Final = frozenset({RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED})
"""States that a rollout never leaves."""


async def wait_for_rollout(
    client: "Client", workload: str, seconds: float, namespace: str | None, on_change: Callable[[Rollout], None] | None
) -> Rollout:
    """See `Client.wait_rollout`."""
    last: Rollout | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                rollout = await _current(client, workload, namespace)
                if rollout is not None and rollout != last:
                    last = rollout
                    if on_change is not None:
                        on_change(rollout)
                if rollout is not None and rollout.status.state in FINAL:
                    return rollout
                await asyncio.sleep(client.limits.poll_seconds)
    except TimeoutError:
        state = "no rollout began" if last is None else f"it is {last.status.state.value}"
        raise TimedOut(f"the rollout of {workload} did not end within {seconds:g} s: {state}") from None


async def _current(client: "Client", workload: str, namespace: str | None) -> Rollout | None:
    """Return the rollout of the workload's newest revision, or None while the newest spec was not taken up or the control plane is away."""
    try:
        resource = await client.get(Workload, workload, namespace=namespace)
        if resource.status.observed_generation < resource.metadata.generation:
            return None
        history = await client.rollout_history(workload, namespace=namespace)
    except Unreachable:
        return None
    return next((each for each in reversed(history) if each.spec.to_revision == resource.status.revision), None)
