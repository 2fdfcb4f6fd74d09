"""Why devices of a rollout failed, and how well that was foreseen, as people read it."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from edgewise.cli.output import columns
from edgewise.resources.rollout import Explanation, RolloutRisk

_WIDTH_MAX: Final = 100
_NAMED_MAX: Final = 6


def explained(explanations: Sequence[Explanation]) -> list[str]:
    """Return each likely cause with its evidence, and what to do next."""
    lines: list[str] = []
    for each in explanations:
        more = f" and {each.count - _NAMED_MAX} more" if each.count > _NAMED_MAX else ""
        lines += _wrapped(f"{each.cause}: {each.evidence}", "  ")
        lines += _wrapped(f"devices: {', '.join(each.devices[:_NAMED_MAX])}{more}", "    ")
        lines += _wrapped(f"next: {each.advice}", "    ")
    return lines


def risk_lines(risk: RolloutRisk) -> list[str]:
    """Return what was predicted and what came of it, who was most at risk, and how well predictions came true lately."""
    return [line for words in _risk(risk) for line in _wrapped(words, "  ")]


def _risk(risk: RolloutRisk) -> Iterator[str]:
    said_by = "learned from the fleet's history" if risk.source == "model" else "by rules, while history is short"
    yield f"{risk.predicted:.1f} failures predicted of {risk.ended} devices, {risk.failed} seen ({said_by})"
    if risk.scored:
        yield (
            f"calibration over the last {risk.scored} predictions: error {risk.error:.1%}, "
            f"Brier score {risk.brier:.3f} (always the same: {risk.base:.3f})"
        )
    for named in risk.riskiest:
        yield f"most at risk: {named}"


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(_WIDTH_MAX, max(40, columns()))
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False)
