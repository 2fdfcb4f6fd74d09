"""Selectors: every operator, set and unset labels, and the words for what does not hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.selector import Requirement, Selector, matches, unmet

LABELS = {
    "camera": "front",
    "site": "lab",
    "capacity.memory": "512Mi",
    "capacity.cpu": "2",
    "runtime.python": "3.11",
    "runtime.tensorrt": "8.6.2",
    "runtime.odd": "new",
}


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("camera", "In", ("front", "back"), True),
        ("camera", "In", ("back",), False),
        ("absent", "In", ("front",), False),
        ("camera", "NotIn", ("back",), True),
        ("camera", "NotIn", ("front",), False),
        ("absent", "NotIn", ("front",), True),
        ("camera", "Exists", (), True),
        ("absent", "Exists", (), False),
        ("camera", "DoesNotExist", (), False),
        ("absent", "DoesNotExist", (), True),
        ("capacity.memory", "Gt", ("256Mi",), True),
        ("capacity.memory", "Gt", ("512Mi",), False),
        ("capacity.memory", "Ge", ("512Mi",), True),
        ("capacity.memory", "Ge", ("513Mi",), False),
        ("capacity.cpu", "Lt", ("2500m",), True),
        ("capacity.cpu", "Lt", ("2",), False),
        ("capacity.cpu", "Le", ("2000m",), True),
        ("capacity.cpu", "Le", ("1999m",), False),
        ("absent", "Gt", ("1",), False),
        ("camera", "Gt", ("1",), False),
        ("capacity.cpu", "Gt", (), False),
        ("runtime.python", "Ge", ("3.9",), True),
        ("runtime.python", "Lt", ("3.9",), False),
        ("runtime.python", "Le", ("3.11.0",), True),
        ("runtime.python", "Gt", ("3.11.0",), False),
        ("runtime.tensorrt", "Ge", ("8.6",), True),
        ("runtime.tensorrt", "Gt", ("8.6.2",), False),
        ("runtime.tensorrt", "Lt", ("8.10",), True),
        ("runtime.tensorrt", "Le", ("8",), False),
        ("runtime.tensorrt", "Ge", ("any",), False),
        ("runtime.odd", "Lt", ("9",), False),
        ("runtime.absent", "Lt", ("9",), False),
    ],
)
def test_every_operator(key, operator, values, expected):
    selector = Selector(match_expressions=(Requirement(key=key, operator=operator, values=values),))
    assert matches(selector, LABELS) is expected


def test_all_conditions_must_hold():
    requirement = Requirement(key="camera", operator="Exists")
    assert matches(Selector(match_labels={"site": "lab"}, match_expressions=(requirement,)), LABELS)
    assert not matches(Selector(match_labels={"site": "hall"}, match_expressions=(requirement,)), LABELS)


def test_an_empty_selector_matches_everything():
    assert matches(Selector(), {})


def test_what_does_not_hold_is_said_in_words():
    assert unmet(Selector(match_labels={"site": "hall"}), LABELS) == "site must be hall, is lab"
    requirement = Requirement(key="gpu", operator="In", values=("a", "b"))
    assert unmet(Selector(match_expressions=(requirement,)), LABELS) == "gpu must be In a b, is not set"
    assert unmet(Selector(), LABELS) is None


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5), st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3)
)
def test_in_and_not_in_are_opposites(labels, key, values):
    inside = Selector(match_expressions=(Requirement(key=key, operator="In", values=tuple(values)),))
    outside = Selector(match_expressions=(Requirement(key=key, operator="NotIn", values=tuple(values)),))
    assert matches(inside, labels) is not matches(outside, labels)
