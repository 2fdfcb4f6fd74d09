"""What a control plane process is told when it starts."""

import ipaddress
import socket
from pathlib import Path
from typing import Final

import msgspec

from edgewise.control.limits import LIMITS, ControlLimits

API_PORT: Final = 7420
GATEWAY_PORT: Final = 7421

_ANY: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not bound to


class ControlConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the control plane keeps its data and where it listens. A port of 0 takes any free one.

    `public_hosts` are the names and addresses under which devices and people reach it: they stand in its certificates and join
    tokens, the best first. Without any, the machine's own name and addresses are used. `name` is for people. `restored`: the data folder
    comes from a backup, so begin a new epoch. `new_admin_token`: make another admin token and hand it out once.
    """

    data: Path
    api_host: str = "127.0.0.1"
    api_port: int = API_PORT
    gateway_host: str = "0.0.0.0"  # noqa: S104 - devices come from elsewhere; every path there asks for a certificate or a token
    gateway_port: int = GATEWAY_PORT
    public_hosts: tuple[str, ...] = ()
    name: str = "edgewise"
    restored: bool = False
    new_admin_token: bool = False
    limits: ControlLimits = LIMITS


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What is known once the control plane answers. `admin_token` is given once, at the first start or when asked for, and kept nowhere."""

    api_address: str
    gateway_addresses: tuple[str, ...]
    authority_pem: str
    authority_hash: str
    admin_token: str | None
    data: Path
    first_start: bool = False

    def __repr__(self) -> str:
        return f"Ready(api_address={self.api_address!r}, gateway_addresses={self.gateway_addresses!r})"


def certificate_hosts(config: ControlConfig) -> tuple[str, ...]:
    """Return every name and address under which the servers may be called, most public first."""
    bound = [host for host in (config.gateway_host, config.api_host) if host not in _ANY]
    own = [] if config.public_hosts else _own_hosts()
    return tuple(dict.fromkeys((*config.public_hosts, *bound, *own, "localhost", "127.0.0.1", "::1")))


def gateway_addresses(config: ControlConfig, port: int) -> tuple[str, ...]:
    """Return the `https://` addresses that stand in join tokens, best first."""
    hosts = config.public_hosts or ((config.gateway_host,) if config.gateway_host not in _ANY else (*_own_hosts(), "127.0.0.1"))
    return tuple(f"https://{_bracketed(host)}:{port}" for host in dict.fromkeys(hosts))[:8]


def api_address(config: ControlConfig, port: int) -> str:
    """Return the `https://` address under which people reach the API."""
    host = config.api_host
    if host in _ANY:
        host = (*config.public_hosts, *_own_hosts(), "127.0.0.1")[0]
    return f"https://{_bracketed(host)}:{port}"


def _own_hosts() -> list[str]:
    """Return the address that the machine uses towards others, if it has one. Sends nothing."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: connecting a datagram socket only asks the routing table
            found.append(probe.getsockname()[0])
        except OSError:
            pass
    return found


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
