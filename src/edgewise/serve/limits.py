"""Every limit of the model server, with its unit."""

from typing import Final

import msgspec


class ServeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one model server.

    Bytes: `head_bytes_max` of request line and headers, `body_bytes_max` of one body, `framing_bytes_max` of chunk sizes, extensions and
    trailers around it, `buffered_bytes_max` of all bodies that are held at
    once, `answer_bytes_max` of the binary tensors of an answer, `compress_bytes_min` from which on answers are compressed for those who ask
    for it, `linger_bytes_max` read and thrown away after a refusal. Counts: `connections_max` open at once (others wait in the kernel's
    queue), `waiting_requests_max` for inference, `pipelined_requests_max` on one connection, `values_max` in all tensors of a request or
    answer that are JSON or BYTES, `tensors_max`, `rank_max`. Seconds: `request_seconds_max` from a request's first byte to its last,
    `write_seconds_max` for a client to take its answer, `idle_seconds_max` between requests, `spare_seconds` that a connection is left idle
    before it may be closed to make room for another, `drain_seconds` that idle connections are kept once a drain began,
    `terminate_seconds` the same after SIGTERM, `linger_seconds` for a client to close after the last answer, `retry_after_seconds`,
    `inline_seconds_max` that the loop may be held up by an inference that it expects to be so quick (0: never),
    `inline_shared_seconds_max` the same while several connections ask.

    A candidate beside the server: copies of requests that wait for it take at most `mirror_bytes_max` bytes, are at most
    `mirror_waiting_max`, and are given up after `mirror_seconds_max`; its thread for them ends after `mirror_idle_seconds` without one.
    Requests that it is to answer are at most `split_waiting_max` at once and are answered here after `split_seconds_max`; then none is
    relayed for `split_pause_seconds`, each time twice as long, up to `split_pause_seconds_max`. Numbers agree that differ by less than the
    share `agree_relative` of their mean size, plus `agree_absolute`.

    Batches: `batch_rows_max` of requests that waited at the same time and run together, in about `batch_seconds_max` at most.

    Measuring: `remembered_answers_max` with an id, that labels may still come for, of at most `remembered_rows_max` rows,
    `remembered_values_max` values and `request_id_chars_max` characters; `feedback_per_second_max` labels in the long run;
    `observations_per_second_max` answers whose distributions are looked at; `tell_seconds` between two summaries for the agent,
    `sketch_seconds` between two that hold sketches."""

    head_bytes_max: int = 16_384
    body_bytes_max: int = 16_777_216
    framing_bytes_max: int = 1_048_576
    buffered_bytes_max: int = 67_108_864
    answer_bytes_max: int = 67_108_864
    compress_bytes_min: int = 512
    linger_bytes_max: int = 67_108_864
    connections_max: int = 256
    waiting_requests_max: int = 64
    pipelined_requests_max: int = 16
    values_max: int = 2_000_000
    tensors_max: int = 64
    rank_max: int = 8
    request_seconds_max: float = 30.0
    write_seconds_max: float = 30.0
    idle_seconds_max: float = 300.0
    spare_seconds: float = 0.5
    drain_seconds: float = 4.0
    terminate_seconds: float = 1.0
    linger_seconds: float = 2.0
    retry_after_seconds: int = 1
    inline_seconds_max: float = 0.010
    inline_shared_seconds_max: float = 0.001
    batch_rows_max: int = 32
    batch_seconds_max: float = 0.02
    mirror_bytes_max: int = 8_388_608
    mirror_waiting_max: int = 16
    mirror_seconds_max: float = 10.0
    mirror_idle_seconds: float = 30.0
    split_waiting_max: int = 16
    split_seconds_max: float = 5.0
    split_pause_seconds: float = 1.0
    split_pause_seconds_max: float = 60.0
    agree_relative: float = 0.01
    agree_absolute: float = 1e-6
    remembered_answers_max: int = 20_000
    remembered_rows_max: int = 64
    remembered_values_max: int = 1024
    request_id_chars_max: int = 256
    feedback_per_second_max: int = 200
    observations_per_second_max: int = 20
    tell_seconds: float = 15.0
    sketch_seconds: float = 600.0


LIMITS: Final = ServeLimits()
