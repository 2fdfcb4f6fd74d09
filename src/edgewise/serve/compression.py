"""Bodies compressed with gzip or deflate, within bounds: a few bytes never become more than the limit allows."""

import zlib
from typing import Final

from edgewise.serve.answers import Answer, problem
from edgewise.serve.limits import ServeLimits

_GZIP, _ZLIB, _RAW = 31, 15, -15
_LEVEL: Final = 1  # on a device the processor is scarcer than loopback's bandwidth


def inflate(body: bytes, encoding: str, limits: ServeLimits) -> bytes | Answer:
    """Return the body as it was before it was compressed, or the answer that it cannot be had (400, 413)."""
    limit = limits.body_bytes_max
    stream = zlib.decompressobj(_GZIP if encoding in {"gzip", "x-gzip"} else _ZLIB if _has_zlib_head(body) else _RAW)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        return problem(400, f"the body is not what its content-encoding says: {encoding}")
    if len(plain) > limit or stream.unconsumed_tail:
        return problem(413, f"the body has more than {limit} bytes once it is not compressed")
    if not stream.eof or stream.unused_data:
        return problem(400, f"the body is cut short, or goes on behind its {encoding} data")
    return plain


def deflate(body: bytes, encoding: str) -> bytes:
    """Return the body compressed."""
    return zlib.compress(body, _LEVEL, _GZIP if encoding == "gzip" else _ZLIB)


def chosen_encoding(accepted: str) -> str:
    """Return what to compress an answer with for an `Accept-Encoding`; empty: nothing. That is the only one of gzip and deflate that the
    client names, as those do that want it, or the better one when it does not take an answer as it is. A client that lists several takes
    whatever there is, and over loopback that is quickest uncompressed. Source: RFC 9110, 12.5.3."""
    if not accepted:
        return ""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(",")[:16]:
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    ours = [name for name in ("gzip", "deflate") if weights.get(name, 0.0) > 0]
    named = [name for name, weight in weights.items() if weight > 0 and name not in {"identity", "*"}]
    wants_plain = weights.get("identity", weights.get("*", 1.0)) > 0
    if ours and (not wants_plain or (len(named) == 1 and weights[ours[0]] >= weights.get("identity", 0.0))):
        return max(ours, key=lambda name: weights[name])
    return ""


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0


def _has_zlib_head(body: bytes) -> bool:
    """Whether this begins as zlib's format does: what deflate means, though some send the bare stream. Source: RFC 1950, 2.2."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
