"""A rollout's strategy and evidence as people read them: what each wave does, how it was judged, and the small picture of it."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from edgewise.cli.output import columns, painted
from edgewise.delivery import picture
from edgewise.resources.rollout import MetricVerdict, Rollout, StageVerdict
from edgewise.resources.states import AnalysisState, RolloutState
from edgewise.resources.workload import AnalysisMetric, Canary, Strategy

_WIDTH_MAX: Final = 100
_NAMED_MAX: Final = 6


def strategy_words(strategy: Strategy) -> str:
    """Return how a revision goes out, in one line."""
    words = [*_ways(strategy), *(_metric(metric) for metric in strategy.analysis)]
    if any(metric.direction is not None for metric in strategy.analysis):
        words.append(f"error rate {strategy.error_rate}")
    return "; ".join(words)


def _ways(strategy: Strategy) -> Iterator[str]:
    shadow, ab, blue_green = strategy.shadow, strategy.ab, strategy.blue_green
    if ab is not None:
        sticky = f", sticky by {ab.sticky}" if ab.sticky else ""
        yield f"A/B on {ab.devices} devices with {ab.share} of the requests{sticky}; given up after {ab.give_up_after}"
        yield f"no difference: {ab.on_no_difference}; failure budget {ab.failure_budget}"
        return
    if blue_green is not None:
        when = "by itself" if blue_green.auto_promote else "when promoted"
        yield f"blue-green, switched {when}; observed for {blue_green.observe_for}; failure budget {blue_green.failure_budget}"
        return
    if shadow is not None:
        yield f"shadow on {shadow.devices} devices with {shadow.share} of the requests for {shadow.observe_for}"
    yield from _canary(strategy.canary)


def _canary(canary: Canary) -> Iterator[str]:
    yield f"waves {', '.join(str(wave) for wave in canary.waves)}"
    yield f"observed for {canary.observe_for}"
    yield f"failure budget {canary.failure_budget}"
    if canary.unavailability_budget is not None:
        yield f"unavailability budget {canary.unavailability_budget}"


def _metric(metric: AnalysisMetric) -> str:
    name = metric.metric if metric.quantile is None else f"{metric.metric} (quantile {metric.quantile:g})"
    if metric.direction is not None:
        return f"{name} compared, {metric.direction} is better, margin {metric.margin}, over {metric.min_samples} samples"
    bounds = [f"{word} {bound}" for word, bound in (("min", metric.min), ("max", metric.max)) if bound is not None]
    return f"{name} {' '.join(bounds)} over {metric.min_samples} samples"


def evidence(rollout: Rollout) -> list[str]:
    """Return how each wave was judged so far, the open one last."""
    lines: list[str] = []
    for stage in (*rollout.status.stages, *_open(rollout)):
        lines += stage_lines(stage)
    return lines


def _open(rollout: Rollout) -> Iterator[StageVerdict]:
    status = rollout.status
    judged = {stage.wave for stage in status.stages}
    if status.verdicts and status.wave not in judged and status.state in {RolloutState.PROGRESSING, RolloutState.PAUSED}:
        yield StageVerdict(wave=status.wave, phase=status.phase, state=status.analysis, verdicts=status.verdicts, controls=status.controls)


def stage_lines(stage: StageVerdict, width: int = 0) -> list[str]:
    """Return how one wave was judged: the verdict of each metric with its numbers, in words, and its picture.
    `width`: columns; 0: those of the terminal, at most 100."""
    if not stage.verdicts and not stage.message:
        return []
    message = f": {stage.message}" if stage.message else ""
    title = f"  wave {stage.wave}{f' ({stage.phase})' if stage.phase else ''}   {painted(stage.state.value)}{message}"
    lines, width = [title], width or _width()
    if stage.controls:
        lines += _wrapped(f"compared with {_named(stage.controls)}, on the revision before", "    ", width)
    for verdict in stage.verdicts:
        lines += _verdict(verdict, width)
    return lines


def _named(devices: Sequence[str]) -> str:
    more = f" and {len(devices) - _NAMED_MAX} more" if len(devices) > _NAMED_MAX else ""
    return f"{', '.join(devices[:_NAMED_MAX])}{more}"


def _verdict(verdict: MetricVerdict, width: int) -> list[str]:
    words = verdict.message or (f"mean {verdict.mean:.4g} over {verdict.samples} samples" if verdict.mean is not None else "")
    named = words if words.startswith(verdict.metric) else f"{verdict.metric}: {words}"
    mark = {AnalysisState.SUCCESSFUL: "✓", AnalysisState.FAILED: "✗"}.get(verdict.state, "·")
    lines = _wrapped(f"{mark} {named}", "    ", width)
    bar = picture.bar(verdict, columns=min(picture.COLUMNS_MAX, width - 6))
    return [*lines, f"      {bar}"] if bar else lines


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False)


def _width() -> int:
    return min(_WIDTH_MAX, max(40, columns()))


def summaries(rollouts: Sequence[Rollout]) -> list[str]:
    """Return one line per judged wave of each rollout: its verdict, and of each metric what decided it."""
    lines: list[str] = []
    for rollout in rollouts:
        for stage in rollout.status.stages:
            if stage.verdicts or stage.message:
                found = evidence_of(stage)
                lines += [f"{rollout.metadata.name}   wave {stage.wave} ({stage.phase})   {painted(stage.state.value)}", *found]
    return lines


def evidence_of(stage: StageVerdict) -> list[str]:
    """Return the verdicts of one wave without its title."""
    return stage_lines(stage)[1:] or ([f"    {stage.message}"] if stage.message else [])
