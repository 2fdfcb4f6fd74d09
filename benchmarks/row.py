"""One measured number."""

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`value` in `unit`, beside a `baseline` measured in the same run (None where the target is absolute). `ratio` is value over baseline;
    `target` says in words what is to be reached, `met` whether it was (None: nothing is to be reached, the number is for information)."""

    name: str
    unit: str
    value: float
    target: str
    met: bool | None
    baseline: float | None = None
    ratio: float | None = None
    note: str = ""
