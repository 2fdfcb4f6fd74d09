"""Scenarios: those that come with Edgewise, and what is said of those that make no sense."""

import tomllib
from pathlib import Path

import pytest

from edgewise.resources.errors import Error, Invalid
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import LIMITS, UnknownScenario, check, names, parse, scenario
from edgewise.twin.scenario import FaultRule, Scenario, Select
from edgewise.twin.schedule import schedule

FLEET = made_fleet(200, seed=9)
ROOT = Path(__file__).parents[3]

PROMISED = {
    "calm": set(),
    "partition": {"partition"},
    "flapping": {"partition", "link"},
    "power-cuts": {"power-cut"},
    "bad-model": set(),
    "slow-canary": {"link"},
    "mass-reconnect": {"partition"},
    "battery-night": {"battery"},
    "heat-wave": {"heat"},
    "disk-full": {"disk-full"},
    "clock-skew": {"clock"},
    "control-plane-loss": {"control-kill", "control-kill-at-write", "slow-store"},
    "restored-backup": {"control-restore"},
}


def test_all_are_there():
    assert set(names()) == set(PROMISED)
    assert names()[0] == "calm"


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_each_gives_the_faults_that_it_promises(name):
    loaded = scenario(name, FLEET)
    assert loaded.name == name
    assert 40 < len(loaded.description) < 200
    faults = schedule(loaded, FLEET, 1)
    assert {fault.rule.fault for fault in faults} == PROMISED[name]
    assert len(faults) < 3 * len(FLEET.devices)
    check(loaded, made_fleet(1))


def test_the_bad_ones_speak_of_the_new_version():
    assert [(one.version, one.analysis) for one in scenario("bad-model").behaviours] == [("new", "fails")]
    assert [one.start_seconds for one in scenario("slow-canary").behaviours] == [240, 45]


def test_the_wheel_takes_them_along():
    """Hatch takes every file below a package that git does not ignore."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/edgewise"]}
    assert not any("yaml" in line or "scenarios" in line for line in (ROOT / ".gitignore").read_text().splitlines())


def test_a_file_is_taken_by_its_path(tmp_path):
    path = tmp_path / "night.yaml"
    path.write_text("name: night\nfaults:\n  - {fault: reboot, at: 1m}\n")
    assert scenario(str(path)).faults[0].at == "1m"


@pytest.mark.parametrize(
    ("word", "said"),
    [("partion", "did you mean 'partition'"), ("xyz", "there are calm, bad-model"), ("calm.yaml", "No such file"), ("./", "directory")],
)
def test_what_is_not_there_is_said(word, said):
    with pytest.raises(UnknownScenario, match=said) as caught:
        scenario(word)
    assert isinstance(caught.value, Error)


def test_a_file_may_not_be_endless(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * LIMITS.file_bytes_max + b"\n")
    with pytest.raises(UnknownScenario, match="larger than"):
        scenario(str(path))


def said_of(text, fleet=None):
    with pytest.raises(Invalid) as caught:
        parse(text, "x.yaml", fleet)
    return str(caught.value)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{fault: partion}", "x.yaml:3:13: faults[0].fault: 'partion' is none of"),
        ("{fault: partion}", "did you mean 'partition'?"),
        ("{fault: reboot, evry: 2m}", "unknown field 'evry' (did you mean 'every'?)"),
        ("{fault: reboot, every: 2m}", "faults[0].every: needs until"),
        ("{fault: reboot, every: 2 minutes, until: 3m}", "such as 500ms, 30s, 2m"),
        ("{fault: reboot, every: 10ms, until: 3m}", "must be at least 1s"),
        ("{fault: reboot, until: 3m}", "has no meaning for what comes once (give every, or together: false)"),
        ("{fault: control-kill, until: 3m, together: false}", "has no meaning for what comes once (give every)"),
        ("{fault: reboot, at: 5m, every: 1m, until: 3m}", "3m is not after 5m"),
        ("{fault: reboot, at: 30m}", "30m is not before the scenario's end"),
        ("{fault: link}", "needs quality"),
        ("{fault: partition, quality: {loss: 0.1}}", "is for the fault link, not for partition"),
        ("{fault: link, quality: {loss: 0.31}}", "must be at most 0.3, is 0.31"),
        ("{fault: link, quality: {los: 0.1}}", "did you mean 'loss'?"),
        ("{fault: reboot, direction: up}", "is for the fault partition"),
        ("{fault: reboot, crash: torn}", "is for the fault power-cut"),
        ("{fault: reboot, seconds: 3}", "means nothing for reboot"),
        ("{fault: reboot, amount: 3}", "means nothing for reboot"),
        ("{fault: control-restore}", "must be given and more than 0 (how old the backup is)"),
        ("{fault: slow-store}", "must be given and more than 0"),
        ("{fault: battery, amount: 20}", "must be a share from 0 to 1"),
        ("{fault: heat}", "must be given and more than 0 (degrees Celsius)"),
        ("{fault: control-kill-at-write, amount: 2}", "must be a share from 0 to 1"),
        ("{fault: control-kill, select: {sites: [site-01]}}", "hits the control plane, not devices"),
        ("{fault: reboot, select: {share: 0}}", "nobody would be hit"),
        ("{fault: reboot, select: {share: 1.5}}", "must be at most 1, is 1.5"),
        ("{fault: reboot, select: {sites: site-01}}", "must be a list, is a single value"),
        ("{fault: reboot, select: {sites: [site-1]}}", "faults[0].select.sites[0]: the fleet has no 'site-1' (did you mean 'site-01'?)"),
        ("{fault: reboot, select: {classes: [rasberry-pi-4]}}", "did you mean 'raspberry-pi-4'?"),
        ("{fault: reboot, select: {devices: [devce-007]}}", "did you mean 'device-007'?"),
        ("{fault: reboot, select: {labels: {line: '3'}}}", "no device of the fleet has the label line=3"),
        ("{fault: reboot, select: {sites: [site-01], devices: [device-200]}}", "no device of the fleet is all of that"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_place(rule, said):
    text = said_of(f"name: x\nfaults:\n  - {rule}\n", FLEET)
    assert said in text
    assert text.startswith("x.yaml:3:")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("lasts: 0s", "must be more than 0"),
        ("lasts: 400d", "at most a year"),
        ("settle: 400d", "at most a year"),
        ("lats: 3m", "did you mean 'lasts'?"),
        ("behaviours: [{version: new, fails: crash}]", "did you mean 'crashes'?"),
        ("behaviours: [{version: new, share: 0}]", "it would be nowhere"),
        ("behaviours: [{metrics: {m: [1, -1]}}]", "must not be negative"),
        ("behaviours: [{metrics: {m: [1]}}]", "needs 2 entries, has 1"),
        ("behaviours: [{metrics: {m: 1}}]", "must be a list"),
        ("behaviours: [{metrics: {m: [1, x]}}]", "must be a number"),
        ("behaviours: [{analysis: fails, metrics: {m: [1, 1]}}]", "has no place beside analysis"),
        ("behaviours: [{deviceClass: jetson-orin-nan}]", "did you mean 'jetson-orin-nano'?"),
        (f"faults: [{', '.join(['{fault: reboot}'] * (LIMITS.rules_max + 1))}]", "201 entries, at most 200"),
    ],
)
def test_what_makes_no_sense_outside_of_rules_is_said(lines, said):
    text = said_of(f"name: x\n{lines}\n", FLEET)
    assert said in text
    assert text.startswith("x.yaml:2:")


def test_as_many_rules_as_allowed_are_taken():
    rules = ", ".join(["{fault: reboot}"] * LIMITS.rules_max)
    assert len(parse(f"name: x\nfaults: [{rules}]\n").faults) == LIMITS.rules_max


def test_several_problems_are_said_at_once():
    assert said_of("name: x\nfaults:\n  - {fault: link}\n  - {fault: reboot, every: 2m}\n").count("x.yaml:") == 2


def test_a_scenario_in_code_is_checked_as_well():
    wanted = Scenario(name="mine", faults=(FaultRule(fault="reboot", select=Select(sites=("sit-01",))),))
    with pytest.raises(Invalid, match=r"scenario mine: faults\[0\].select.sites\[0\]"):
        check(wanted, FLEET)


def test_metrics_are_read():
    loaded = parse("name: x\nbehaviours:\n  - metrics: {model.accuracy: [0.9, 0.02]}\n")
    assert loaded.behaviours[0].metrics == {"model.accuracy": (0.9, 0.02)}
