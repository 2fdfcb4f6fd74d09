"""The report of a rehearsal: JSON, table, and two strategies side by side."""

import json
import re
from fractions import Fraction
from math import comb
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.artifact import Artifact, ArtifactSpec
from edgewise.resources.meta import Metadata
from edgewise.resources.workload import ArtifactReference, EveryMatchingDevice, Placement, Workload, WorkloadSpec
from edgewise.twin import units
from edgewise.twin.distributions import Distributions, RolloutOutcome, WorkloadOutcome
from edgewise.twin.fleet import DeviceClass, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.plan import Act, Plan
from edgewise.twin.rehearsal import LostRun, Rehearsal
from edgewise.twin.report import (
    About,
    Comparison,
    ComparisonRow,
    Report,
    RunSummary,
    about,
    change_words,
    compare,
    hash_over,
    is_clear,
    report_of,
)
from edgewise.twin.result import Violation
from edgewise.twin.scenario import Scenario
from edgewise.twin.tables import WIDTH, comparison_table, report_table

ABOUT = About(change="default/inspector 1 to 2", scenario="partition", devices=100, sites=2, assumptions=("Links carry 20 Mbit/s.",))


def rehearsal(made_run, count=20, **how):
    return Rehearsal(planned=count, runs=tuple(made_run(seed, **how) for seed in range(1, count + 1)))


def test_what_was_rehearsed_is_told_from_its_plan():
    fleet = TwinFleet(
        sites=(TwinSite(name="hall"),),
        classes=(DeviceClass(name="box"), DeviceClass(name="rare")),
        devices=tuple(TwinDevice(name=f"box-{number}", site="hall", device_class="box") for number in range(3)),
    )
    told = about(Plan(seed=1, fleet=fleet, scenario=Scenario(name="calm", description="Nothing.")), "a change", assumptions=["one"])
    assert (told.devices, told.sites, told.classes, told.scenario) == (3, 1, {"box": 3, "rare": 0}, "calm")


def test_a_report_is_json_and_reads_back(made_run):
    report = report_of(rehearsal(made_run, 4), ABOUT)
    text = msgspec.json.encode(report)
    assert msgspec.json.decode(text, type=Report) == report
    fields = json.loads(text)
    assert fields["reportVersion"] == 1
    assert [run["trace_hash"] for run in fields["runs"]] == [f"{seed:032x}" for seed in (1, 2, 3, 4)]
    assert set(fields["figures"]["changeSeconds"]) == {"p5", "p50", "p95"}
    assert fields["runs"][0]["rollouts"] == {"default/inspector 2": "Succeeded"}


def test_one_hash_stands_for_all_runs(made_run):
    one, other = made_run(1), made_run(2)
    assert hash_over([one]) == one.trace_hash
    assert len({hash_over(runs) for runs in ([one, other], [other, one], [one], [other], [])}) == 5


def test_interrupted_runs_count_only_when_there_is_no_other(made_run):
    part = made_run(3, interrupted=True)
    mixed = report_of(Rehearsal(planned=5, runs=(made_run(1), made_run(2)), partial=(part,), interrupted=True), ABOUT)
    assert (mixed.seeds, mixed.interrupted, mixed.planned) == ((1, 2), True, 5)
    alone = report_of(Rehearsal(planned=1, partial=(part,), interrupted=True), ABOUT)
    assert alone.seeds == (3,)
    assert "INTERRUPTED: 2 of 5 runs" in report_table(mixed)
    assert "INTERRUPTED: 0 of 1 runs (figures are of unfinished ones)" in " ".join(report_table(alone).split())


def test_a_report_without_any_run_is_printed_too():
    report = report_of(Rehearsal(planned=2, lost=(LostRun(seed=1, reason="MemoryError"), LostRun(seed=2, reason="MemoryError"))), ABOUT)
    assert report.figures is None
    text = report_table(report)
    assert "none of 2 runs gave a result" in text
    assert "2 of 2 runs gave no result (seed 1, 2): MemoryError" in text


def test_the_table_says_everything_within_its_columns(made_run):
    runs = tuple(made_run(seed, back=seed in (3, 7), ended=seed != 5, devices=1000) for seed in range(1, 21))
    busy = msgspec.structs.replace(runs[0], site_bytes={f"a-site-with-a-rather-long-name-{number}": 10**number for number in range(12)})
    text = report_table(report_of(Rehearsal(planned=20, runs=(busy, *runs[1:])), ABOUT))
    assert max(map(len, text.splitlines())) <= WIDTH
    for words in (
        "Rehearsal: default/inspector 1 to 2",
        "100 devices at 2 sites; scenario partition; 20 runs, seeds 1 to 20",
        "the change takes",
        "not ended",
        "Succeeded 17, RolledBack 2,",
        "Progressing 1",
        "in 2 of 20 runs default/inspector 2 was rolled back",
        "Links carry 20 Mbit/s.",
        "and 6 more sites",
        "trace hash over 20 runs",
    ):
        assert words in " ".join(text.split()), text
    assert "\x1b" not in text
    assert "\x1b[" in report_table(report_of(Rehearsal(planned=20, runs=runs), ABOUT), colour=True)


def test_when_nothing_went_wrong_the_table_says_so(made_run):
    made = rehearsal(made_run, 2)
    assert "Nothing went wrong with the change, though up to 20 devices were offline at one time." in report_table(report_of(made, ABOUT))
    never = tuple(msgspec.structs.replace(run, counts=()) for run in made.runs)
    assert "Nothing went wrong." in report_table(report_of(msgspec.structs.replace(made, runs=never), ABOUT))


def test_what_finds_no_device_comes_first_of_what_went_wrong(made_run):
    subject = msgspec.structs.replace(ABOUT, misfits=("only 3 of the 9 replicas of default/many have a device that can run them",))
    report = report_of(rehearsal(made_run, 2, back=True), subject)
    assert report.words[0] == subject.misfits[0]
    assert "  only 3 of the 9 replicas" in report_table(report)


def test_two_strategies_say_what_they_take_for_granted(made_run):
    assert "Taken for granted\n  Links carry 20 Mbit/s.\n\ntrace hash A" in comparison_table(compared(made_run, {}, {}))


def compared(made_run, first, second, count=20):
    one, other = rehearsal(made_run, count, **first), rehearsal(made_run, count, **second)
    return compare((one, report_of(one, ABOUT)), (other, report_of(other, ABOUT)))


def row(comparison, name):
    return next(row for row in comparison.rows if row.figure == name)


def test_a_clear_difference_is_marked(made_run):
    comparison = compared(made_run, {}, {"pace": 1.5})
    takes = row(comparison, "change takes")
    assert (takes.better, takes.first_less, takes.second_less) == ("first", 20, 0)
    assert row(comparison, "unavailable: default/inspector").better == "first"
    text = comparison_table(comparison)
    assert text.count("✓") == 4
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_other_way_round_too(made_run):
    assert row(compared(made_run, {"pace": 1.5}, {}), "change takes").better == "second"


def test_no_difference_and_few_runs_mark_nothing(made_run):
    assert not [row for row in compared(made_run, {}, {}).rows if row.better]
    few = compared(made_run, {}, {"pace": 1.5}, count=7)
    assert row(few, "change takes").first_less == 7
    assert not [row for row in few.rows if row.better]


def test_a_quick_rollback_is_no_quick_success(made_run):
    comparison = compared(made_run, {"back": True}, {})
    assert row(comparison, "change takes").better == ""
    assert row(comparison, "devices touched").better == ""
    back = row(comparison, "rolled back")
    assert (back.first.p50, back.second.p50, back.better) == (1.0, 0.0, "")


def test_only_runs_with_the_same_seed_are_pairs(made_run):
    one = Rehearsal(planned=10, runs=tuple(made_run(seed) for seed in range(1, 11)))
    other = Rehearsal(planned=10, runs=tuple(made_run(seed, pace=2) for seed in range(6, 16)))
    takes = row(compare((one, report_of(one, ABOUT)), (other, report_of(other, ABOUT))), "change takes")
    assert (takes.first_less, takes.second_less, takes.better) == (5, 0, "")


@given(st.integers(min_value=0, max_value=40), st.integers(min_value=0, max_value=40))
def test_clear_is_the_exact_sign_test(less, more):
    pairs, most = less + more, max(less, more)
    chance = 2 * sum((Fraction(comb(pairs, wins), 2**pairs) for wins in range(most, pairs + 1)), Fraction(0))
    assert is_clear(less, more) == (less != more and chance < Fraction(1, 100))


@pytest.mark.parametrize(
    ("less", "more", "clear"), [(7, 0, False), (8, 0, True), (16, 4, False), (17, 3, True), (3, 17, True), (10, 10, False)]
)
def test_what_is_clear(less, more, clear):
    assert is_clear(less, more) is clear


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (units.duration(0), "0.0 s"),
        (units.duration(9.94), "9.9 s"),
        (units.duration(9.96), "10 s"),
        (units.duration(59.4), "59 s"),
        (units.duration(59.6), "1 min"),
        (units.duration(270), "4 min 30 s"),
        (units.duration(3600), "1 h"),
        (units.duration(3599.9), "1 h"),
        (units.duration(7500), "2 h 5 min"),
        (units.duration(3600 * 23 + 59 * 60 + 59), "1 d"),
        (units.duration(86400 * 3 + 3600 * 4), "3 d 4 h"),
        (units.bytes_(0), "0 B"),
        (units.bytes_(999), "999 B"),
        (units.bytes_(1500), "1.5 kB"),
        (units.bytes_(230_400_000), "230 MB"),
        (units.minutes(0), "0 min"),
        (units.minutes(0.0001), "0.1 s"),
        (units.minutes(0.01), "0.6 s"),
        (units.minutes(0.3), "18 s"),
        (units.minutes(59 / 60), "59 s"),
        (units.minutes(59.6 / 60), "1.0 min"),
        (units.minutes(12.34), "12.3 min"),
        (units.minutes(1234), "1,234 min"),
        (units.energy(0), "0.0 Wh"),
        (units.energy(0.001), "< 0.01 Wh"),
        (units.energy(0.04), "0.04 Wh"),
        (units.energy(12.34), "12.3 Wh"),
        (units.energy(1234), "1.2 kWh"),
        (units.share(0), "0 %"),
        (units.share(1), "100 %"),
        (units.share(0.00001), "< 0.01 %"),
        (units.share(0.99999), "> 99.99 %"),
        (units.share(0.0123), "1.23 %"),
        (units.share(0.15), "15.0 %"),
    ],
)
def test_figures_are_said_with_their_units(said, text):
    assert said == text


def workload(version):
    artifact = ArtifactReference(name="inspector", version=version)
    return Workload(
        metadata=Metadata(name="inspector", namespace="a"),
        spec=WorkloadSpec(artifact=artifact, placement=Placement(every_matching_device=EveryMatchingDevice())),
    )


@pytest.mark.parametrize(
    ("before", "acts", "words"),
    [
        ("1", [Act(at=0, apply=workload("2"))], "a/inspector 1 to 2"),
        ("1", [Act(at=0, apply=workload("1"))], "a/inspector changes"),
        (None, [Act(at=0, apply=workload("1"))], "a/inspector 1, new"),
        ("1", [Act(at=0, delete="a/inspector")], "a/inspector goes"),
        ("1", [Act(at=at, apply=workload(str(at))) for at in (2, 3, 4, 5)], "a/inspector 1 to 2, a/inspector 2 to 3 and 2 more"),
        (
            "1",
            [
                Act(
                    at=0,
                    apply=Artifact(
                        metadata=Metadata(name="inspector", namespace="a"), spec=ArtifactSpec(type="model", aliases={"best": "4"})
                    ),
                )
            ],
            "best of inspector to 4",
        ),
        ("1", [Act(at=0, action="cordon", on="box-1")], "no change"),
    ],
)
def test_a_change_is_named_in_a_few_words(before, acts, words):
    fleet = TwinFleet(
        sites=(TwinSite(name="hall"),),
        classes=(DeviceClass(name="box"),),
        devices=(TwinDevice(name="box-1", site="hall", device_class="box"),),
        workloads=() if before is None else (workload(before),),
    )
    assert change_words(Plan(seed=1, fleet=fleet, scenario=Scenario(name="calm"), acts=tuple(acts))) == words


def test_every_field_of_the_json_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    documented = set(re.findall(r"`([a-zA-Z_0-9]+)`", text.partition("### The JSON report")[2]))
    kinds = (Report, About, RunSummary, Distributions, RolloutOutcome, WorkloadOutcome, LostRun, Violation, Comparison, ComparisonRow)
    wanted = {name for kind in kinds for name in kind.__struct_encode_fields__}
    assert wanted <= documented, sorted(wanted - documented)
