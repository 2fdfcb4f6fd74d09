"""Every limit of the control plane's decisions."""

from typing import Final

import msgspec


class ReportLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one report and of a join. Over `body_bytes_max`, `items_max` or `series_max` (all frames together) a report is refused
    with 413; longer texts than `message_characters_max` are cut; a frame's samples over `samples_bytes_max` are left out."""

    body_bytes_max: int = 1_000_000
    items_max: int = 2_000
    series_max: int = 5_000
    samples_bytes_max: int = 500_000
    message_characters_max: int = 2_000
    conditions_max: int = 50
    capacity_bytes_max: int = 16_000
    labels_max: int = 50


class LivenessLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. A device without an open poll is Offline `offline_after` its last contact. After a start of the control plane, a device not
    yet heard of is AwaitingReconnect after `awaiting_after` and Offline after `reconnect_window`. A device
    silent when its time for an update is over is asked for a sign of life every `asked_every`; once heard, it has `last_word` to tell
    how its update went."""

    offline_after_seconds: float = 20.0
    awaiting_after_seconds: float = 30.0
    reconnect_window_seconds: float = 120.0
    asked_every_seconds: float = 1.0
    last_word_seconds: float = 3.0


class ControllerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`transaction_writes_max` bounds one transaction, `decision_writes_max` all of one decision. Statuses that only count are written at
    most every `counts_interval_seconds`; changes of instances' statuses are looked at most every `settle_seconds`.
    `rollouts_kept` finished rollouts and `revisions_kept` unused revisions are kept per workload. A decommissioned device that is offline
    is given up after `decommission_wait_seconds`. A session that comes back `session_flips_max` times after another one was seen is
    a clone. A wave is compared with at most `controls_max` devices; of `stages_kept` waves the verdict is remembered. What was measured is
    kept at most every `evidence_interval_seconds`. Of at most `predictions_max` members of a rollout is kept what was predicted, and
    `riskiest_named_max` of them are named."""

    transaction_writes_max: int = 500
    decision_writes_max: int = 2_000
    counts_interval_seconds: float = 1.0
    settle_seconds: float = 0.1
    rollouts_kept: int = 10
    revisions_kept: int = 10
    touched_devices_named_max: int = 100
    failures_named_max: int = 10
    offline_events_named_max: int = 20
    decommission_wait_seconds: float = 60.0
    session_flips_max: int = 3
    controls_max: int = 24
    stages_kept: int = 12
    evidence_interval_seconds: float = 10.0
    rejected_kept: int = 20
    predictions_max: int = 20_000
    riskiest_named_max: int = 5


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of the room."""

    report: ReportLimits = ReportLimits()
    liveness: LivenessLimits = LivenessLimits()
    controllers: ControllerLimits = ControllerLimits()


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the shell around the decisions keeps to, in the process and in the twin alike (`ControlLimits` says more of each). Times in
    seconds."""

    reports_in_flight_max: int = 10_000
    reports_waiting_max: int = 2
    enrolments_in_flight_max: int = 64
    answer_conflicts_max: int = 5
    poll_seconds_max: float = 300.0
    retry_seconds_min: float = 1.0
    retry_seconds_max: float = 8.0
    transfers_max: int = 64
    reconcile_pause_seconds: float = 0.01
    liveness_flush_seconds: float = 5.0


GATEWAY: Final = GatewayLimits()
