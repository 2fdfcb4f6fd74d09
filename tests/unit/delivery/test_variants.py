"""Variant choice: what runs, then what is preferred by what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.delivery.facts import VariantFacts
from edgewise.delivery.variants import amount, meets, ranked, unmet_requirement
from edgewise.resources.artifact import Profile, VariantRequirements
from edgewise.resources.device import Accelerator, Capacity
from edgewise.resources.version import version_key


def facts(name, precision="", p95=None, quality=None, size=100, p50=None):
    profile = Profile(latency_p50_ms=p50, latency_p95_ms=p95, quality={"accuracy": quality} if quality is not None else {})
    return VariantFacts(
        name=name, runtime="onnxruntime", precision=precision, requirements=VariantRequirements(), profile=profile, size=size
    )


def names(variants, prefer):
    return [variant.name for variant in ranked(tuple(variants), prefer)]


def test_a_slower_int8_is_not_chosen_for_latency():
    fp32 = facts("fp32", "fp32", p95=10.0, quality=0.99, size=400)
    int8 = facts("int8", "int8", p95=14.0, quality=0.98, size=100)
    assert names([int8, fp32], "latency") == ["fp32", "int8"]
    assert names([int8, fp32], "energy") == ["fp32", "int8"]
    assert names([int8, fp32], "quality") == ["fp32", "int8"]
    assert names([int8, fp32], "size") == ["int8", "fp32"]


def test_a_faster_int8_is_chosen_for_latency_only():
    fp32 = facts("fp32", "fp32", p95=20.0, quality=0.99, size=400)
    int8 = facts("int8", "int8", p95=8.0, quality=0.97, size=100)
    assert names([fp32, int8], "latency") == ["int8", "fp32"]
    assert names([fp32, int8], "quality") == ["fp32", "int8"]


def test_measured_quality_beats_precision():
    assert names([facts("fp32", "fp32", quality=0.90), facts("int8", "int8", quality=0.91)], "quality") == ["int8", "fp32"]


def test_unmeasured_comes_last_and_precision_decides_among_it():
    variants = [facts("a", "int8"), facts("b", "fp32"), facts("c", "int4"), facts("d", "fp16"), facts("m", "int4", p95=1.0, quality=0.1)]
    assert names(variants, "quality") == ["m", "b", "d", "a", "c"]
    assert names(variants, "latency")[0] == "m"


def test_median_stands_in_for_the_tail():
    assert names([facts("a", p50=9.0), facts("b", p95=8.0), facts("c", p50=1.0, p95=10.0)], "latency") == ["b", "a", "c"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, 1.0, 2.0]), st.integers(1, 3)), unique_by=lambda v: v[0]),
    st.sampled_from(["quality", "latency", "size", "energy"]),
    st.randoms(),
)
def test_order_is_total_and_the_same(drawn, prefer, random):
    variants = [facts(name, p95=p95, size=size) for name, p95, size in drawn]
    expected = names(variants, prefer)
    random.shuffle(variants)
    assert names(variants, prefer) == expected


CAPACITY = Capacity(
    architecture="aarch64",
    memory=2**30,
    runtimes={"onnxruntime": "1.20.1"},
    accelerators=(Accelerator(name="orin", kind="gpu"),),
)


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        (VariantRequirements(), None),
        (VariantRequirements(architectures=("aarch64", "x86_64")), None),
        (VariantRequirements(architectures=("x86_64",)), "architecture must be x86_64, is aarch64"),
        (VariantRequirements(runtimes={"onnxruntime": "1.20"}), None),
        (VariantRequirements(runtimes={"onnxruntime": "1.20.1"}), None),
        (VariantRequirements(runtimes={"onnxruntime": "1.20.2"}), "runtime onnxruntime must be at least 1.20.2, is 1.20.1"),
        (VariantRequirements(runtimes={"litert": "2"}), "runtime litert 2 is not there"),
        (VariantRequirements(accelerator="gpu"), None),
        (VariantRequirements(accelerator="orin"), None),
        (VariantRequirements(accelerator="npu"), "accelerator npu is not there (there: orin)"),
        (VariantRequirements(memory=2**30 - 1), None),
        (VariantRequirements(memory="1Gi"), None),
        (VariantRequirements(memory=2**30 + 1), "memory must be at least 1.0 GiB, is 1 GiB"),
    ],
)
def test_requirements(requirements, reason):
    assert unmet_requirement(requirements, CAPACITY) == reason
    assert meets(requirements, CAPACITY) == (reason is None)


@pytest.mark.parametrize(
    ("older", "newer"), [("1.9", "1.10"), ("1.20", "1.20.1"), ("0.9.9", "1"), ("1.2-rc1", "1.3"), ("1.2+cpu", "1.2.1"), ("", "0")]
)
def test_versions_by_number(older, newer):
    assert version_key(older) < version_key(newer)


def test_zeros_at_the_end_of_a_version_change_nothing():
    assert version_key("1.20.0") == version_key("1.20") == (1, 20)
    assert version_key("0.0") == (0,)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (512 * 2**20, "512 MiB"), (3 * 2**29, "1.5 GiB"), (2**51, "2048 TiB")],
)
def test_amounts_for_people(count, text):
    assert amount(count) == text
