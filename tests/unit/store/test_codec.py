"""Documents and resources are two forms of one thing."""

import msgspec
import pytest

from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.config import Config, ConfigSpec, ConfigStatus, Secret
from edgewise.resources.device import Agent, AgentSpec, Device, DeviceSpec, DeviceStatus
from edgewise.resources.instance import Instance, InstanceSpec, InstanceStatus
from edgewise.resources.kinds import KINDS
from edgewise.resources.meta import Metadata
from edgewise.resources.site import Site
from edgewise.store.codec import CodecError, _codec, decode, encode, encode_spec, encode_status, key_of
from edgewise.store.contract import Document, Key

METADATA = Metadata(
    name="n",
    namespace="s",
    uid="u",
    labels={"b": "1", "a": "2"},
    annotations={"x": "y"},
    generation=3,
    revision=9,
    status_revision=4,
    created_at=1.5,
    deleted_at=2.5,
)
RESOURCES = [
    Site(metadata=METADATA),
    Device(metadata=METADATA, spec=DeviceSpec(site="lab"), status=DeviceStatus(boot_id="b", observed_generation=3)),
    Agent(metadata=METADATA, spec=AgentSpec(devices=("a", "b"))),
    Artifact(metadata=METADATA),
    Instance(
        metadata=METADATA,
        spec=InstanceSpec(workload="w", device="d", revision="abc", variant="int8", rejected=("x",)),
        status=InstanceStatus(exit_code=-9, refused=("y",)),
    ),
    Config(metadata=METADATA, spec=ConfigSpec(data={"k": "v"}), status=ConfigStatus(observed_generation=2)),
    Secret(metadata=METADATA),
]


def document_of(resource, **changes):
    fields = {
        "key": key_of(resource),
        "uid": "u",
        "generation": 3,
        "revision": 9,
        "status_revision": 4,
        "created_at": 1.5,
        "labels": {"b": "1", "a": "2"},
        "annotations": {"x": "y"},
        "spec": encode_spec(resource),
        "status": encode_status(resource),
        "deleted_at": 2.5,
    }
    return Document(**(fields | changes))


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: type(resource).__name__)
def test_a_document_holds_all_of_a_resource(resource):
    assert decode(document_of(resource)) == resource
    assert key_of(resource) == Key(type(resource).__name__, "s", "n")


def test_every_kind_has_a_codec():
    for kind in KINDS:
        codec = _codec(kind.name)
        assert codec.make is kind.type
        assert isinstance(codec.no_status, msgspec.Struct)
    assert _codec(ArtifactVersion.__name__) is not None


def test_no_status_is_the_default_status():
    resource = RESOURCES[1]
    assert decode(document_of(resource, status=b"")).status == DeviceStatus()


def test_equal_resources_are_equal_bytes():
    one, two = ConfigSpec(data={"a": "1", "b": "2"}), ConfigSpec(data={"b": "2", "a": "1"})
    assert encode(one) == encode(two) == encode_spec(Config(metadata=METADATA, spec=two))


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": b""},
        {"spec": b"\xc1"},
        {"spec": msgspec.msgpack.encode({"unknownField": 1})},
        {"status": msgspec.msgpack.encode([1])},
        {"key": Key("JoinToken", "", "n")},
    ],
)
def test_what_cannot_be_read_is_told(changes):
    with pytest.raises(CodecError):
        decode(document_of(RESOURCES[1], **changes))
