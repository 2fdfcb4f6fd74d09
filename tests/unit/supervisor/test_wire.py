import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.supervisor import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_the_small_codec_speaks_json(value):
    line = wire.encode_line(value)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == value == wire.decode_object(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_invalid(data):
    try:
        value = wire.decode_object(data)
    except wire.Invalid:
        return
    assert value == json.loads(data)


@given(VALUES)
def test_both_codecs_agree(value):
    small_loads, small_dumps = wire._small_codec()
    plain_loads, plain_dumps = wire._plain_codec()
    assert small_dumps(value) == plain_dumps(value)
    assert small_loads(plain_dumps(value)) == plain_loads(small_dumps(value))


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_neither_codec_takes_what_is_no_json(text):
    for loads, _ in (wire._small_codec(), wire._plain_codec()):
        with pytest.raises(ValueError):
            loads(text)


@given(VALUES)
def test_fields_are_what_they_should_be_or_invalid(value):
    message = {"field": value}
    readers = {
        str: lambda: wire.text(message, "field"),
        (int, float): lambda: wire.number(message, "field", 1e9),
        bool: lambda: wire.flag(message, "field"),
        list: lambda: wire.texts(message, "field"),
        dict: lambda: wire.text_map(message, "field"),
        (int, type(None)): lambda: wire.optional_count(message, "field"),
    }
    for kind, read in readers.items():
        try:
            assert isinstance(read(), kind)
        except wire.Invalid:
            continue


@pytest.mark.parametrize(("length", "ok"), [(9, True), (10, True), (11, False)])
def test_texts_are_bounded(length, ok):
    message = {"field": "x" * length}
    if ok:
        assert wire.text(message, "field", 10) == "x" * length
    else:
        with pytest.raises(wire.Invalid):
            wire.text(message, "field", 10)


@pytest.mark.parametrize(("value", "ok"), [(-1, False), (0, True), (10, True), (10.5, False), (float("nan"), False)])
def test_numbers_are_bounded(value, ok):
    if ok:
        assert wire.number({"field": value}, "field", 10) == value
    else:
        with pytest.raises(wire.Invalid):
            wire.number({"field": value}, "field", 10)


@given(st.text(max_size=210))
def test_a_folder_name_never_leaves_its_folder(name):
    try:
        taken = wire.folder_name({"folder": name})
    except wire.Invalid:
        return
    assert taken == name
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert name.isascii()
    assert len(name) <= 200
