"""Faults of one sort that overlap on one device: when one ends, what the others say goes on."""

__all__ = ["Overlaps"]


class Overlaps:
    """Which faults last, by what they do and to whom; of several the last that began counts."""

    def __init__(self) -> None:
        self._lasting: dict[tuple[str, str], dict[int, float]] = {}

    def begin(self, what: str, whom: str, number: int, value: float) -> None:
        """Note that the fault of this number begins."""
        self._lasting.setdefault((what, whom), {})[number] = value

    def end(self, what: str, whom: str, number: int) -> float | None:
        """Note that it ends; return the value that counts from now on, or None: no other one lasts."""
        lasting = self._lasting.get((what, whom), {})
        lasting.pop(number, None)
        return list(lasting.values())[-1] if lasting else None
