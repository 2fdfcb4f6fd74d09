"""Which requests a candidate sees while it is held beside the revision that serves."""

from typing import Annotated, Literal

import msgspec

TrafficMode = Literal["none", "shadow", "split"]

STICKY_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9-]{0,63})?$"
"""A header's name, or nothing."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a held candidate gets of an instance's requests; the committed revision keeps the socket and answers the rest.

    `none`: nothing (it waits, warm: blue-green). `shadow`: copies of a `share` of the requests, whose answers are compared and never
    returned. `split`: a `share` of the requests, which it answers itself. `sticky` names the header by whose value requests go the same way
    each time (a session, a machine); without it the request's own id decides, and without that chance does."""

    mode: TrafficMode = "none"
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 1.0
    sticky: Annotated[str, msgspec.Meta(pattern=STICKY_PATTERN)] = ""
