"""What a person may ask of a workload as a whole.

Verbs that change one document's spec (pause, label, decommission …) are the operator API's own compare-and-set.
"""

import msgspec

from edgewise.controllers.documents import audit, put_labelled, put_spec, put_status
from edgewise.controllers.rows import WorkloadKey
from edgewise.controllers.view import FleetView
from edgewise.store.contract import Transaction, Write


def clear_rejected(view: FleetView, workload: WorkloadKey, user: str, now: float) -> Transaction | None:
    """Return what lets the revisions that rollouts took back be tried again: the workload forgets them, and so do the devices that were
    told to refuse them. None: there is no such workload, or nothing to forget. Reconciling starts the rollout."""
    row = view.workloads.get(workload)
    if row is None or not row.status.rejected:
        return None
    writes: list[Write] = [put_status(row, msgspec.structs.replace(row.status, rejected=()))]
    for device, instance in sorted(view.members_of(workload).instances.items()):
        if not instance.spec.rejected:
            continue
        writes.append(put_spec(instance, msgspec.structs.replace(instance.spec, rejected=())))
        known = view.devices.get(device)
        if known is not None:
            cleared = msgspec.structs.replace(known.spec, cleared_refusals=known.spec.cleared_refusals + 1)
            writes.append(put_labelled(known, cleared))
    message = f"workload {workload[0]}/{workload[1]}: {', '.join(row.status.rejected)} may be tried again"
    return Transaction(now=now, writes=tuple(writes), events=(audit(now, user, "ClearRejected", message, row.key),))
