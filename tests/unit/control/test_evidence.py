"""The evidence as SVG: whatever stands in it, it is one well-formed picture in which nothing can run."""

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from edgewise.control.api.evidence import drawn
from edgewise.resources.rollout import Difference, MetricVerdict, RolloutStatus, SideEstimate, StageVerdict
from edgewise.resources.states import AnalysisState, RolloutState

SAFE = {"svg", "text", "g", "line", "circle", "title", "rect", "path"}
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cn", "Cc")), max_size=300)


@given(TEXT, TEXT, st.sampled_from(sorted(AnalysisState)))
def test_nothing_that_is_said_becomes_markup(metric, message, state):
    compared = MetricVerdict(
        metric=metric,
        state=state,
        message=f"<script>alert(1)</script>{message}",
        direction="higher",
        new=SideEstimate(value=0.9, samples=10, devices=1),
        old=SideEstimate(value=0.8, samples=10, devices=1),
        difference=Difference(value=0.1, low=-0.1, high=0.3),
        margin=0.05,
    )
    stage = StageVerdict(wave=1, phase="Shadow", state=state, verdicts=(compared,))
    status = RolloutStatus(state=RolloutState.PROGRESSING, phase="Canary", wave=2, stages=(stage,), verdicts=(compared,))
    tree = ET.fromstring(drawn("app-2", status))
    assert {element.tag.rpartition("}")[2] for element in tree.iter()} <= SAFE
    assert not [name for element in tree.iter() for name in element.attrib if name.startswith("on") or name.endswith("href")]
    assert len(tree.findall(".//{*}circle")) == 2


def test_a_rollout_that_nothing_judged_says_so():
    assert "nothing was judged" in drawn("app-1", RolloutStatus())
