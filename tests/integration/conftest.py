"""Ports that belong to one test alone, time, and Ctrl-C."""

import contextlib
import signal
import socket
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 600
"""A whole test with real processes may take this long where the machine is busy; what it waits for has deadlines of its own."""
_FIRST, _BLOCKS, _PORTS = 10000, 450, 20
"""Below the ports that the kernel gives to outgoing connections, and below those that devices take unless they are told otherwise."""


class Ports:
    """A block of ports of this machine, kept from all other tests as long as it is held, also from those that run beside this one.

    Whoever is killed and started again wants its ports back, and who asked it must not suddenly ask somebody else. So it is not enough that
    they are free at the moment. The block is held by a name in the kernel, which goes with the process, whatever end that takes."""

    def __init__(self):
        for block in range(_BLOCKS):
            self._hold = socket.socket(socket.AF_UNIX)
            try:
                self._hold.bind(f"\0edgewise-test-ports-{block}")
            except OSError:
                self._hold.close()
                continue
            self.first, self.count = _FIRST + block * _PORTS, _PORTS
            return
        raise RuntimeError("all blocks of ports are held by other tests")

    @property
    def limits(self):
        """The limits of a supervisor that takes ports from here only."""
        return (f"port_first={self.first}", f"port_count={self.count}")

    def free(self, count):
        """Return ports that nobody listens on."""
        found = []
        with contextlib.ExitStack() as stack:
            for port in range(self.first, self.first + self.count):
                one = stack.enter_context(socket.socket())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    one.bind(("127.0.0.1", port))
                    found.append(port)
                if len(found) == count:
                    return found
        raise RuntimeError(f"{count} ports are not free from {self.first} on")

    def give_back(self):
        """Let others have them; nobody listens there any more."""
        self._hold.close()


def pytest_configure():
    """Where the tests run in the background of a shell, Ctrl-C is ignored, and so by all that they start. Tests of Ctrl-C would fail."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Give the tests with real processes time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def port_blocks():
    """Take blocks of ports: `port_blocks()`. What is not given back is held until the tests end."""
    taken = []

    def take():
        taken.append(Ports())
        return taken[-1]

    yield take
    for ports in taken:
        ports.give_back()
