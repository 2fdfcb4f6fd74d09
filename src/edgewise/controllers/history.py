"""What is remembered of how well a device keeps up: outages and restarts, counted where they are noticed.

The event log cannot say it: it is bounded, and it names no device where many change at once.
"""

import msgspec

from edgewise.resources.device import DeviceHistory, DeviceStatus
from edgewise.resources.states import Connection


def connected(status: DeviceStatus, connection: Connection, seen: float, now: float) -> DeviceStatus:
    """Return `status` with another connection, an outage counted when it begins and its length when it ends. `seen`: its `last_seen`."""
    before = status.connection
    if before is connection:
        return msgspec.structs.replace(status, last_seen=seen)
    history = _begun(status.history, now)
    if connection is Connection.OFFLINE:
        history = msgspec.structs.replace(history, outages=history.outages + 1)
    elif before is Connection.OFFLINE and connection is Connection.ONLINE:
        # An outage that was not counted (a status of before the counting) has no length either.
        lasted = max(0.0, now - status.last_seen) if history.outages else 0.0
        history = msgspec.structs.replace(history, offline_seconds=history.offline_seconds + lasted)
    return msgspec.structs.replace(status, connection=connection, last_seen=seen, history=history)


def booted(status: DeviceStatus, boot_id: str, now: float) -> DeviceStatus:
    """Return `status` with the boot id that the device tells, a restart counted when it told another before."""
    if boot_id == status.boot_id:
        return status
    history = _begun(status.history, now)
    if status.boot_id:
        history = msgspec.structs.replace(history, restarts=history.restarts + 1)
    return msgspec.structs.replace(status, boot_id=boot_id, history=history)


def _begun(history: DeviceHistory, now: float) -> DeviceHistory:
    return history if history.since else msgspec.structs.replace(history, since=now)
