"""Strict YAML: what is accepted, and what a person is told of everything else."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.manifests import Invalid, ManifestLimits, load, load_as, reads_as_text
from edgewise.resources.workload import Strategy, Workload

DESIGN_EXAMPLE = """
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {name: inspector, namespace: line-3}
spec:
  artifact: {name: inspector, version: "2"}        # or alias: champion
  placement:
    everyMatchingDevice: {}                         # or replicas: 2
    selector: {matchExpressions: [{key: camera, operator: Exists}]}
    prefer: quality                                 # or latency, size, energy
  resources: {memory: 512Mi, cpu: 500m}
  peripherals: [{name: front-camera, access: read}]
  parameters: {threshold: 0.8}
  config: {name: inspector}
  secrets: [{name: rtsp}]
  strategy:
    canary: {waves: [1, 25%, 100%], observeFor: 30s, failureBudget: 5%}
    analysis: [{metric: model.accuracy, min: 0.95, minSamples: 200}]
  disconnect: {lostAfter: 2m, replace: true, exclusive: false}
"""

HEAD = "apiVersion: edgewise/v1alpha1\nkind: Workload\nmetadata: {name: a}\nspec:\n  artifact: {name: a, version: '1'}\n"
PLACED = HEAD + "  placement: {replicas: 1}\n"


def problems(text, **options):
    with pytest.raises(Invalid) as caught:
        load(text, "f.yaml", **options)
    return [str(problem) for problem in caught.value.problems]


def test_the_example_of_the_design_loads():
    (workload,) = load(DESIGN_EXAMPLE)
    assert isinstance(workload, Workload)
    assert workload.metadata.namespace == "line-3"
    assert workload.spec.artifact.version == "2"
    assert workload.spec.placement.every_matching_device is not None
    assert workload.spec.resources.memory == "512Mi"
    assert workload.spec.strategy.canary.waves == (1, "25%", "100%")
    assert workload.spec.strategy.analysis[0].min == 0.95
    assert workload.spec.parameters == {"threshold": 0.8}


def test_json_loads_as_well():
    (workload,) = load(DESIGN_EXAMPLE)
    assert load(msgspec.json.encode(workload)) == (workload,)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  placement: {replicas: 1, selctor: {}}", "f.yaml:6:28: spec.placement: unknown field 'selctor' (did you mean 'selector'?)"),
        ("  placement: {every_matching_device: {}}", "(did you mean 'everyMatchingDevice'?)"),
        ("  placement: {replicas: '2'}", "spec.placement.replicas: must be a whole number, is text (write 2 without quotes)"),
        ("  placement: {replicas: 2.5}", "spec.placement.replicas: must be a whole number, is '2.5'"),
        ("  placement: {replicas: -1}", "spec.placement.replicas: must be at least 0, is -1"),
        ("  placement: {replicas: 100001}", "spec.placement.replicas: must be at most 100000, is 100001"),
        ("  placement: {replicas: 010}", "spec.placement.replicas: 010 is ambiguous: YAML readers differ on it (write 10)"),
        ("  placement: {replicas: 1_0}", "spec.placement.replicas: 1_0 is ambiguous: YAML readers differ on it (write 10)"),
        ("  placement: {everyMatchingDevice: }", "spec.placement.everyMatchingDevice: has no value (write {}, or remove this line)"),
        ("  placement: {replicas: 1, prefer: qualty}", "is none of energy, latency, quality, size (did you mean 'quality'?)"),
        ("  placement: [1]", "spec.placement: must be a mapping, is a list"),
        ("  placement: here", "spec.placement: must be a mapping, is a single value"),
        ("  placement: {replicas: 1, selector: {matchExpressions: {key: a}}}", "must be a list, is a mapping (begin each entry with '- ')"),
        ("  placement: {replicas: 1, selector: {matchLabels: {line: 3}}}", 'selector.matchLabels.line: must be a string (write "3")'),
        ("  placement: {replicas: 1, selector: {matchLabels: {on: no}}}", 'selector.matchLabels.on: must be a string (write "no")'),
        ("", "f.yaml:5:3: spec.placement: is missing"),
    ],
)
def test_what_is_wrong_is_told_with_place_path_and_what_to_write(line, said):
    assert any(said in problem for problem in problems(HEAD + line + "\n")), problems(HEAD + line + "\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  resources: {memory: 512Mb}", "spec.resources.memory: '512Mb' does not fit (A Kubernetes quantity, such as 512Mi or 500m)"),
        ("  resources: {memory: 0}", "spec.resources.memory: must be more than 0"),
        ("  resources: {memory: .inf}", "spec.resources.memory: must be more than 0"),
        ("  disconnect: {replace: yes}", "spec.disconnect.replace: yes is ambiguous: YAML readers differ on it (write true)"),
        ("  disconnect: {replace: 'true'}", "spec.disconnect.replace: must be true or false, is 'true'"),
        ("  disconnect: {lostAfter: 30}", "spec.disconnect.lostAfter: '30' does not fit (A duration, such as 500ms, 30s, 2m, 1h or 7d)"),
        ("  parameters: {flag: on}", 'spec.parameters.flag: on is ambiguous: YAML readers differ on it (write true, or "on" for text)'),
        ("  parameters: {time: 12:30}", "spec.parameters.time: 12:30 is ambiguous"),
        ("  strategy: {canary: {waves: []}}", "spec.strategy.canary.waves: needs at least 1 entry"),
        ("  strategy: {canary: {waves: [25]}}", "spec.strategy.canary.waves: the last wave must be 100%"),
        ("  strategy: {canary: {waves: [0, 100%]}}", "spec.strategy.canary.waves[0]: must be at least 1, is 0"),
        ("  strategy: {canary: {waves: [25%, 10%, 100%]}}", "spec.strategy.canary.waves[1]: waves must grow"),
        ("  strategy: {analysis: [{metric: m}]}", "f.yaml:7:25: spec.strategy.analysis[0]: needs min or max, or both"),
        ("  secrets: [{name: Rtsp}]", "spec.secrets[0].name: 'Rtsp' does not fit (Lower-case letters"),
    ],
)
def test_values_and_rules(line, said):
    assert any(said in problem for problem in problems(PLACED + line + "\n")), problems(PLACED + line + "\n")


def test_an_unquoted_version_is_told_what_to_write():
    text = HEAD.replace("'1'", "2") + "  placement: {replicas: 1}\n"
    assert problems(text) == ['f.yaml:5:32: spec.artifact.version: must be a string (write "2")']


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("artifact: {name: a}\n  placement: {replicas: 1}", "spec.artifact: needs exactly one of version or alias"),
        ("artifact: {name: a, version: '1', alias: b}\n  placement: {replicas: 1}", "spec.artifact: has version and alias"),
        ("artifact: {name: a, alias: b}\n  placement: {}", "spec.placement: needs exactly one of everyMatchingDevice or replicas"),
        (
            "artifact: {name: a, alias: b}\n  placement: {replicas: 1, everyMatchingDevice: {}}",
            "spec.placement: has everyMatchingDevice and replicas",
        ),
    ],
)
def test_exactly_one_of(spec, said):
    text = f"apiVersion: edgewise/v1alpha1\nkind: Workload\nmetadata: {{name: a}}\nspec:\n  {spec}\n"
    assert any(said in problem for problem in problems(text))


def test_all_problems_come_at_once_in_the_order_of_the_text():
    text = PLACED + "  resources: {memory: x, cpu: y}\n  extra: 1\n---\nkind: Worklod\n"
    said = problems(text)
    assert len(said) == 5
    lines = [int(re.match(r"f\.yaml:(\d+):", each)[1]) for each in said]
    assert lines == sorted(lines)


def test_kinds_are_named():
    assert "did you mean 'Workload'?" in problems("apiVersion: edgewise/v1alpha1\nkind: Worklod\n")[0]
    assert "cannot be applied" in problems("apiVersion: edgewise/v1alpha1\nkind: Instance\nmetadata: {name: a}\n")[0]
    assert any("apiVersion: is missing" in each for each in problems("kind: Site\nmetadata: {name: a}\n"))
    assert any(
        "apiVersion: 'v1' is none of edgewise/v1alpha1" in each for each in problems("apiVersion: v1\nkind: Site\nmetadata: {name: a}\n")
    )
    assert "must be a resource" in problems("just text")[0]
    assert "must be a resource" in problems("- 1\n- 2\n")[0]


def test_a_namespace_where_none_belongs_is_told():
    said = problems("apiVersion: edgewise/v1alpha1\nkind: Site\nmetadata:\n  name: a\n  namespace: b\n")
    assert said == ["f.yaml:5:3: metadata.namespace: a Site belongs to no namespace (remove this line)"]


def test_duplicate_keys_and_resources_are_told():
    assert "the key 'replicas' is there twice, first in line 6" in problems(HEAD + "  placement: {replicas: 1, replicas: 2}\n")[0]
    twice = PLACED + "---\n" + PLACED
    assert "Workload a is there twice, first in line 1" in problems(twice)[0]


def test_empty_documents_are_passed_over():
    assert load("") == ()
    assert load("# nothing\n---\n---\n# more\n") == ()
    assert len(load("---\n" + PLACED + "---\n# end\n")) == 1


def test_a_list_as_get_prints_it_loads():
    (workload,) = load(PLACED)
    listed = {"apiVersion": "edgewise/v1alpha1", "kind": "WorkloadList", "items": [msgspec.to_builtins(workload)]}
    assert load(msgspec.json.encode(listed)) == (workload,)
    listed["items"].append({"kind": "Workload", "apiVersion": "edgewise/v1alpha1", "metadata": {"name": "B"}, "spec": {}})
    assert any(": items[1].metadata.name: 'B' does not fit" in each for each in problems(msgspec.json.encode(listed)))


def test_the_status_is_passed_over_and_the_generation_kept():
    (workload,) = load(PLACED.replace("{name: a}", "{name: a, generation: 3, uid: x}") + "status: {anything: [1]}\n")
    assert workload.metadata.generation == 3
    assert workload.status.revision == ""


# ---- what is no harmless YAML ----


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "f.yaml:2:1: not well-formed YAML"),
        ("a:\n\t- b", "f.yaml:2:1: not well-formed YAML"),
        ("a: !!python/object/apply:os.system [x]", "f.yaml:1:4: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed"),
        ("a: &a [*a]", "'*a' refers to nothing that ends before it"),
        ("a: *b", "not"),
        ("a: &x {b: 1}\nc: {<<: *x}", "merge keys ('<<') are not allowed"),
        ("? [1]\n: 2", "a list or mapping cannot be a key"),
        ("x\x00", "a character that YAML does not allow"),
        ("[" * 33 + "]" * 33, "nested deeper than 32"),
        (b"\xff\xfe\xff", "f.yaml:1:1: not UTF-8 text (save the file as UTF-8)"),
        (b"a: 1\nb: \xff", "f.yaml:2:1: not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_one_problem(text, said):
    found = problems(text)
    assert len(found) == 1
    assert said in found[0]


def test_a_bomb_of_aliases_is_refused_before_it_exists():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "aliases expanded" in problems("\n".join(lines))[0]


def test_aliases_within_bounds_are_fine():
    text = PLACED.replace("placement: {replicas: 1}", "placement: &p {replicas: 1}") + "---\n" + PLACED.replace("name: a}", "name: b}")
    assert len(load(text)) == 2
    shared = HEAD + "  placement:\n    replicas: 1\n    selector:\n      matchLabels: {x: &v abc, y: *v}\n"
    assert load(shared)[0].spec.placement.selector.match_labels == {"x": "abc", "y": "abc"}


def test_limits_hold_at_one_under_and_one_over():
    site = "apiVersion: edgewise/v1alpha1\nkind: Site\nmetadata: {name: NAME}\n"
    three = "---\n".join(site.replace("NAME", name) for name in "abc")
    assert len(load(three, limits=ManifestLimits(documents_max=3))) == 3
    assert "more than 2 documents" in problems(three, limits=ManifestLimits(documents_max=2))[0]
    size = len(three.encode())
    assert len(load(three, limits=ManifestLimits(text_bytes_max=size))) == 3
    assert f"larger than {size - 1} bytes" in problems(three, limits=ManifestLimits(text_bytes_max=size - 1))[0]
    # A document is 8 nodes: the mapping, three keys, two values, the inner mapping, its key and value.
    one = site.replace("NAME", "a")
    assert load(one, limits=ManifestLimits(nodes_max=9))
    assert "more than 8 values" in problems(one, limits=ManifestLimits(nodes_max=8))[0]
    assert load(one, limits=ManifestLimits(depth_max=2))
    assert "nested deeper than 1" in problems(one, limits=ManifestLimits(depth_max=1))[0]
    assert len(problems(PLACED + "  b: 1\n  c: 2\n  d: 3\n", limits=ManifestLimits(problems_max=2))) == 2


def told(text):
    """Return the problems of a text; nothing but `Invalid` may come out."""
    try:
        load(text, "f.yaml")
    except Invalid as error:
        return error.problems or ["nothing said"]
    return ()


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text):
    assert all(str(problem).startswith("f.yaml") for problem in told(text))


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_else(data):
    assert all(str(problem).startswith("f.yaml") for problem in told(data))


words = st.sampled_from(["apiVersion", "kind", "metadata", "spec", "name", "placement", "replicas", "waves", "Workload", "Site", "a"])
scalars = st.one_of(words, st.integers(), st.floats(allow_nan=True), st.booleans(), st.none(), st.text(max_size=8))
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5), max_leaves=20)


@given(st.dictionaries(words, trees, max_size=4), st.sampled_from(["Workload", "Site", "Config", "Device"]))
def test_no_tree_raises_anything_else(tree, kind):
    text = yaml.safe_dump({**tree, "apiVersion": "edgewise/v1alpha1", "kind": kind}, allow_unicode=True)
    assert all(str(problem).startswith("f.yaml:") for problem in told(text))


# ---- other types by the same rules ----


def test_other_types_load_by_the_same_rules():
    assert load_as("canary: {waves: [100%]}", Strategy).canary.waves == ("100%",)
    with pytest.raises(Invalid, match=r"f:1:1: unknown field 'canari' \(did you mean 'canary'\?\)"):
        load_as("canari: {}", Strategy, "f")
    with pytest.raises(Invalid, match="must hold one document, holds 2"):
        load_as("{}\n---\n{}\n", Strategy, "f")


@pytest.mark.parametrize("text", ["abc", "1.2.3", "a b", "2024-01-01x", "v1"])
def test_plain_text_reads_as_text(text):
    assert reads_as_text(text)


@pytest.mark.parametrize(
    "text", ["1", "1e3", "no", "On", "true", "null", "", "~", "0755", "1_000", "12:30", "0x1f", "0b1", ".5", "-1", ".inf", "123456e78"]
)
def test_what_some_reader_takes_for_something_else_is_not_plain_text(text):
    assert not reads_as_text(text)


def test_files_in_the_repository_load():
    for path in sorted(Path(__file__).parents[3].glob("demo/*.yaml")):
        assert load(path.read_text("utf-8"), str(path))


@pytest.mark.parametrize("written", ["0s", "500ms", "2m", "1h"])
def test_an_unavailability_budget_is_a_duration(written):
    (workload,) = load(PLACED + f"  strategy: {{canary: {{unavailabilityBudget: {written}}}}}\n")
    assert workload.spec.strategy.canary.unavailability_budget == written
    assert b"unavailabilityBudget" not in msgspec.json.encode(load(PLACED)[0])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("unavailabilityBudget: 1%", ": spec.strategy.canary.unavailabilityBudget: "),
        ("unavailabilityBudget: -1s", ": spec.strategy.canary.unavailabilityBudget: "),
        ("unavailabilityBudget: 5", ": spec.strategy.canary.unavailabilityBudget: "),
        ("unavailabilityBudgt: 5s", "did you mean 'unavailabilityBudget'?"),
    ],
)
def test_a_wrong_unavailability_budget_is_told(line, problem):
    (told,) = problems(PLACED + f"  strategy: {{canary: {{{line}}}}}\n")
    assert problem in told
