"""Strategies and evidence as text."""

import msgspec

from edgewise.cli.evidence import evidence, strategy_words, summaries
from edgewise.cli.rollout_commands import _Shown
from edgewise.resources.rollout import Difference, MetricVerdict, SideEstimate, StageVerdict
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AB, AnalysisMetric, BlueGreen, Shadow, Strategy

ACCURACY = AnalysisMetric(metric="model.accuracy", direction="higher", margin=0.01, min_samples=50)


def test_each_strategy_in_words():
    shadow = Strategy(shadow=Shadow(), analysis=(AnalysisMetric(metric="model.shadow.disagreement", max="2%", min_samples=9),))
    assert strategy_words(shadow) == (
        "shadow on 10% devices with 100% of the requests for 10m; waves 1, 25%, 100%; observed for 30s; failure budget 5%; "
        "model.shadow.disagreement max 2% over 9 samples"
    )
    split = strategy_words(Strategy(ab=AB(sticky="x-session"), analysis=(ACCURACY,)))
    assert split.startswith("A/B on 100% devices with 50% of the requests, sticky by x-session; given up after 24h; no difference: keep;")
    assert split.endswith("model.accuracy compared, higher is better, margin 0.01, over 50 samples; error rate 1%")
    assert strategy_words(Strategy(blue_green=BlueGreen(auto_promote=False))).startswith(
        "blue-green, switched when promoted; observed for 5m"
    )


def judged(make, **fields):
    verdict = MetricVerdict(
        metric="model.accuracy",
        state=AnalysisState.FAILED,
        message="model.accuracy of the new revision is 5 points lower " + "and that is a long story " * 6,
        direction="higher",
        samples=120,
        new=SideEstimate(value=0.9, samples=120, devices=1),
        old=SideEstimate(value=0.95, samples=400, devices=3),
        difference=Difference(value=-0.05, low=-0.08, high=-0.02),
        margin=0.01,
        finding="worse",
    )
    plain = MetricVerdict(metric="model.errors", state=AnalysisState.SUCCESSFUL, mean=0.001, samples=50)
    stage = StageVerdict(wave=1, phase="Shadow", state=AnalysisState.FAILED, at=5.0, verdicts=(verdict, plain), controls=("d1", "d2"))
    rollout = make("Rollout")
    return msgspec.structs.replace(rollout, status=msgspec.structs.replace(rollout.status, stages=(stage,), **fields))


def test_evidence_says_whom_it_compares_and_draws_it(make):
    lines = evidence(judged(make, verdicts=()))
    assert lines[0] == "  wave 1 (Shadow)   Failed"
    assert lines[1] == "    compared with d1, d2, on the revision before"
    assert lines[2].startswith("    ✗ model.accuracy of the new revision is 5 points lower")
    assert "      worse  " in "\n".join(lines)
    assert lines[-1] == "    ✓ model.errors: mean 0.001 over 50 samples"
    assert max(len(line) for line in lines) <= 100


def test_the_open_wave_comes_last(make):
    running = MetricVerdict(metric="model.accuracy", state=AnalysisState.RUNNING, message="3 of 50 samples", samples=3)
    lines = evidence(judged(make, wave=2, phase="Canary", state="Progressing", analysis=AnalysisState.RUNNING, verdicts=(running,)))
    assert lines[-2:] == ["  wave 2 (Canary)   Running", "    · model.accuracy: 3 of 50 samples"]


def test_history_says_how_each_wave_was_judged(make):
    lines = summaries([judged(make)])
    assert lines[0] == "inspector-2   wave 1 (Shadow)   Failed"
    assert len(lines) > 3


def test_a_watch_prints_the_evidence_of_a_wave_once(make, capsys):
    shown = _Shown(live=False)
    shown.show(judged(make))
    shown.show(judged(make, touched=9, message="on its way"))
    said = capsys.readouterr().out
    assert said.count("wave 1 (Shadow)   Failed") == 1
    assert said.count("on its way") == 1
