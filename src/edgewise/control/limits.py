"""Every limit of the control plane process, in one place."""

from typing import Final

import msgspec

from edgewise.controllers.limits import GATEWAY


class ControlLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the control plane process. Sizes in bytes, times in seconds.

    Device gateway: `connections_max` in all, of which `anonymous_connections_max` without a client certificate (they may only join and
    renew). A TLS handshake is done within `handshake_seconds` of its beginning. `head_bytes_max` bounds a request's line and headers. A
    request must be whole `request_seconds` after its first byte, and a connection without one is closed after `idle_seconds`
    (`anonymous_idle_seconds` without a certificate). A silent one is probed after `keepalive_idle_seconds`, then every
    `keepalive_interval_seconds`, and given up after `keepalive_give_up_seconds`. After a refusal in the middle of a body, up to
    `linger_bytes_max` more are taken and forgotten within `linger_seconds`. `reports_in_flight_max` and `report_bytes_in_flight_max`
    bound what waits for its commit, `reports_waiting_max` those of one agent behind each other; `report_body_bytes_max` is what
    travels, `report_decoded_bytes_max` what it may become when unpacked. `answer_conflicts_max`: how often a request is decided anew
    because something changed in between. A poll waits `poll_seconds_default` unless it asks for less, and `poll_seconds_max` at most.
    `joins_in_flight_max` bounds joins and renewals that are worked on at a time (each signs a certificate). A 503 or 429 asks to come
    back after `retry_seconds_min` to `retry_seconds_max`, at random.

    Blobs: `transfers_max` downloads at a time, of which `transfer_readers_max` read or send a piece of `transfer_chunk_bytes` at the same
    moment; a receiver that takes no piece for `transfer_stall_seconds` is dropped; `transfer_bytes_per_second` shapes all together
    (None: no limit). `upload_bytes_max` bounds one blob.

    Streams: `streams_max` at a time, `stream_open_seconds` for the device to open one, `stream_seconds_max` for one in all,
    `stream_buffer_bytes` held between device and operator, `stream_tail_lines_max` lines asked for.

    Operator API: `api_body_bytes_max` for a resource, `release_body_bytes_max` for a release, `watches_max` at a time,
    `watch_bookmark_seconds` between bookmarks, `list_items_max` per page, `events_max` per answer, `token_seconds_max` for the life of a
    token, `join_token_uses_max`. The first admin token lives `first_token_seconds`.

    Process: certificates of the servers live `server_certificate_seconds` and are made anew after half of that;
    `repository_check_seconds` between looks at expiring metadata; `liveness_flush_seconds` between grouped writes of who was heard;
    `shutdown_seconds` for requests under way when the process is told to end; `store_compact_seconds` between compactions that keep
    `changes_kept` changes; `reconcile_pause_seconds` between two rounds of the controllers; `deleted_kept` documents are remembered after
    their deletion, for those who watch.
    """

    connections_max: int = 16_000
    anonymous_connections_max: int = 1_000
    handshake_seconds: float = 30.0
    head_bytes_max: int = 16_384
    request_seconds: float = 30.0
    idle_seconds: float = 330.0
    anonymous_idle_seconds: float = 15.0
    keepalive_idle_seconds: int = 45
    keepalive_interval_seconds: int = 10
    keepalive_give_up_seconds: int = 30
    linger_bytes_max: int = 16_000_000
    linger_seconds: float = 5.0
    reports_in_flight_max: int = GATEWAY.reports_in_flight_max
    report_bytes_in_flight_max: int = 32_000_000
    reports_waiting_max: int = GATEWAY.reports_waiting_max
    report_body_bytes_max: int = 1_048_576
    report_decoded_bytes_max: int = 4_194_304
    enrolment_body_bytes_max: int = 65_536
    enrolments_in_flight_max: int = GATEWAY.enrolments_in_flight_max
    answer_conflicts_max: int = GATEWAY.answer_conflicts_max
    poll_seconds_default: float = 240.0
    poll_seconds_max: float = GATEWAY.poll_seconds_max
    retry_seconds_min: float = GATEWAY.retry_seconds_min
    retry_seconds_max: float = GATEWAY.retry_seconds_max

    transfers_max: int = GATEWAY.transfers_max
    transfer_readers_max: int = 2
    transfer_chunk_bytes: int = 262_144
    transfer_stall_seconds: float = 60.0
    transfer_bytes_per_second: float | None = None
    upload_bytes_max: int = 20_000_000_000

    streams_max: int = 64
    stream_open_seconds: float = 20.0
    stream_seconds_max: float = 3_600.0
    stream_buffer_bytes: int = 262_144
    stream_tail_lines_max: int = 10_000

    api_body_bytes_max: int = 1_500_000
    release_body_bytes_max: int = 12_000_000
    watches_max: int = 200
    watch_bookmark_seconds: float = 15.0
    list_items_default: int = 500
    list_items_max: int = 1_000
    events_max: int = 1_000
    token_seconds_max: float = 5 * 365 * 86_400.0
    join_token_seconds_default: float = 600.0
    join_token_uses_max: int = 100_000
    access_token_seconds_default: float = 90 * 86_400.0
    first_token_seconds: float = 365 * 86_400.0

    server_certificate_seconds: float = 90 * 86_400.0
    repository_check_seconds: float = 600.0
    liveness_flush_seconds: float = GATEWAY.liveness_flush_seconds
    shutdown_seconds: float = 5.0
    store_compact_seconds: float = 600.0
    reconcile_pause_seconds: float = GATEWAY.reconcile_pause_seconds
    deleted_kept: int = 2_000
    changes_kept: int = 50_000


LIMITS: Final = ControlLimits()
