"""Why devices failed, and how well that was foreseen, as people read it."""

from edgewise.cli.causes import explained, risk_lines
from edgewise.resources.rollout import Explanation, RolloutRisk


def test_a_cause_comes_with_its_evidence_its_devices_and_what_to_do():
    cause = Explanation(cause="disk", evidence="3 of 3", advice="free space", count=8, devices=tuple(f"d{n}" for n in range(8)))
    assert explained((cause,)) == ["  disk: 3 of 3", "    devices: d0, d1, d2, d3, d4, d5 and 2 more", "    next: free space"]
    assert explained(()) == []


def test_what_was_predicted_stands_beside_what_came_of_it():
    risk = RolloutRisk(
        source="model", ended=20, predicted=1.34, failed=2, scored=200, brier=0.05, base=0.09, error=0.03, riskiest=("d (9%): x",)
    )
    assert risk_lines(risk) == [
        "  1.3 failures predicted of 20 devices, 2 seen (learned from the fleet's history)",
        "  calibration over the last 200 predictions: error 3.0%, Brier score 0.050 (always the same: 0.090)",
        "  most at risk: d (9%): x",
    ]
    (line,) = risk_lines(RolloutRisk())
    assert "by rules" in line
