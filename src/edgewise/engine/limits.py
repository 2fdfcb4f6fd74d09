"""Every limit of the engine room, with its unit."""

import msgspec


class EngineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a device's engine, journal, outbox and installer. Times in seconds, sizes in bytes.

    Restarting: the first restart comes after `restart_delay_seconds`, every further one after twice as long, up to
    `restart_delay_seconds_max`; running for `stable_seconds` begins anew. More than `failures_max` failures in a row make an instance
    `Broken`. Fetching: as restarting, with jitter. Trials: more than `probation_crashes_max` crashes, or more than `recoveries_max`
    recoveries in the middle of a trial, fail it. An exclusive instance stops `exclusive_share` of its `lost_after_seconds` after the last
    contact, or `exclusive_grace_seconds` after a start of the agent that finds it running and no contact. A route that was not taken is
    told again
    after `route_retry_seconds`, then twice as long each time, up to `route_retry_seconds_max`.
    The journal is compacted once it holds more than `journal_compact_bytes` and `journal_compact_growth` times its last snapshot."""

    restart_delay_seconds: float = 1.0
    restart_delay_seconds_max: float = 60.0
    stable_seconds: float = 60.0
    failures_max: int = 8
    fetch_delay_seconds: float = 2.0
    fetch_delay_seconds_max: float = 300.0
    untrusted_delay_seconds: float = 60.0
    untrusted_delay_seconds_max: float = 900.0
    probation_crashes_max: int = 1
    recoveries_max: int = 3
    exclusive_share: float = 0.7
    exclusive_grace_seconds: float = 10.0
    stop_grace_seconds: float = 10.0
    stop_retry_seconds: float = 5.0
    activate_retry_seconds: float = 1.0
    activate_failures_max: int = 5
    route_retry_seconds: float = 1.0
    route_retry_seconds_max: float = 60.0
    remove_retry_seconds: float = 60.0
    storage_retry_seconds: float = 10.0
    probe_first_seconds: float = 0.05
    model_probe_seconds: float = 10.0
    model_start_seconds: float = 120.0
    message_chars_max: int = 500

    journal_bytes_max: int = 16_000_000
    journal_compact_bytes: int = 256_000
    journal_compact_growth: int = 4

    outbox_bytes_max: int = 20_000_000
    outbox_memory_bytes_max: int = 262_144
    outbox_alerts_bytes_max: int = 1_000_000
    outbox_status_bytes_max: int = 4_000_000
    outbox_events_bytes_max: int = 4_000_000
    outbox_telemetry_bytes_max: int = 16_000_000
    outbox_item_bytes_max: int = 512_000
    outbox_segment_bytes: int = 256_000
    outbox_reserve_numbers: int = 16

    report_items_max: int = 500
    report_bytes_max: int = 1_000_000

    install_files_max: int = 10_000
    install_bytes_max: int = 64_000_000_000
    install_chunk_bytes: int = 1_048_576
    install_reserve_bytes: int = 16_000_000
    install_sync_bytes: int = 33_554_432

    identity_bytes_max: int = 262_144


class LinkLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of how a device talks to the control plane, and of its loop. Times in seconds.

    A poll waits up to `poll_wait_seconds`, at least `poll_wait_seconds_min`. Without an answer for `offline_after_seconds` the control
    plane counts as out of reach. What is to be sent waits `coalesce_seconds` for what belongs with it. Back-off has full jitter between
    0 and min(max, first * 2^failures); `refused_backoff_seconds_max` is for devices whose identity was turned down. While the disk takes
    no records, up to `deferred_events_max` events wait and are offered again at growing intervals.

    A fetch resumes `fetch_resumes_max` times in a row after pauses with full jitter, unless it is asked to come back later than in
    `fetch_patience_seconds_max`. A certificate's age is looked at `renew_first_seconds` after the start and every `renew_check_seconds`,
    and after `renew_retry_seconds` where renewing failed or was forced. A device that was decommissioned waits `forget_seconds` at most for
    its last word to be taken."""

    poll_wait_seconds: float = 240.0
    poll_wait_seconds_min: float = 5.0
    offline_after_seconds: float = 20.0
    coalesce_seconds: float = 0.05
    backoff_first_seconds: float = 2.0
    backoff_seconds_max: float = 30.0
    refused_backoff_seconds_max: float = 300.0
    deferred_events_max: int = 1000
    storage_retry_seconds: float = 1.0
    storage_retry_seconds_max: float = 30.0
    fetch_resumes_max: int = 6
    fetch_pause_first_seconds: float = 0.5
    fetch_pause_seconds_max: float = 8.0
    fetch_patience_seconds_max: float = 30.0
    renew_first_seconds: float = 30.0
    renew_check_seconds: float = 24 * 3600.0
    renew_retry_seconds: float = 600.0
    forget_seconds: float = 600.0
