"""Verdicts, and the hash of what a workload means."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.delivery.analysis import gives_up_at, judge, overall
from edgewise.delivery.evidence.units import Sides, side_of
from edgewise.delivery.facts import VersionFacts
from edgewise.delivery.templates import Sources, Unready, data_digest, resolve, template_hash
from edgewise.resources.artifact import Parameter
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric, ArtifactReference, NameReference, Placement, Resources, Template, WorkloadSpec

METRIC = AnalysisMetric(metric="accuracy", min=0.9, max=0.99, min_samples=10, give_up_after="60s")


@pytest.mark.parametrize(
    ("count", "mean", "since", "state"),
    [
        (0, 0.0, None, AnalysisState.RUNNING),
        (9, 0.1, 50.0, AnalysisState.RUNNING),
        (9, 0.1, 40.0, AnalysisState.INCONCLUSIVE),
        (10, 0.1, 40.0, AnalysisState.FAILED),
        (10, 0.9, 40.0, AnalysisState.SUCCESSFUL),
        (10, 0.99, None, AnalysisState.SUCCESSFUL),
        (10, 0.8999, None, AnalysisState.FAILED),
        (11, 0.9901, None, AnalysisState.FAILED),
        (10, math.nan, None, AnalysisState.FAILED),
    ],
)
def test_verdicts(count, mean, since, state):
    (verdict,) = judge((METRIC,), {"accuracy": Sides(new=side_of(count, mean * count))}, 0.01, since, 100.0)
    assert verdict.state is state
    assert verdict.samples == count


def test_overall():
    states = AnalysisState
    verdict = judge((METRIC,), {}, 0.01, None, 0.0)[0]

    def of(*these):
        return overall(tuple(msgspec.structs.replace(verdict, state=state) for state in these))

    assert of() is states.SUCCESSFUL
    assert of(states.SUCCESSFUL, states.RUNNING) is states.RUNNING
    assert of(states.INCONCLUSIVE, states.RUNNING) is states.INCONCLUSIVE
    assert of(states.INCONCLUSIVE, states.FAILED, states.SUCCESSFUL) is states.FAILED
    assert gives_up_at((METRIC, msgspec.structs.replace(METRIC, give_up_after="10s")), 5.0) == 15.0


VERSION = VersionFacts(
    artifact="app", version="2", type="bundle", target="t", digest="sha256:" + "1" * 64, length=1, variants=(),
    parameters={"level": Parameter(type="integer", minimum=0, maximum=9)},
)  # fmt: skip
SOURCES = Sources(aliases={"champion": "2"}, versions={"2": VERSION}, configs={"c": "sha256:c"}, secrets={"s": "sha256:s"})


def spec(**fields):
    known = {"artifact": ArtifactReference(name="app", version="2"), "placement": Placement(replicas=1)}
    return WorkloadSpec(**{**known, **fields})


def test_an_alias_is_resolved():
    by_alias = resolve(spec(artifact=ArtifactReference(name="app", alias="champion")), SOURCES)
    assert by_alias == resolve(spec(), SOURCES)
    assert isinstance(by_alias, Template)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"artifact": ArtifactReference(name="app", version="3")}, "ArtifactNotFound"),
        ({"artifact": ArtifactReference(name="app", alias="nope")}, "AliasNotFound"),
        ({"config": NameReference(name="nope")}, "ConfigNotFound"),
        ({"secrets": (NameReference(name="s"), NameReference(name="nope"))}, "SecretNotFound"),
        ({"parameters": {"nope": 1}}, "InvalidParameters"),
        ({"parameters": {"level": 10}}, "InvalidParameters"),
        ({"parameters": {"level": "1"}}, "InvalidParameters"),
    ],
)
def test_unready(fields, reason):
    problem = resolve(spec(**fields), SOURCES)
    assert isinstance(problem, Unready)
    assert problem.reason == reason
    assert problem.message


def test_an_alias_of_no_artifact():
    assert resolve(spec(artifact=ArtifactReference(name="x", alias="a")), Sources(aliases=None, versions={}, configs={}, secrets={})).reason


CHANGES = [
    {"resources": Resources(memory="1Gi")},
    {"parameters": {"level": 1}},
    {"config": NameReference(name="c")},
    {"secrets": (NameReference(name="s"),)},
]


def test_what_decides_what_runs_changes_the_hash():
    hashes = [template_hash(resolve(spec(**change), SOURCES)) for change in [{}, *CHANGES]]
    assert len(set(hashes)) == len(hashes)
    assert all(len(text) == 12 for text in hashes)
    changed = msgspec.structs.replace(SOURCES, configs={"c": "sha256:d"})
    assert template_hash(resolve(spec(config=NameReference(name="c")), changed)) not in hashes
    changed = msgspec.structs.replace(SOURCES, versions={"2": msgspec.structs.replace(VERSION, digest="sha256:" + "2" * 64)})
    assert template_hash(resolve(spec(), changed)) not in hashes


def test_where_and_how_it_goes_out_does_not():
    assert template_hash(resolve(spec(placement=Placement(replicas=7)), SOURCES)) == template_hash(resolve(spec(), SOURCES))


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=5))
def test_digests_ignore_the_order(data):
    assert data_digest(data) == data_digest(dict(reversed(data.items())))


def test_a_template_s_hash_never_changes():
    """Devices and documents carry it: a new library or field must not move it."""
    template = Template(artifact="app", version="2", manifest_digest="sha256:" + "1" * 64, parameters={"b": 1, "a": 0.5})
    assert template_hash(template) == template_hash(msgspec.structs.replace(template, parameters={"a": 0.5, "b": 1}))
    assert template_hash(template) == "1c729029061f"
