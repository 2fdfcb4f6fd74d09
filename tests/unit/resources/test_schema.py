"""The schema says what the types say, and the documentation in the repository is the one made from them."""

import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from edgewise.resources.kinds import BY_NAME, KINDS
from edgewise.resources.manifests import load
from edgewise.resources.schema import json_schema, kind_schema, reference

ROOT = Path(__file__).parents[3]
WORKLOAD = {
    "apiVersion": "edgewise/v1alpha1",
    "kind": "Workload",
    "metadata": {"name": "a"},
    "spec": {"artifact": {"name": "a", "version": "1"}, "placement": {"replicas": 1}},
}


def test_the_reference_in_the_repository_is_current():
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("schema", [json_schema(), kind_schema(BY_NAME["Workload"])], ids=["all", "one"])
def test_the_schema_takes_what_the_reader_takes(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    (loaded,) = load(msgspec.json.encode(WORKLOAD))
    validator.validate(WORKLOAD)
    validator.validate(msgspec.to_builtins(loaded))
    for change in ({"spec": {"placement": {}}}, {"metadata": {}}, {"spec": {**WORKLOAD["spec"], "extra": 1}}, {"metadata": {"name": "A"}}):
        assert not validator.is_valid({**WORKLOAD, **change})


def test_every_kind_has_a_page_with_all_its_fields():
    pages = reference()
    assert set(pages) == {"README.md", "schema.json", *(f"{kind.name.lower()}.md" for kind in KINDS)}
    for kind in KINDS:
        page = pages[f"{kind.name.lower()}.md"]
        spec = {field.name: field for field in msgspec.structs.fields(kind.type)}["spec"].type
        assert all(f"`{field.encode_name}`" in page for field in msgspec.structs.fields(spec))
        assert f"]({kind.name.lower()}.md)" in pages["README.md"]


def test_fields_are_called_as_they_are_written():
    assert "observe_for" not in reference()["workload.md"]
    assert "`observeFor`" in reference()["workload.md"]
