"""The wire's version and the optional abilities that both ends name."""

from typing import Final

WIRE_VERSION: Final = 1
CAPABILITIES: Final[tuple[str, ...]] = ("zstd", "traffic")
CONTENT_TYPE: Final = "application/vnd.edgewise+msgpack"
