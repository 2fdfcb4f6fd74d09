"""A device's exchanges with the control plane: reports, polls and renewals. `engine.uplink`, `downlink` and `contact` decide."""

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from edgewise.engine.backoff import Backoff
from edgewise.engine.contact import Contact, Failure
from edgewise.engine.downlink import Downlink
from edgewise.engine.limits import LinkLimits
from edgewise.engine.model import State
from edgewise.engine.protocol import Desired
from edgewise.engine.renewing import Looked, Renewing
from edgewise.engine.resident import position
from edgewise.engine.turns import TICK_SECONDS_MIN
from edgewise.engine.uplink import Uplink, Wait
from edgewise.trust.authority import LIMITS, renew_at
from edgewise.twin.enrolling import keep_renewed, renewal
from edgewise.twin.link import Answered, Exchange, Outcome, Refused, Request
from edgewise.wire.desired import DesiredState
from edgewise.wire.report import ReportAnswer

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice
    from edgewise.twin.resident import Resident

_ENCODER: Final = msgspec.msgpack.Encoder()
_ANSWER: Final = msgspec.msgpack.Decoder(ReportAnswer)
_DESIRED: Final = msgspec.msgpack.Decoder(DesiredState)
_NEVER: Final = float("inf")
_UNTRUSTED: Final = Failure(untrusted=True)
T = TypeVar("T")


class Calls:
    """Those of one run of the agent. Times are the device's monotonic ones. `learnt`: what time the control plane last said it was."""

    __slots__ = (
        "_contact",
        "_device",
        "_downlink",
        "_ended",
        "_poll_at",
        "_polling",
        "_renewal",
        "_renewing",
        "_report_at",
        "_reporting",
        "_resident",
        "_uplink",
        "learnt",
    )

    def __init__(self, device: "SimDevice", resident: "Resident", state: State, limits: LinkLimits) -> None:
        self._device, self._resident = device, resident
        clock, chance = device.clock, device.chance
        self._contact = Contact(clock.monotonic(), limits.offline_after_seconds)
        first, most = limits.backoff_first_seconds, limits.backoff_seconds_max
        self._uplink = Uplink(resident.outbox, clock, Backoff(chance, first, most), limits, device.boot_id)
        self._downlink = Downlink(position(state), Backoff(chance, first, most), limits, device.around.profile.poll_seconds)
        if state.durable.document is not None:
            self._contact.watch(self._downlink.note(state.durable.document))
        self._polling: Exchange | None = None
        self._reporting: Exchange | None = None
        self._renewing: Exchange | None = None
        self._ended = False
        self._poll_at = clock.monotonic()
        self._report_at = _NEVER
        self._renewal = Renewing(clock.monotonic() + limits.renew_first_seconds, limits, chance)
        self.learnt = 0.0

    def end(self) -> None:
        """Break everything off."""
        self._ended = True
        for exchange in (self._polling, self._reporting, self._renewing):
            if exchange is not None:
                exchange.abandon()

    def due(self, now: float) -> float:
        """Return when to `look` again at the latest; infinity: never."""
        at = min(self._poll_at, self._report_at)
        silence = self._contact.due_in(now)
        return at if silence is None else min(at, now + max(silence, TICK_SECONDS_MIN))

    def listen(self, now: float) -> None:
        """Notice a silence."""
        self._resident.tell(self._contact.check(now))

    def look(self, now: float) -> None:
        """Do what is due."""
        if self._report_at <= now:
            self._report()
        if self._poll_at <= now:
            self._poll()
        if self._renewal.next <= now:
            self._look_at_certificate(now)

    # ---- reports ----

    def wake_uplink(self) -> None:
        """Take note that there may be something to send."""
        if self._reporting is None:
            self._report_at = self._device.clock.monotonic()
            if not self._resident.busy:
                self._report()
                self._resident.alarm()

    def _report(self) -> None:
        if self._reporting is not None or self._ended:
            return
        decided = self._uplink.next()
        if isinstance(decided, Wait):
            self._report_at = _NEVER if decided.seconds is None else self._device.clock.monotonic() + decided.seconds
            return
        self._report_at = _NEVER
        if not self._resident.agent:
            self._report_at = self._device.clock.monotonic() + self._uplink.failed(_UNTRUSTED)
            return
        device, body = self._device, _ENCODER.encode(decided.report)
        who = self._resident
        request = Request(purpose="report", agent=who.agent, device=device.name, key=device.key, body=body, not_after=who.not_after)
        self._reporting = self._device.link.send(request, self._reported)

    def _reported(self, outcome: Outcome) -> None:
        if not self._ended:
            self._reporting = None
            self._device.guarded(partial(self._take_report, outcome))

    def _take_report(self, outcome: Outcome) -> None:
        clock = self._device.clock
        answer = _decoded(_ANSWER, outcome)
        if answer is None:
            self._report_at = clock.monotonic() + self._uplink.failed(self._failed(outcome))
        else:
            self._uplink.answered(answer)
            self.learnt = max(self.learnt, answer.time)
            self._resident.tell(self._contact.reached(clock.monotonic()))
            self._report()
        self._resident.alarm()

    def _failed(self, outcome: Outcome) -> Failure:
        """Judge an exchange that brought nothing."""
        failure = Failure(status=outcome.status, retry_after=outcome.retry_after or 0.0) if isinstance(outcome, Refused) else Failure()
        now = self._device.clock.monotonic()
        self._resident.tell(self._contact.reached(now) if failure.contact else self._contact.failed(now))
        if failure.distrust and self._renewal.distrusted(now):
            self._look_at_certificate(now)
        return failure

    # ---- desired state ----

    def _poll(self) -> None:
        if self._polling is not None or self._ended:
            return
        self._poll_at = _NEVER
        if not self._resident.agent:
            now = self._device.clock.monotonic()
            self._poll_at = now + self._downlink.failed(_UNTRUSTED)
            self._resident.tell(self._contact.failed(now))
            return
        request = Request(
            purpose="desired",
            agent=self._resident.agent,
            device=self._device.name,
            key=self._device.key,
            path=str(self._downlink.position),
            wait=self._downlink.wait,
            session=self._resident.outbox.session,
            not_after=self._resident.not_after,
        )
        self._polling = self._device.link.send(request, self._polled)

    def _polled(self, outcome: Outcome) -> None:
        if not self._ended:
            self._polling = None
            self._device.guarded(partial(self._take_poll, outcome))

    def _take_poll(self, outcome: Outcome) -> None:
        clock = self._device.clock
        nothing = isinstance(outcome, Answered) and not outcome.body
        state = None if nothing else _decoded(_DESIRED, outcome)
        if state is None and not nothing:
            self._poll_at = clock.monotonic() + self._downlink.failed(self._failed(outcome))
            self._resident.alarm()
            return
        self._downlink.answered()
        if state is not None:
            for document in state.devices:
                self._contact.watch(self._downlink.note(document))
                if document.device == self._device.name:
                    self._resident.give(Desired(document=document))
            self._downlink.position = state.position
        news = self._contact.online is not True
        self._resident.tell(self._contact.reached(clock.monotonic(), desired=True))
        if news:
            self._uplink.hurry()
            self.wake_uplink()
        self._poll()
        self._resident.alarm()

    # ---- identity ----

    def _look_at_certificate(self, now: float) -> None:
        """Renew it if it is old enough, or if that was asked for."""
        force = self._renewal.begin(now)
        if force is None:
            return
        due_in = self._due_in()
        if due_in > 0 and not force:
            self._renewal.ended(now, Looked(well=True, due_in=due_in))
            return
        request = renewal(self._device, self._resident.agent)
        self._renewing = self._device.link.send(request, self._renewed)

    def _due_in(self) -> float:
        """Return in how many seconds the certificate is to be renewed by its age."""
        not_after = self._resident.not_after
        lifetime = self._device.around.profile.certificate_seconds
        return renew_at(not_after - lifetime - LIMITS.backdate_seconds, not_after) - self._resident.floor()

    def _renewed(self, outcome: Outcome) -> None:
        if not self._ended:
            self._renewing = None
            self._device.guarded(partial(self._take_renewal, outcome))

    def _take_renewal(self, outcome: Outcome) -> None:
        well = isinstance(outcome, Answered) and keep_renewed(self._device, outcome.body)
        if well:
            self._device.note("renewed", self._resident.agent)
            self._resident.look_at_identity()
        self._renewal.ended(self._device.clock.monotonic(), Looked(well=well, due_in=max(0.0, self._due_in())))
        if well:
            self._uplink.try_again()
            self.wake_uplink()
        self._resident.alarm()


def _decoded(decoder: "msgspec.msgpack.Decoder[T]", outcome: Outcome) -> T | None:
    if not isinstance(outcome, Answered):
        return None
    try:
        return decoder.decode(outcome.body)
    except msgspec.MsgspecError:
        return None
