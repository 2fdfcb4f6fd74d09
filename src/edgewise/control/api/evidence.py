"""The evidence of a rollout as one picture, for pages that show it. Everything in it is escaped, and nothing in it can run."""

import textwrap
from typing import Final
from xml.sax.saxutils import escape

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from edgewise.control.api.access import may
from edgewise.control.api.errors import not_found
from edgewise.control.api.requests import AnyRequest, number
from edgewise.control.services import Services
from edgewise.delivery.picture import svg
from edgewise.resources.rollout import MetricVerdict, RolloutStatus, StageVerdict

_PATH: Final = "/apis/v1alpha1/namespaces/{namespace:str}/rollouts/{name:str}/evidence.svg"
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff"}
_WIDTH: Final = 720
_COLUMNS: Final = 110
_LINE: Final = 16
_BAR: Final = 52
_NUMBER_MAX: Final = 2**31
_COLOURS: Final = {"Successful": "#1e8449", "Failed": "#c0392b"}


def evidence_handlers(services: Services) -> list[HTTPRouteHandler]:
    """Return the handler of the picture."""

    @get(
        _PATH,
        opt=may("get", kind="Rollout"),
        summary="How the waves of a workload's newest rollout (or of `rollout=N`) were judged, as SVG",
    )
    async def evidence(request: AnyRequest) -> Response[bytes]:
        namespace, workload = request.path_params["namespace"], request.path_params["name"]
        rows = services.runner.view.rollouts.get((namespace, workload), {})
        wanted = number(request, "rollout", 0, 0, _NUMBER_MAX)
        chosen = [row for row in rows.values() if not wanted or row.number == wanted]
        if not chosen:
            which = f"rollout {wanted}" if wanted else "rollout"
            raise not_found(f"workload {workload[:128]} in namespace {namespace[:128]} has no {which}")
        row = max(chosen, key=lambda each: each.number)
        return Response(drawn(row.key.name, row.status).encode(), media_type="image/svg+xml", headers=_HEADERS)

    return [evidence]


def drawn(name: str, status: RolloutStatus) -> str:
    """Return the evidence of a rollout as one SVG: per wave its verdict, per metric the words and the interval."""
    parts: list[str] = []
    height = _text(parts, f"{name}: {status.state.value}", _LINE, bold=True)
    for stage in (*status.stages, *_open(status)):
        height = _stage(parts, stage, height)
    if not status.stages and not status.verdicts:
        height = _text(parts, "nothing was judged by its metrics", height)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
    return f'{head}font-family="sans-serif" font-size="12">{"".join(parts)}</svg>'


def _open(status: RolloutStatus) -> tuple[StageVerdict, ...]:
    judged = {stage.wave for stage in status.stages}
    if not status.verdicts or status.wave in judged or status.finished_at is not None:
        return ()
    return (StageVerdict(wave=status.wave, phase=status.phase, state=status.analysis, verdicts=status.verdicts),)


def _stage(parts: list[str], stage: StageVerdict, height: int) -> int:
    title = f"wave {stage.wave} ({stage.phase}): {stage.state.value}"
    height = _text(parts, title, height + _LINE // 2, bold=True, colour=_COLOURS.get(stage.state.value, "#7f8c8d"))
    if stage.message:
        height = _text(parts, stage.message, height)
    for verdict in stage.verdicts:
        height = _verdict(parts, verdict, height)
    return height


def _verdict(parts: list[str], verdict: MetricVerdict, height: int) -> int:
    words = verdict.message or (f"mean {verdict.mean:.4g} over {verdict.samples} samples" if verdict.mean is not None else "no samples")
    height = _text(parts, words if words.startswith(verdict.metric) else f"{verdict.metric}: {words}", height)
    picture = svg(verdict)
    if picture:
        parts.append(f'<g transform="translate(20 {height - _LINE})">{picture}</g>')
        height += _BAR
    return height


def _text(parts: list[str], words: str, height: int, *, bold: bool = False, colour: str = "#2c3e50") -> int:
    weight = ' font-weight="bold"' if bold else ""
    for line in textwrap.wrap(words, _COLUMNS) or [""]:
        parts.append(f'<text x="10" y="{height}" fill="{colour}"{weight}>{escape(line)}</text>')
        height += _LINE
    return height
