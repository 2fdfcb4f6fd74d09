"""Who may do what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.kinds import KINDS
from edgewise.trust.access import OTHER_KINDS, ROLES, VERBS, decide, least_role

ALL_KINDS = (*(kind.name for kind in KINDS), *OTHER_KINDS)


def test_without_a_role_nothing_is_allowed():
    assert not any(decide(None, verb, kind).allowed for verb in VERBS for kind in ALL_KINDS)
    assert not decide("root", "get", "Device").allowed  # type: ignore[arg-type]


@given(st.sampled_from(ROLES), st.text(max_size=12), st.text(max_size=12))
def test_unknown_words_are_denied(role, verb, kind):
    if verb not in VERBS or kind not in ALL_KINDS:
        assert not decide(role, verb, kind).allowed


def test_roles_grow():
    for verb in VERBS:
        for kind in ALL_KINDS:
            allowed = [decide(role, verb, kind).allowed for role in ROLES]
            assert allowed == sorted(allowed)


def test_viewers_only_look():
    may = {verb for verb in VERBS for kind in ALL_KINDS if decide("viewer", verb, kind).allowed}
    assert may == {"get", "list", "watch"}
    for kind in ("JoinToken", "AccessToken", "Blob"):
        assert not any(decide("viewer", verb, kind).allowed for verb in VERBS)


@pytest.mark.parametrize(
    ("verb", "kind", "least"),
    [
        ("create", "Workload", "operator"),
        ("update", "Config", "operator"),
        ("update", "Secret", "operator"),
        ("promote", "Rollout", "operator"),
        ("clear-refused", "Device", "operator"),
        ("label", "Device", "operator"),
        ("publish", "ArtifactVersion", "operator"),
        ("publish", "Blob", "operator"),
        ("create", "JoinToken", "admin"),
        ("create", "AccessToken", "admin"),
        ("list", "AccessToken", "admin"),
        ("decommission", "Device", "admin"),
        ("revoke", "Agent", "admin"),
        ("delete", "Device", "admin"),
        ("update", "Instance", None),
        ("create", "Agent", None),
        ("update", "WorkloadRevision", None),
        ("delete", "Event", None),
        ("update", "ArtifactVersion", None),
    ],
)
def test_the_table(verb, kind, least):
    assert least_role(verb, kind) == least
    for rank, role in enumerate(ROLES):
        decision = decide(role, verb, kind)
        assert decision.allowed == (least is not None and rank >= ROLES.index(least))
        assert decision.reason
