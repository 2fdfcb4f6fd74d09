"""The file of contexts: readable by its user only, replaced whole, refused when it is not safe or not whole."""

import json
import stat

import pytest

from edgewise.client.context import Context, Contexts, choose_context, contexts_path, read_contexts, write_contexts
from edgewise.client.errors import ContextError

ONE = Context(address="https://a:7420", token="ewo1_secret", authority="PEM")


def test_what_was_written_is_read_and_only_by_its_user(tmp_path):
    path = tmp_path / "deep" / "contexts.json"
    contexts = Contexts(current="a", contexts={"a": ONE})
    write_contexts(path, contexts)
    assert read_contexts(path) == contexts
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    write_contexts(path, Contexts())
    assert read_contexts(path) == Contexts()
    assert [each.name for each in path.parent.iterdir()] == ["contexts.json"]


def test_no_file_is_no_context(tmp_path):
    assert read_contexts(tmp_path / "none") == Contexts()
    with pytest.raises(ContextError, match="type edgewise up"):
        choose_context(Contexts())


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path, mode):
    path = tmp_path / "contexts.json"
    write_contexts(path, Contexts())
    path.chmod(mode)
    with pytest.raises(ContextError, match="type chmod 600"):
        read_contexts(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"contexts": 1}', b"\xff", b'{"version": 2}', b" " * 1_000_001])
def test_a_damaged_file_is_told_without_its_content(tmp_path, content):
    path = tmp_path / "contexts.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ContextError, match=str(path)):
        read_contexts(path)


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    with pytest.raises(ContextError):
        read_contexts(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ContextError, match="cannot be written"):
        write_contexts(tmp_path / "file" / "contexts.json", Contexts())


def test_where_it_is(tmp_path):
    assert contexts_path({"EDGEWISE_CONFIG": str(tmp_path / "x")}) == tmp_path / "x"
    assert contexts_path({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "edgewise" / "contexts.json"
    assert contexts_path({}).parts[-3:] == (".config", "edgewise", "contexts.json")


def test_choosing():
    contexts = Contexts(current="a", contexts={"a": ONE, "b": ONE})
    assert choose_context(contexts)[0] == "a"
    assert choose_context(contexts, "b")[0] == "b"
    with pytest.raises(ContextError, match=r"no context 'c'; there are a, b"):
        choose_context(contexts, "c")
    with pytest.raises(ContextError, match="no context is in use"):
        choose_context(Contexts(contexts={"a": ONE}))


def test_the_token_is_in_the_file_and_in_no_representation(tmp_path):
    write_contexts(tmp_path / "c", Contexts(current="a", contexts={"a": ONE}))
    assert json.loads((tmp_path / "c").read_text())["contexts"]["a"]["token"] == "ewo1_secret"
    assert "ewo1_secret" not in repr(ONE) + repr(Contexts(contexts={"a": ONE}))
