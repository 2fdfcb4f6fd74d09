"""Where the control plane and proxies listen."""

import msgspec


class Address(msgspec.Struct, frozen=True):
    """Where something listens."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """`HOST:PORT` as a Host header has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, scheme: str = "https", default_port: int = 443) -> tuple[Address, str]:
    """Read `SCHEME://[USER:PASSWORD@]HOST[:PORT]` into the address and its `USER:PASSWORD`. Raises `ValueError`."""
    prefix = f"{scheme}://"
    if not text.startswith(prefix):
        raise ValueError(f"{text[:100]!r} does not begin with {prefix}")
    credentials, _, place = text[len(prefix) :].rstrip("/").rpartition("@")
    host, port = place, str(default_port)
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text[:100]!r} has no host")
        port = rest[1:] or port
    elif ":" in place:
        host, _, port = place.rpartition(":")
    if not host or "/" in host or not host.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text[:100]!r} is not an address such as {prefix}example.org:{default_port}")
    return Address(host, int(port)), credentials
