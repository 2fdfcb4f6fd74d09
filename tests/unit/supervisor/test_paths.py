import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.agent.slots import api_socket_path, control_socket_path, instance_folder
from edgewise.ports.unix import PATH_BYTES_MAX, connect_unix, listen_unix
from edgewise.supervisor.wire import folder_name

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?", fullmatch=True)
SHORT = st.text("ab.", min_size=1, max_size=5).filter(lambda text: text[0] != "." and text[-1] != ".")


def test_the_plain_case_reads_well():
    assert instance_folder("line-3/inspector") == "line-3.inspector"
    assert api_socket_path("/var/lib/edgewise", "line-3/inspector") == "/var/lib/edgewise/run/api/line-3.inspector.sock"


@given(st.tuples(SHORT, SHORT), st.tuples(SHORT, SHORT))
def test_two_instances_never_share_a_folder(one, other):
    if one != other:
        assert instance_folder("/".join(one)) != instance_folder("/".join(other))


@given(NAMES, NAMES)
def test_every_instance_has_a_folder_the_supervisor_takes(namespace, workload):
    folder = instance_folder(f"{namespace}/{workload}")
    assert folder_name({"folder": folder}) == folder


@given(NAMES, NAMES)
def test_socket_paths_fit_the_kernel(namespace, workload):
    for path in (
        api_socket_path("/var/lib/edgewise", f"{namespace}/{workload}"),
        control_socket_path("/x", f"{namespace}/{workload}", "a"),
    ):
        assert len(os.fsencode(path)) <= PATH_BYTES_MAX


@pytest.mark.parametrize("extra", [-1, 0, 1, 100])
def test_unix_sockets_at_paths_around_the_limit_and_beyond(tmp_path, extra):
    folder = tmp_path / "run"
    name = "x.sock"
    while len(str(folder)) + 60 < PATH_BYTES_MAX + extra:
        folder /= "d" * 40
    padding = PATH_BYTES_MAX + extra - len(str(folder)) - len(name) - 2
    folder /= "p" * max(1, padding)
    folder.mkdir(parents=True)
    path = str(folder / name)
    assert len(path) >= PATH_BYTES_MAX + extra
    for _ in range(2):  # the second takes the place of the first
        with listen_unix(path, 1) as listener, connect_unix(path, 5) as connection:
            accepted, _ = listener.accept()
            with accepted:
                connection.sendall(b"hello")
                assert accepted.recv(10) == b"hello"
    assert (folder / name).stat().st_mode & 0o777 == 0o600
