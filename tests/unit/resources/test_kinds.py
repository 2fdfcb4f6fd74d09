"""The table of kinds and the envelope that all share."""

import msgspec
import pytest

from edgewise.resources.kinds import BY_NAME, BY_TYPE, BY_WORD, KINDS, Resource
from edgewise.resources.meta import API_VERSION, Metadata
from edgewise.resources.site import Site


def test_every_kind_is_in_the_table_and_in_the_union():
    assert {kind.type for kind in KINDS} == set(Resource.__args__)
    assert all(BY_NAME[kind.name] is BY_TYPE[kind.type] is kind for kind in KINDS)


def test_no_word_means_two_kinds():
    words = [word for kind in KINDS for word in {kind.name.lower(), kind.plural, *kind.short}]
    assert len(words) == len(set(words)) == len(BY_WORD)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kinds_are_named_as_they_are_tagged_and_carry_the_envelope(kind):
    config = kind.type.__struct_config__
    assert config.tag == kind.name
    assert config.tag_field == "kind"
    assert config.frozen
    assert set(kind.type.__struct_fields__) == {"metadata", "api_version", "spec", "status"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_specs_refuse_unknown_fields_and_statuses_ignore_them(kind):
    fields = {field.name: field.type for field in msgspec.structs.fields(kind.type)}
    assert fields["spec"].__struct_config__.forbid_unknown_fields
    assert not fields["status"].__struct_config__.forbid_unknown_fields


def test_a_resource_reads_as_it_was_written():
    site = Site(metadata=Metadata(name="lab", labels={"line": "3"}))
    text = msgspec.json.encode(site)
    assert msgspec.json.decode(text, type=Resource) == site
    assert msgspec.json.decode(text)["apiVersion"] == API_VERSION
    assert msgspec.json.decode(text)["kind"] == "Site"


def test_a_misspelt_spec_field_is_refused():
    with pytest.raises(msgspec.ValidationError, match="timezone"):
        msgspec.convert({"kind": "Site", "metadata": {"name": "lab"}, "spec": {"timezone": "UTC"}}, Resource)
