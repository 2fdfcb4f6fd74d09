"""Why members of a rollout failed: what the view knows of those whose update ended, for `delivery/explain.py`."""

from collections.abc import Iterator
from typing import Final

from edgewise.controllers.members import Members
from edgewise.controllers.placements import request_for
from edgewise.controllers.rows import InstanceRow, RolloutRow, WorkloadRow
from edgewise.controllers.telling import trouble
from edgewise.controllers.view import FleetView
from edgewise.delivery.explain import Context, Member, explain
from edgewise.delivery.rollout import Standing
from edgewise.delivery.stages import pace_of
from edgewise.resources.quantity import whole
from edgewise.resources.rollout import Explanation

_WELL: Final = (Standing.SUCCEEDED, Standing.HELD)


def explanations_of(view: FleetView, row: WorkloadRow, rollout: RolloutRow, members: Members) -> tuple[Explanation, ...]:
    """Return the likely causes of a rollout's failures: as they were told before while no other number of members failed."""
    status = rollout.status
    if members.tally.failed == (status.members.failed if status.explanations else 0):
        return status.explanations
    request = request_for(view, row, rollout.spec.to_revision)
    if request is None:
        return explain(tuple(_ended(view, rollout, members)))
    memory = whole(request.resources.memory) if request.resources.memory is not None else 0
    variants = {variant.name: variant.size for variant in request.variants}
    return explain(tuple(_ended(view, rollout, members)), Context(variants=variants, memory=memory))


def _ended(view: FleetView, rollout: RolloutRow, members: Members) -> Iterator[Member]:
    deadline = pace_of(rollout.spec.strategy).device_deadline
    for standing in _WELL:
        for device in members.on(standing):
            yield _member(view, members.instances[device], failed=False)
    for device in members.on(Standing.FAILED):
        yield _member(view, members.instances[device], failed=True, deadline=deadline)


def _member(view: FleetView, instance: InstanceRow, *, failed: bool, deadline: str = "") -> Member:
    device, seen = instance.spec.device, instance.seen
    known = view.devices.get(device)
    message = seen.message or trouble(view, device) if failed else ""
    return Member(
        device=device,
        device_class=known.facts.device_class if known is not None else "",
        site=known.facts.site if known is not None else "",
        variant=instance.spec.variant,
        failed=failed,
        reason=seen.reason or f"not healthy within {deadline}" if failed else "",
        message=message,
    )
