"""How an identity is written into a certificate: `spiffe://edgewise/agent/NAME`."""

import re
from typing import Final

_AGENT: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?")
_PREFIX: Final = "spiffe://edgewise/agent/"


class NameRefusedError(ValueError):
    """The text names no agent."""


def check_agent(agent: str) -> str:
    """Return `agent` when it is a resource name (`resources.meta.Name`). Raises `NameRefusedError`."""
    if _AGENT.fullmatch(agent) is None:
        raise NameRefusedError(f"{agent[:140]!r} is not an agent's name: lower-case letters, digits, '-' and '.', at most 128")
    return agent


def agent_uri(agent: str) -> str:
    """Return the SPIFFE URI of an agent. Raises `NameRefusedError`."""
    return _PREFIX + check_agent(agent)


def agent_of_uri(uri: str) -> str:
    """Return the agent that a SPIFFE URI names. Raises `NameRefusedError`."""
    if not uri.startswith(_PREFIX):
        raise NameRefusedError(f"{uri[:140]!r} does not begin with {_PREFIX}")
    return check_agent(uri[len(_PREFIX) :])
