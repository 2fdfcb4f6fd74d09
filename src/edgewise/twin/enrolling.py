"""How a simulated device joins and renews: the wire's own messages, with names where keys and certificates would be."""

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.engine.backoff import Backoff
from edgewise.engine.identity import (
    Certificates,
    DeviceKeys,
    IdentityDamaged,
    begin_anew,
    complete_join,
    read_certificates,
    read_keys,
    renew,
    write_keys,
)
from edgewise.ports.files import FilesError
from edgewise.twin.link import Answered, Exchange, Outcome, Refused, Request
from edgewise.wire.enrolment import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice

_ENCODER: Final = msgspec.msgpack.Encoder()
_JOINED: Final = msgspec.msgpack.Decoder(JoinAnswer)
_RENEWED: Final = msgspec.msgpack.Decoder(RenewAnswer)
_PAUSE_FIRST_SECONDS: Final = 2.0
_PAUSE_SECONDS_MAX: Final = 30.0


class Joining:
    """A device that asks, and asks again, until it has an identity."""

    __slots__ = ("_backoff", "_device", "_ended", "_exchange")

    def __init__(self, device: "SimDevice") -> None:
        self._device = device
        self._backoff = Backoff(device.chance, _PAUSE_FIRST_SECONDS, _PAUSE_SECONDS_MAX)
        self._ended = False
        self._exchange: Exchange | None = None

    def end(self) -> None:
        """Give up."""
        self._ended = True
        if self._exchange is not None:
            self._exchange.abandon()

    def ask(self) -> None:
        """Send the request. Keys are on the disk before anybody hears of them. Raises `FilesError`, `IdentityDamaged`."""
        device = self._device
        begin_anew(device.disk)
        keys = read_keys(device.disk, device.around.limits)
        if keys is None:
            text = f"-----BEGIN PRIVATE KEY-----\n{device.key}\n-----END PRIVATE KEY-----\n"
            keys = DeviceKeys(key=text, sealing_key=hashlib.sha256(device.key.encode()).digest())
            write_keys(device.disk, keys)
        body = JoinRequest(
            secret=device.token,
            device=device.name,
            signing_request=device.key,
            sealing_key=keys.sealing_key,
            labels=dict(device.device.labels),
            device_class=device.device.device_class,
            capacity=device.capacity,
        )
        request = Request(purpose="join", agent="", device=device.name, key=device.key, body=_ENCODER.encode(body))
        self._exchange = device.link.send(request, self._answered)

    def _answered(self, outcome: Outcome) -> None:
        if not self._ended:
            self._exchange = None
            self._device.guarded(partial(self._take, outcome))

    def _take(self, outcome: Outcome) -> None:
        device = self._device
        answer = _decoded(outcome)
        if answer is None:
            asked = outcome.retry_after or 0.0 if isinstance(outcome, Refused) else 0.0
            device.note("join", f"refused: {outcome.reason}" if isinstance(outcome, Refused) else "no answer")
            device.around.kernel.after(self._backoff.next(asked), self._again)
            return
        try:
            complete_join(device.disk, _certificates(answer.agent, answer.certificate, answer.authority), answer.repository_root)
        except FilesError:
            device.around.kernel.after(self._backoff.next(), self._again)
            return
        device.note("join", answer.agent)
        device.enrolled()

    def _again(self) -> None:
        if not self._ended:
            self._device.guarded(self._try)

    def _try(self) -> None:
        try:
            self.ask()
        except (FilesError, IdentityDamaged):
            self._device.around.kernel.after(self._backoff.next(), self._again)


def _decoded(outcome: Outcome) -> JoinAnswer | None:
    if not isinstance(outcome, Answered):
        return None
    try:
        return _JOINED.decode(outcome.body)
    except msgspec.MsgspecError:
        return None


def renewal(device: "SimDevice", agent: str) -> Request:
    """Return the request for a new certificate."""
    try:
        held = read_certificates(device.disk, device.around.limits)
    except (FilesError, IdentityDamaged):
        held = None
    body = RenewRequest(certificate=held.certificate if held is not None else "", signing_request=device.key)
    return Request(purpose="renew", agent=agent, device=device.name, key=device.key, body=_ENCODER.encode(body))


def keep_renewed(device: "SimDevice", body: bytes) -> bool:
    """Keep a new certificate. Returns whether that worked."""
    try:
        answer = _RENEWED.decode(body)
        renew(device.disk, _certificates(device.agent, answer.certificate, answer.authority))
    except (msgspec.MsgspecError, FilesError):
        return False
    return True


def _certificates(agent: str, certificate: str, authority: str) -> Certificates:
    """Return certificates as the identity's files want them; in the twin they are names."""
    return Certificates(agent=agent, certificate=_pem(certificate), authority=_pem(authority))


def _pem(text: str) -> str:
    return text if "-----BEGIN CERTIFICATE-----" in text else f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"
