"""The control plane's endpoints as typed calls. One `Gateway` per thread; encoders and decoders are made when first needed.

Every call raises `LinkError` and its subclasses from `errors.py`.
"""

from collections.abc import Iterable
from functools import cached_property

import msgspec

from edgewise.agent.errors import ProtocolBroken
from edgewise.agent.exchange import Timeouts
from edgewise.agent.http import Client
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.resources.decoding import UNREADABLE
from edgewise.wire.desired import DesiredState, Position
from edgewise.wire.report import Report, ReportAnswer
from edgewise.wire.version import CONTENT_TYPE

BODY_HEADERS = (("Content-Type", CONTENT_TYPE),)


class Gateway:
    """What the resident agent asks of the control plane. `session` is that of this start of the agent, as in its reports."""

    def __init__(self, client: Client, limits: AgentLimits = LIMITS, session: str = "") -> None:
        self.client = client
        self._session = f"&session={session}" if session else ""
        self._limits = limits

    @cached_property
    def _encoder(self) -> msgspec.msgpack.Encoder:
        return msgspec.msgpack.Encoder()

    @cached_property
    def _answer_decoder(self) -> msgspec.msgpack.Decoder[ReportAnswer]:
        return msgspec.msgpack.Decoder(ReportAnswer)

    @cached_property
    def _desired_decoder(self) -> msgspec.msgpack.Decoder[DesiredState]:
        return msgspec.msgpack.Decoder(DesiredState)

    def report(self, report: Report) -> ReportAnswer:
        """Send a report; return the marks up to which the control plane keeps everything."""
        body = self._encoder.encode(report)
        limit = self._limits.report_answer_bytes_max
        response = self.client.request("POST", "/v1/report", body=body, headers=BODY_HEADERS, body_limit=limit)
        try:
            return self._answer_decoder.decode(response.body)
        except UNREADABLE as error:
            raise ProtocolBroken(f"the answer to a report cannot be read: {error}") from error

    def desired(self, after: Position, wait: float) -> DesiredState | None:
        """Wait up to `wait` seconds for a desired state newer than `after`. None: nothing new."""
        timeouts = Timeouts(read=wait + self._limits.poll_margin_seconds, total=None)
        target = f"/v1/desired?after={after}&wait={wait:.0f}{self._session}"
        response = self.client.request("GET", target, timeouts=timeouts, body_limit=self._limits.desired_bytes_max)
        if response.status == 204:
            return None
        try:
            return self._desired_decoder.decode(response.body)
        except UNREADABLE as error:
            raise ProtocolBroken(f"the desired state cannot be read: {error}") from error

    def upload_stream(self, stream: str, pieces: Iterable[bytes]) -> None:
        """Send `pieces` as the stream that the control plane asked for, while they come."""
        timeouts = Timeouts(read=self._limits.read_seconds, total=None)
        with self.client.stream("POST", f"/v1/streams/{stream}", body=pieces, timeouts=timeouts) as incoming:
            incoming.read(self._limits.error_bytes_max)
