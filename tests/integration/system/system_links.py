"""Links between network namespaces with latency and loss: by `tc netem` where the kernel has it, else by a thread that hands on packets.

Needs root, iproute2, and namespaces; `missing()` says what is not there.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_PACKET_BYTES = 65_536


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def missing():
    """Return why namespaces cannot be used here, or nothing."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "iproute2 is not installed"
    name = f"ew-try-{os.getpid()}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted: {error.stderr.strip()}"
    return ""


class Site:
    """A network namespace and its link to this one. `here` is this end's address; `inside` runs a command in the namespace."""

    def __init__(self, number, seconds, loss):
        self.name = f"ew{os.getpid()}-{number}"
        self.here, there = f"10.213.{number}.1", f"10.213.{number}.2"
        near, far = f"ewn{os.getpid() % 100_000}-{number}", f"ewf{os.getpid() % 100_000}-{number}"
        self._relay = None
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.how = "tc netem"
        if not self._veth(near, far, seconds, loss):
            self.how = "tun"
            self._relay = Relay(near, far, seconds, loss)
            _ip("link", "set", far, "netns", self.name)
        _ip("address", "add", f"{self.here}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", self.name, "address", "add", f"{there}/30", "dev", far)
        _ip("-n", self.name, "link", "set", far, "up")
        _ip("-n", self.name, "route", "add", "default", "via", self.here)

    def _veth(self, near, far, seconds, loss):
        """Lay a pair of interfaces that `tc` slows down. Returns whether it can."""
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        rule = ["root", "netem", "delay", f"{seconds * 1000:g}ms", "loss", f"{loss * 100:g}%"]
        _ip("link", "set", far, "netns", self.name)
        for inside, each in (((), near), (self.inside, far)):
            if subprocess.run([*inside, "tc", "qdisc", "add", "dev", each, *rule], capture_output=True, check=False).returncode:
                _ip("link", "del", near)
                return False
        return True

    @property
    def inside(self):
        """The words before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def close(self):
        """Take it all away."""
        if self._relay is not None:
            self._relay.close()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)


class Relay(threading.Thread):
    """Two tun devices, and each packet of one comes out of the other `seconds` later, or never."""

    def __init__(self, near, far, seconds, loss):
        super().__init__(name="relay", daemon=True)
        self._ends = [self._opened(near), self._opened(far)]
        self._seconds, self._loss = seconds, loss
        self._chance = random.Random(near)
        self._closing = False
        self.start()

    @staticmethod
    def _opened(name):
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
        return end

    def run(self):
        on_the_way, number = [], 0
        while not self._closing:
            wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else 0.2
            for end in select.select(self._ends, [], [], min(wait, 0.2))[0]:
                with contextlib.suppress(OSError):  # it is down, or nothing is left
                    packet = os.read(end, _PACKET_BYTES)
                    if self._chance.random() >= self._loss:
                        number += 1
                        other = self._ends[end == self._ends[0]]
                        heapq.heappush(on_the_way, (time.monotonic() + self._seconds, number, other, packet))
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(on_the_way)
                with contextlib.suppress(OSError):
                    os.write(end, packet)
        for end in self._ends:
            os.close(end)

    def close(self):
        """End; the devices go with it."""
        self._closing = True
        self.join()
