"""The traffic of a held candidate, in documents and in instances."""

import msgspec
import pytest

from edgewise.resources.instance import InstanceSpec
from edgewise.wire.desired import ArtifactTarget, InstanceDesired, Traffic


def instance(**fields) -> InstanceDesired:
    target = ArtifactTarget(target="releases/a/1/manifest", digest=f"sha256:{'0' * 64}", length=1, type="model", variant="v")
    return InstanceDesired(name="n/w", uid="u", epoch=1, revision="r", artifact=target, **fields)


@pytest.mark.parametrize("traffic", [None, Traffic(), Traffic(mode="split", share=0.25, sticky="x-session"), Traffic(mode="shadow")])
def test_a_document_carries_it(traffic):
    told = instance(hold=True, traffic=traffic)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=InstanceDesired) == told
    assert ("traffic" in msgspec.to_builtins(told)) == (traffic is not None)


def test_an_older_document_has_none():
    old = msgspec.msgpack.encode(msgspec.to_builtins(instance(hold=True)))
    assert msgspec.msgpack.decode(old, type=InstanceDesired).traffic is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_at_the_limit(share):
    assert msgspec.convert({"mode": "split", "share": share}, Traffic).share == share


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 1.0001},
        {"share": -0.0001},
        {"share": float("nan")},
        {"mode": "mirror"},
        {"sticky": "a b"},
        {"sticky": "a" * 65},
        {"sticky": "-a"},
    ],
)
def test_what_is_no_traffic(wrong):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Traffic)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"workload": "w", "device": "d", "revision": "r", "variant": "v", "traffic": wrong}, InstanceSpec)
