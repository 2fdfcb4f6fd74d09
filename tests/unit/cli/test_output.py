"""Tables that fit, and JSON and YAML that read back as the same."""

import json

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgewise.cli import output, tables
from edgewise.resources.config import Config, ConfigSpec
from edgewise.resources.kinds import BY_NAME, KINDS
from edgewise.resources.manifests import load
from edgewise.resources.meta import Metadata


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kinds_table_fits_into_100_columns(kind, make, now):
    text = output.resources(kind, [make(kind.name)] * 2, "table", now, namespaces=False)
    lines = text.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 100 for line in lines)
    assert lines[0].startswith("NAME")
    assert lines[0].split()[-1] == "AGE"
    assert lines[1].split()[-1] == "60m"
    wide = output.resources(kind, [make(kind.name)], "wide", now, namespaces=True)
    assert wide.startswith("NAMESPACE" if kind.namespaced else "NAME")
    assert "line=3" in wide


def test_what_a_person_looks_for_is_in_the_table(make, now):
    device = output.one(make("Device"), "table", now)
    assert "Online,Cordoned" in device
    assert "camera-box" in device
    assert "3/4" in output.one(make("Workload"), "table", now)
    assert "Probation abcdef1" in output.one(make("Instance"), "table", now)
    assert "2/3" in output.one(make("Rollout"), "table", now)
    assert "1/4" in output.one(make("Rollout"), "table", now)
    assert "Quarantined" in output.one(make("Agent"), "table", now)
    assert "fp32,int8" in output.one(make("ArtifactVersion"), "table", now)


def test_names_and_missing_headers(make, now):
    assert output.one(make("Device"), "name", now) == "device/edge-1\n"
    assert "NAME" not in output.resources(BY_NAME["Device"], [make("Device")], "table", now, namespaces=False, headers=False)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_is_printed_reads_back_as_the_same(kind, form, make, now):
    made = make(kind.name)
    (loaded,) = load(output.one(made, form, now), any_kind=True)
    assert (loaded.metadata, loaded.spec) == (made.metadata, made.spec)
    many = output.resources(kind, [made], form, now, namespaces=False)
    assert load(many, any_kind=True) == (loaded,)
    read = yaml.safe_load(many)
    assert read["kind"] == f"{kind.name}List"
    assert read["items"] == [msgspec.json.decode(msgspec.json.encode(made))]


@given(
    st.dictionaries(
        st.from_regex(r"\A[-._a-zA-Z0-9]{1,12}\Z"),
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x7f"), max_size=20),
        max_size=4,
    )
)
def test_any_text_survives_yaml(data):
    printable = {key: "".join(each for each in value if each.isprintable() or each == "\n") for key, value in data.items()}
    config = Config(metadata=Metadata(name="a"), spec=ConfigSpec(data=printable))
    text = output.as_yaml(msgspec.to_builtins(config))
    assert load(text) == (config,)
    assert yaml.safe_load(text)["spec"].get("data", {}) == printable


@pytest.mark.parametrize(
    "word", ["1e3", "no", "on", "0755", "1_000", "12:30", "true", "null", "", "2", "0x1f", "123456e78901", "~", "2024-01-01"]
)
def test_what_looks_like_something_else_is_quoted(word):
    text = output.as_yaml({"a": word})
    assert yaml.safe_load(text) == {"a": word}


def test_columns_are_cut_on_terminals_only(monkeypatch):
    rows = [["a" * 80, "b" * 80]]
    assert "a" * 80 in output.table(["X", "Y"], rows)
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = output.table(["X", "Y"], rows).splitlines()
    assert len(lines[1]) == 100
    assert lines[1].count("…") == 2


@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=8), st.integers(min_value=20, max_value=200))
def test_fitting_never_widens_and_fits_when_it_can(widths, columns):
    least = [min(width, 6) for width in widths]
    fitted = output.fitted(widths, columns, least)
    assert all(new <= old for new, old in zip(fitted, widths, strict=True))
    total = sum(fitted) + 3 * (len(fitted) - 1)
    assert total <= columns or all(width <= 8 for width in fitted)


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    assert output.painted("Running") == "Running"
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.painted("Running") == "\033[32mRunning\033[0m"
    assert output.painted("Failed") == "\033[31mFailed\033[0m"
    assert output.painted("edge-1") == "edge-1"
    monkeypatch.setenv("TERM", "dumb")
    assert output.painted("Running") == "Running"


def test_json_is_json(make, now):
    assert json.loads(output.one(make("Site"), "json", now))["spec"] == {"timeZone": "Europe/Berlin"}


def test_every_kind_has_columns():
    assert all(tables.columns(BY_NAME[kind.name], wide=True, namespaces=True) for kind in KINDS)


def test_rows_that_come_later_align_with_the_first(make, now):
    kind, device = BY_NAME["Device"], make("Device")
    least = output.column_widths(kind, [device], "table", now, namespaces=False)
    whole = output.resources(kind, [device], "table", now, namespaces=False).splitlines()
    later = output.resources(kind, [device], "table", now, namespaces=False, headers=False, least=least)
    assert later.rstrip("\n") == whole[1]
    assert output.table(["A", "B"], [["x", "y"]], headers=False, least=[4, 1]) == "x      y\n"


def test_fields_stand_in_the_order_in_which_people_write_them(make, now):
    fields = yaml.safe_load(output.one(make("Workload"), "yaml", now))
    assert list(fields) == ["apiVersion", "kind", "metadata", "spec", "status"]


def test_what_is_being_deleted_says_so(make, now):
    device = make("Device")
    leaving = msgspec.structs.replace(device, metadata=msgspec.structs.replace(device.metadata, deleted_at=now))
    assert "Deleting" in output.one(leaving, "table", now)
    assert "Deleting" not in output.one(device, "table", now)
