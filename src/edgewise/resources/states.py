"""The words for states. They are binding in code, on the wire, in the command line and in the documentation."""

from enum import StrEnum


class AgentLifecycle(StrEnum):
    """Where an agent's enrolment stands."""

    PENDING_APPROVAL = "PendingApproval"
    ENROLLED = "Enrolled"
    REVOKED = "Revoked"
    DECOMMISSIONED = "Decommissioned"


class Connection(StrEnum):
    """Whether the control plane hears from a device. `AwaitingReconnect`: not heard of since the control plane itself started."""

    ONLINE = "Online"
    OFFLINE = "Offline"
    AWAITING_RECONNECT = "AwaitingReconnect"


class Health(StrEnum):
    """How a device fares, by its own account."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    ERROR = "Error"
    UNKNOWN = "Unknown"


class DeviceUpdate(StrEnum):
    """Whether a device runs what it should."""

    UP_TO_DATE = "UpToDate"
    OUT_OF_DATE = "OutOfDate"
    UPDATING = "Updating"
    UNKNOWN = "Unknown"


class InstanceState(StrEnum):
    """What an instance's process does. `Broken`: it failed too often and is left alone until something changes."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    ERRORED = "Errored"
    BROKEN = "Broken"


class UpdateState(StrEnum):
    """Where an instance's update stands on the device."""

    IDLE = "Idle"
    DOWNLOAD = "Download"
    VERIFY = "Verify"
    INSTALL = "Install"
    PROBATION = "Probation"
    COMMIT = "Commit"
    ROLLBACK = "Rollback"
    FAILED = "Failed"


class RolloutState(StrEnum):
    """Where a rollout stands."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    SUCCEEDED = "Succeeded"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"


class MemberState(StrEnum):
    """Where one device stands in a rollout. `Unreached`: offline; it neither fails nor blocks a wave."""

    PENDING = "Pending"
    UPDATING = "Updating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNREACHED = "Unreached"


class AnalysisState(StrEnum):
    """The verdict on a wave. `Failed` rolls back, `Inconclusive` and `Error` pause."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
