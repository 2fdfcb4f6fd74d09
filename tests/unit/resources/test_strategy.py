"""Strategies as a person writes them: every rule broken alone, and what an existing manifest means."""

import msgspec
import pytest

from edgewise.resources.errors import Invalid
from edgewise.resources.kinds import BY_NAME
from edgewise.resources.manifests import load
from edgewise.resources.quantity import fraction
from edgewise.resources.validation import problems
from edgewise.resources.workload import Canary, Strategy

AGREES = {"metric": "model.shadow.disagreement", "max": "2%"}
BETTER = {"metric": "model.accuracy", "direction": "higher", "margin": 0.01}
SLOWER = {"metric": "model.server.request.duration", "direction": "lower", "margin": "10%", "quantile": 0.95}


def said(**strategy):
    spec = {"artifact": {"name": "a", "version": "1"}, "placement": {"replicas": 1}, "strategy": strategy}
    resource = msgspec.convert({"kind": "Workload", "metadata": {"name": "a"}, "spec": spec}, BY_NAME["Workload"].type)
    return [f"{problem.path}: {problem.message}" for problem in problems(resource)]


@pytest.mark.parametrize(
    "strategy",
    [
        {},
        {"canary": {"waves": [1, "100%"]}},
        {"shadow": {}, "analysis": [AGREES]},
        {"shadow": {"devices": 3, "share": "5%"}, "canary": {"waves": [1, "100%"]}, "analysis": [AGREES, BETTER, SLOWER]},
        {"ab": {}, "analysis": [BETTER, {"metric": "model.accuracy", "min": "90%"}]},
        {"ab": {"share": "20%", "sticky": "x-session", "onNoDifference": "promote"}, "analysis": [SLOWER]},
        {"blueGreen": {}},
        {"blueGreen": {"autoPromote": False}, "analysis": [{"metric": "m", "min": 1, "max": 2}]},
        {"analysis": [SLOWER, {**SLOWER, "quantile": 0.5}, {"metric": "m", "max": 0.2, "quantile": 0.9}]},
    ],
)
def test_what_is_well_has_no_problems(strategy):
    assert said(**strategy) == []


@pytest.mark.parametrize(
    ("strategy", "problem"),
    [
        ({"ab": {}, "blueGreen": {}, "analysis": [BETTER]}, "spec.strategy: has ab and blueGreen; exactly one of canary, ab or blueGreen"),
        ({"ab": {}, "canary": {"waves": [2, "100%"]}, "analysis": [BETTER]}, "spec.strategy: has canary and ab; exactly one of"),
        ({"shadow": {}, "ab": {}, "analysis": [AGREES, BETTER]}, "spec.strategy.shadow: goes before a canary, not before ab"),
        ({"shadow": {}, "blueGreen": {}, "analysis": [AGREES]}, "spec.strategy.shadow: goes before a canary, not before blueGreen"),
        ({"shadow": {}, "analysis": [BETTER]}, "spec.strategy.shadow: nothing judges the shadow"),
        ({"shadow": {"devices": "0%"}, "analysis": [AGREES]}, "spec.strategy.shadow.devices: must be more than 0"),
        ({"shadow": {"share": "0%"}, "analysis": [AGREES]}, "spec.strategy.shadow.share: must be more than 0%"),
        ({"analysis": [AGREES]}, "spec.strategy.analysis[0].metric: model.shadow.disagreement is reported by a shadow only"),
        (
            {"shadow": {}, "analysis": [{"metric": "model.shadow.distance", "direction": "lower", "margin": 1}]},
            "spec.strategy.analysis[0].direction: model.shadow.distance is the difference to the revision before",
        ),
        ({"ab": {"share": "0%"}, "analysis": [BETTER]}, "spec.strategy.ab.share: 0% leaves one of the two without a request"),
        ({"ab": {"share": "100%"}, "analysis": [BETTER]}, "spec.strategy.ab.share: 100% leaves one of the two without a request"),
        ({"ab": {"devices": "0%"}, "analysis": [BETTER]}, "spec.strategy.ab.devices: must be more than 0"),
        ({"ab": {"giveUpAfter": "0s"}, "analysis": [BETTER]}, "spec.strategy.ab.giveUpAfter: must be more than 0"),
        ({"ab": {"deviceDeadline": "0s"}, "analysis": [BETTER]}, "spec.strategy.ab.deviceDeadline: must be more than 0"),
        ({"ab": {}, "analysis": [{"metric": "m", "min": 1}]}, "spec.strategy.ab: nothing tells who wins"),
        ({"blueGreen": {"deviceDeadline": "0s"}}, "spec.strategy.blueGreen.deviceDeadline: must be more than 0"),
        ({"blueGreen": {}, "analysis": [BETTER]}, "spec.strategy.analysis[0].direction: all devices switch at once"),
        ({"canary": {"waves": ["100%"]}, "analysis": [BETTER]}, "spec.strategy.analysis[0].direction: the first wave has all devices"),
        ({"errorRate": "0%"}, "spec.strategy.errorRate: 0% is not between"),
        ({"errorRate": "50%"}, "spec.strategy.errorRate: 50% is not between"),
        ({"analysis": [BETTER, BETTER]}, "spec.strategy.analysis: 2 entries have the compared metric 'model.accuracy'"),
        ({"analysis": [{**BETTER, "min": 1}]}, "spec.strategy.analysis[0]: has a threshold and a direction"),
        ({"analysis": [{"metric": "m"}]}, "spec.strategy.analysis[0]: needs min or max, or both, or a direction"),
        ({"analysis": [{"metric": "m", "direction": "lower"}]}, "spec.strategy.analysis[0].margin: is missing"),
        ({"analysis": [{"metric": "m", "min": 1, "margin": 1}]}, "spec.strategy.analysis[0].margin: belongs to a comparison"),
        ({"analysis": [{**BETTER, "margin": 0}]}, "spec.strategy.analysis[0].margin: 0 is not more than 0"),
        ({"analysis": [{**BETTER, "margin": float("nan")}]}, "spec.strategy.analysis[0].margin: nan is not more than 0"),
        ({"analysis": [{**BETTER, "margin": float("inf")}]}, "spec.strategy.analysis[0].margin: inf is not more than 0"),
        ({"analysis": [{**BETTER, "quantile": 1}]}, "spec.strategy.analysis[0].quantile: 1 is not between 0 and 1"),
        ({"analysis": [{**BETTER, "quantile": 0}]}, "spec.strategy.analysis[0].quantile: 0 is not between 0 and 1"),
        ({"analysis": [{"metric": "m", "min": "90%", "max": 0.5}]}, "spec.strategy.analysis[0].min: 90% is greater than max, 0.5"),
        ({"analysis": [{"metric": "m", "min": float("nan")}]}, "spec.strategy.analysis[0]: min and max must be numbers"),
        ({"analysis": [{"metric": "", "min": 1}]}, "spec.strategy.analysis[0].metric: must not be empty"),
        ({"analysis": [{"metric": "m", "min": 1, "giveUpAfter": "0s"}]}, "spec.strategy.analysis[0].giveUpAfter: must be more than 0"),
    ],
)
def test_each_rule(strategy, problem):
    assert any(each.startswith(problem) for each in said(**strategy)), said(**strategy)


MANIFEST = """
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {{name: a}}
spec:
  artifact: {{name: a, version: "1"}}
  placement: {{replicas: 1}}
  strategy:
    {strategy}
"""


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("blueGren: {}", "blueGreen"),
        ("shaddow: {}", "shadow"),
        ("ab: {onNoDifferense: keep}", "onNoDifference"),
        ("shadow: {device: 1}", "devices"),
        ("analysis: [{metric: m, directon: lower}]", "direction"),
    ],
)
def test_a_misspelt_field_gets_the_nearest_name(strategy, words):
    with pytest.raises(Invalid) as raised:
        load(MANIFEST.format(strategy=strategy), "a.yaml")
    assert words in str(raised.value)
    assert "a.yaml:" in str(raised.value)


@pytest.mark.parametrize(
    ("strategy", "path"),
    [
        ("ab: {share: 1.5}", "spec.strategy.ab.share"),
        ("ab: {share: 150%}", "spec.strategy.ab.share"),
        ("ab: {sticky: 'x y'}", "spec.strategy.ab.sticky"),
        ("ab: {onNoDifference: maybe}", "spec.strategy.ab.onNoDifference"),
        ("shadow: {observeFor: soon}", "spec.strategy.shadow.observeFor"),
        ("blueGreen: {autoPromote: perhaps}", "spec.strategy.blueGreen.autoPromote"),
        ("analysis: [{metric: m, max: 2 %}]", "spec.strategy.analysis[0].max"),
        ("analysis: [{metric: m, direction: up}]", "spec.strategy.analysis[0].direction"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(strategy, path):
    with pytest.raises(Invalid) as raised:
        load(MANIFEST.format(strategy=strategy), "a.yaml")
    assert path in str(raised.value)


def test_an_existing_manifest_means_what_it_meant():
    old = msgspec.convert({"canary": {"waves": [1, "100%"]}, "analysis": [{"metric": "m", "min": 0.5}]}, Strategy)
    assert (old.canary.waves, old.shadow, old.ab, old.blue_green) == ((1, "100%"), None, None, None)
    assert msgspec.convert({}, Strategy).canary == Canary()
    assert msgspec.to_builtins(old) == {"canary": {"waves": (1, "100%")}, "analysis": ({"metric": "m", "min": 0.5},)}


@pytest.mark.parametrize(("amount", "part"), [("2%", 0.02), ("100%", 1.0), (0.5, 0.5), (3, 3.0), ("0.5%", 0.005)])
def test_a_percentage_is_a_part_of_one(amount, part):
    assert fraction(amount) == pytest.approx(part)
