"""What docs/twin.md says is so: the scenarios, the faults and behaviours, the scenario and the strategy that it shows, the commands."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml

from edgewise.cli import main
from edgewise.resources.workload import Strategy
from edgewise.twin.invariants import INVARIANTS
from edgewise.twin.library import names, parse, scenario
from edgewise.twin.scenario import Behaviour, FaultKind, Scenario
from edgewise.twin.snapshot import LIMITS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "twin.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_every_scenario_is_in_the_table_with_its_own_words():
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (.+) \|$", PAGE.partition("<!-- scenarios -->")[2].partition("<!-- /scenarios -->")[0], re.MULTILINE
    )
    assert rows == [(name, scenario(name).description) for name in names()], "run: python docs/generate.py"


def test_every_invariant_is_in_the_table_with_its_own_promise():
    section = PAGE.partition("\n## Invariants\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (yes)? ?\|$", section, re.MULTILINE)
    told = [(name, each.promise, "yes" if each.cheap else "") for name, each in INVARIANTS.items()]
    assert rows == told, "run: python docs/generate.py"


def test_every_fault_and_every_way_to_fail_is_told():
    table = PAGE.partition("| fault | what it does |")[2].partition("\n\n")[0]
    assert sorted(name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])) == sorted(
        get_args(FaultKind)
    )
    for way in get_args(Behaviour.__annotations__["fails"]):
        assert f"`{way}`" in PAGE or way == ""


def test_the_scenario_and_the_strategy_shown_are_valid():
    written, strategy = EXAMPLES
    shown = parse(written, "docs/twin.md")
    assert isinstance(shown, Scenario)
    assert shown.name == "night-shift"
    canary = msgspec.convert(yaml.safe_load(strategy)["strategy"], Strategy).canary
    assert canary.unavailability_budget == "30s"


def test_the_sections_that_others_point_to_are_there():
    for heading in ("Invariants", "Power cuts", "What the twin does not model", "Rehearse, then apply"):
        assert f"\n## {heading}\n" in PAGE
    assert LIMITS.versions_per_artifact == 10
    assert "the ten newest versions" in PAGE


@pytest.mark.parametrize("command", ["simulate", "apply", "twin snapshot"])
def test_every_option_shown_is_one(command, capsys):
    assert main.run([*command.split(), "--help"]) == 0
    known = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out))
    lines = re.findall(rf"^    edgewise {command}(?: .*)?$", PAGE, re.MULTILINE)
    assert lines
    for line in lines:
        assert set(re.findall(r"(--[a-z-]+)", line.partition("#")[0])) <= known
