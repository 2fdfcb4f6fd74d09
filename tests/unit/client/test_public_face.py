"""The public names: pinned, lazy, and nothing heavy behind `import edgewise`."""

import subprocess
import sys

import pytest

import edgewise as ew

FACE = [
    "Agent", "Applied", "AppliedResource", "Artifact", "ArtifactVersion", "Change", "Client", "ClientLimits", "Config", "Conflict", "Context",
    "ContextError", "Denied", "Device", "DevicePlan", "Error", "Event", "Instance", "Invalid", "Listing", "Metadata", "Metric", "NotFound",
    "Placement", "Problem", "Refused", "Release", "Requirement", "Resource", "Rollout", "Secret", "Selector", "Site", "TimedOut", "Token",
    "Unreachable", "VariantSource", "Workload", "WorkloadRevision", "load",
]  # fmt: skip


def test_the_public_face_is_pinned():
    assert sorted(FACE) == sorted(ew.__all__) == dir(ew)
    assert all(getattr(ew, name) is not None for name in FACE)
    assert {name for names in ew._HOMES.values() for name in names.split()} == set(FACE)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        _ = ew.Clint


def test_errors_are_one_tree():
    for name in ("Invalid", "Conflict", "NotFound", "Denied", "Unreachable", "Refused", "TimedOut", "ContextError"):
        assert issubclass(getattr(ew, name), ew.Error)


def test_importing_edgewise_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import edgewise; print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ew.__path__[0].removesuffix('/edgewise'))!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['edgewise']"


def test_load_reads_files_and_folders(tmp_path):
    site = "apiVersion: edgewise/v1alpha1\nkind: Site\nmetadata: {name: NAME}\n"
    (tmp_path / "b.yaml").write_text(site.replace("NAME", "b"))
    (tmp_path / "a.yml").write_text(site.replace("NAME", "a"))
    (tmp_path / "c.txt").write_text("no")
    assert [each.metadata.name for each in ew.load(tmp_path)] == ["a", "b"]
    assert [each.metadata.name for each in ew.load(str(tmp_path / "b.yaml"))] == ["b"]
    (tmp_path / "d.json").write_text("{")
    (tmp_path / "e.yaml").write_text("kind: Site\n")
    with pytest.raises(ew.Invalid) as caught:
        ew.load(tmp_path)
    assert {problem.source for problem in caught.value.problems} == {str(tmp_path / "d.json"), str(tmp_path / "e.yaml")}
    with pytest.raises(ew.Error, match="cannot be read"):
        ew.load(tmp_path / "absent.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ew.Error, match="holds no"):
        ew.load(tmp_path / "empty")
