"""What decoding bytes from a network or a disk may raise."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec's decoders raise over bytes that are not what they should be. Text that is no UTF-8 is not among its own errors, and neither
is what is nested too deep."""
