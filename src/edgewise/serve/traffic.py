"""What of its requests a server that serves passes on to the candidate beside it, and which ones.

Told by the agent (`PUT /traffic` on the control socket), at any time, as often as it likes. A request is in the share when its bucket, a
number
in [0, 1), is below it: so a share that grows only adds, and one that shrinks only takes away.
"""

import zlib
from typing import Annotated, Final

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.traffic import STICKY_PATTERN, TrafficMode
from edgewise.serve.answers import Answer, problem
from edgewise.serve.conversation import Request

_GOLDEN: Final = 0.6180339887498949
_WORD: Final = 0xFFFFFFFF


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /traffic`. `target` is the candidate's control socket, `revision` what it must run."""

    mode: TrafficMode
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    sticky: Annotated[str, msgspec.Meta(pattern=STICKY_PATTERN)] = ""
    target: Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^(/[^\x00]*)?$")] = ""
    revision: Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[A-Za-z0-9._:/+-]*$")] = ""


class _Named(msgspec.Struct):
    id: str = ""


_DECODER: Final = msgspec.json.Decoder(Order)
_ID_DECODER: Final = msgspec.json.Decoder(_Named)


def read_order(body: bytes) -> Order | Answer:
    """Read the body of `PUT /traffic`, or say what is wrong with it."""
    try:
        order = _DECODER.decode(body)
    except UNREADABLE as error:
        return problem(400, f"the body is no traffic: {error}")
    if order.mode != "none" and not (order.target and order.revision):
        return problem(400, f"the body is no traffic: {order.mode} needs `target` and `revision`")
    return order


class Chooser:
    """Says which requests are in the share. By the value of a header, by the request's id, or else evenly, one after the other."""

    def __init__(self, order: Order) -> None:
        self._share = order.share
        self._sticky = order.sticky.lower()
        self._revision = order.revision
        self._turn = 0.5

    def takes(self, request: Request, *, by_id: bool = True) -> bool:
        """Whether this request is in the share. `by_id`: requests with one id go the same way."""
        if self._share >= 1.0:
            return True
        if self._share <= 0.0:
            return False
        name = request.headers.get(self._sticky, "") if self._sticky else ""
        if not name and by_id:
            name = _id_of(request)
        if name:
            return bucket(self._revision, name) < self._share
        # Multiples of the golden ratio fall evenly into [0, 1), however few they are, and follow no rhythm of the clients.
        self._turn = (self._turn + _GOLDEN) % 1.0
        return self._turn < self._share


def bucket(revision: str, name: str) -> float:
    """Return where in [0, 1) a name falls: the same for each request, another for each candidate, so that no session is always the first to
    try what is new. CRC-32, mixed with the finaliser of MurmurHash3 (Appleby)."""
    mixed = zlib.crc32(f"{revision}\0{name}".encode("utf-8", "replace"))
    mixed ^= mixed >> 16
    mixed = mixed * 0x85EBCA6B & _WORD
    mixed ^= mixed >> 13
    mixed = mixed * 0xC2B2AE35 & _WORD
    mixed ^= mixed >> 16
    return mixed / (_WORD + 1)


def _id_of(request: Request) -> str:
    if request.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        return ""
    size = request.header_bytes
    try:
        return _ID_DECODER.decode(request.body if size is None else memoryview(request.body)[: max(size, 0)]).id
    except UNREADABLE:
        return ""
