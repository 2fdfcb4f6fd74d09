"""Every limit of the agent, with its unit."""

from typing import Final

from edgewise.engine.limits import LinkLimits


class AgentLimits(LinkLimits, frozen=True, kw_only=True):
    """Bounds of the resident agent and its short-lived helpers. Times in seconds, sizes in bytes."""

    # HTTP
    head_bytes_max: int = 16 * 1024
    error_bytes_max: int = 16 * 1024
    desired_bytes_max: int = 8 * 1024 * 1024
    report_answer_bytes_max: int = 64 * 1024
    enrolment_bytes_max: int = 256 * 1024
    manifest_bytes_max: int = 4 * 1024 * 1024
    chunk_bytes: int = 1024 * 1024
    connect_seconds: float = 15.0
    read_seconds: float = 30.0
    request_seconds: float = 120.0
    idle_connection_seconds: float = 30.0
    keepalive_idle_seconds: int = 120
    retry_after_seconds_max: float = 3600.0

    # downlink
    poll_margin_seconds: float = 30.0

    # threads
    workers_max: int = 6
    fetches_max: int = 2
    worker_idle_seconds: float = 5.0

    # fetch process
    fetch_line_bytes_max: int = 8 * 1024 * 1024
    fetch_silence_seconds: float = 120.0
    fetch_seconds_max: float = 6 * 3600.0
    renew_seconds_max: float = 120.0

    # housekeeping
    inventory_seconds: float = 600.0
    watchdog_seconds: float = 60.0
    stuck_seconds: float = 300.0
    status_seconds: float = 10.0
    status_soon_seconds: float = 1.0
    log_repeat_seconds: float = 60.0

    # log streams
    streams_max: int = 4
    stream_tail_bytes_max: int = 1024 * 1024
    stream_seconds_max: float = 3600.0
    stream_poll_seconds: float = 0.5

    thread_stack_bytes: int = 256 * 1024


LIMITS: Final = AgentLimits()
