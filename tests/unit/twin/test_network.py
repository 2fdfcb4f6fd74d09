"""The way between a device and the control plane: what arrives, when, how often, and what ends when nothing does."""

import pytest

from edgewise.twin.fleet import LinkQuality
from edgewise.twin.kernel import Kernel
from edgewise.twin.link import Answered, Broken, Request
from edgewise.twin.network import LIMITS, Network

PLAIN = LinkQuality(latency_seconds=0.1, jitter_seconds=0.0, bandwidth=8_000_000.0)


class Server:
    """Answers at once, but for polls, which it keeps; counts everything."""

    def __init__(self):
        self.up = True
        self.handled = []
        self.polls = []
        self.hung = []
        self.transfers = 0
        self.size = 1_000_000

    def handle(self, request, caller):
        self.handled.append(request.purpose)
        if request.purpose == "desired":
            self.polls.append(caller)
        elif request.purpose == "blob":
            self.transfers += 1
            caller.reply(Answered(size=self.size - request.offset))
        else:
            caller.reply(Answered(body=b"yes"))

    def hung_up(self, caller):
        self.hung.append(caller)

    def transferred(self):
        self.transfers -= 1


class Rig:
    def __init__(self, quality=PLAIN, seed=1, devices=1):
        self.kernel = Kernel(seed)
        self.server = Server()
        self.network = Network(self.kernel, self.server)
        self.network.add_site("hall", quality)
        self.links = [self.network.add_device(f"d{number}", "hall") for number in range(devices)]
        self.got = []

    def send(self, purpose="report", number=0, **fields):
        request = Request(purpose=purpose, agent="a", device=f"d{number}", **fields)
        return self.links[number].send(request, lambda outcome: self.got.append((round(self.kernel.now, 3), outcome)))

    def run(self, until):
        self.kernel.run(until)
        return self.got


def test_an_answer_takes_the_way_there_and_back_and_a_new_connection_four_ways_more():
    rig = Rig()
    rig.send()
    [(at, outcome)] = rig.run(10)
    assert outcome == Answered(body=b"yes")
    assert at == pytest.approx(0.6, abs=0.01)
    rig.kernel.run(20)
    rig.send()
    assert rig.run(30)[1][0] == pytest.approx(20.2, abs=0.01)
    rig.kernel.run(30)
    rig.send(fresh=True)
    assert rig.run(40)[2][0] == pytest.approx(30.6, abs=0.01)


def test_messages_of_a_site_share_its_bandwidth():
    rig = Rig(LinkQuality(latency_seconds=0.0, jitter_seconds=0.0, bandwidth=80_000.0), devices=5)
    for number in range(5):
        rig.send(number=number, body=b"x" * 10_000)
    times = [at for at, _ in rig.run(60)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(5 * times[0], rel=0.2)


def test_downloads_share_what_comes_down_evenly():
    rig = Rig(devices=2)
    rig.send("blob", 0, path="x")
    rig.kernel.run(0.5)
    rig.send("blob", 1, path="x")
    (first, _), (second, _) = rig.run(60)
    # 1 MB at 1 MB/s: one alone from 0.5 s on, both from 1.0 s on, the other alone from 2.0 s on.
    assert first == pytest.approx(2.1, abs=0.05)
    assert second == pytest.approx(2.6, abs=0.05)
    assert rig.server.transfers == 0
    assert rig.network.sites["hall"].down_bytes > 2_000_000


def test_a_download_that_is_cut_says_what_came():
    rig = Rig()
    rig.send("blob", path="x")
    rig.kernel.run(0.9)
    rig.network.cut(["d0"], "both")
    [(at, outcome)] = rig.run(100)
    assert isinstance(outcome, Broken)
    assert 300_000 < outcome.received < 800_000
    assert at == pytest.approx(0.9 + LIMITS.read_seconds, abs=0.1)
    assert rig.server.transfers == 0


@pytest.mark.parametrize("direction", ["both", "up"])
def test_a_request_into_a_partition_hangs_until_the_time_out(direction):
    rig = Rig()
    rig.network.cut(["d0"], direction)
    rig.send()
    [(at, outcome)] = rig.run(100)
    assert (at, outcome) == (LIMITS.connect_seconds, Broken(kind="lost"))
    assert rig.server.handled == []


def test_a_request_goes_through_when_the_partition_ends_in_time():
    rig = Rig()
    rig.network.cut(["d0"], "both")
    rig.send()
    rig.kernel.run(5)
    rig.network.mend(["d0"], "both")
    [(at, outcome)] = rig.run(100)
    assert outcome == Answered(body=b"yes")
    assert 5 < at < 6


def test_where_nothing_comes_back_the_control_plane_has_acted():
    rig = Rig()
    rig.send()
    rig.kernel.run(1)
    rig.network.cut(["d0"], "down")
    rig.send()
    (_, first), (at, second) = rig.run(100)
    assert isinstance(first, Answered)
    assert second == Broken(kind="lost")
    assert at == pytest.approx(1 + LIMITS.read_seconds)
    assert rig.server.handled == ["report", "report"]


def test_an_open_poll_outlives_a_short_partition():
    rig = Rig()
    rig.send("desired", wait=240.0)
    rig.kernel.run(10)
    rig.network.cut(["d0"], "both")
    rig.kernel.run(40)
    rig.network.mend(["d0"], "both")
    rig.kernel.run(200)
    assert rig.got == rig.server.hung == []
    rig.server.polls[0].reply(Answered(body=b"news"))
    assert rig.run(201)[0][1] == Answered(body=b"news")


def test_an_open_poll_dies_of_a_long_partition_at_both_ends_by_keepalive():
    rig = Rig()
    rig.send("desired", wait=240.0)
    rig.kernel.run(10)
    rig.network.cut(["d0"], "both")
    rig.kernel.run(10 + LIMITS.silence_control_seconds + 1)
    assert len(rig.server.hung) == 1
    assert rig.got == []
    assert rig.run(400)[0] == (10 + LIMITS.silence_device_seconds, Broken(kind="lost"))


def test_a_poll_that_the_control_plane_gave_up_is_reset_when_the_link_is_whole():
    rig = Rig()
    rig.send("desired", wait=240.0)
    rig.kernel.run(10)
    rig.network.cut(["d0"], "both")
    rig.kernel.run(100)
    rig.network.mend(["d0"], "both")
    [(at, outcome)] = rig.run(400)
    assert outcome == Broken(kind="lost")
    assert at == pytest.approx(100.1)


def test_a_device_that_loses_its_power_says_no_goodbye_and_one_that_ends_does():
    for dark, seconds in ((False, PLAIN.latency_seconds), (True, LIMITS.silence_control_seconds)):
        rig = Rig()
        exchange = rig.send("desired", wait=240.0)
        rig.kernel.run(10)
        rig.links[0].dark = dark
        exchange.abandon()
        rig.kernel.run(10 + seconds - 0.01)
        assert rig.server.hung == []
        rig.kernel.run(10 + seconds + 0.01)
        assert len(rig.server.hung) == 1
        assert rig.got == []


def test_duplicated_requests_are_handled_twice_and_answered_once():
    rig = Rig(LinkQuality(jitter_seconds=0.0, duplication=0.5))
    for _ in range(200):
        rig.send()
        rig.kernel.run(rig.kernel.now + 10)
    assert len(rig.got) == 200
    assert all(isinstance(outcome, Answered) for _, outcome in rig.got)
    assert 270 < len(rig.server.handled) < 330


def test_lost_messages_come_late_and_now_and_then_break_the_exchange_before_or_after_it_took_effect():
    rig = Rig(LinkQuality(jitter_seconds=0.0, loss=0.3))
    delays = []
    for _ in range(2_000):
        start = rig.kernel.now
        rig.send()
        rig.kernel.run(start + 100)
        delays.append(rig.got[-1][0] - start)
    broken = [outcome for _, outcome in rig.got if isinstance(outcome, Broken)]
    assert len(rig.got) == 2_000
    assert 0 < len(broken) < 40
    assert sum(delay > 0.25 for delay in delays) > 600
    acted = len(rig.server.handled) - (2_000 - len(broken))
    assert 0 < acted < len(broken)


def test_reordered_messages_overtake_each_other():
    rig = Rig(LinkQuality(jitter_seconds=0.0, reordering=0.5))
    order = []
    for number in range(50):
        request = Request(purpose="report", agent="a", device="d0")
        rig.links[0].send(request, lambda _outcome, number=number: order.append(number))
    rig.kernel.run(20)
    assert sorted(order) == list(range(50))
    assert order != sorted(order)


def test_a_captive_portal_answers_nonsense_and_the_control_plane_hears_nothing():
    rig = Rig()
    rig.network.portal(["d0"], on=True)
    rig.send()
    assert rig.run(10) == [(LIMITS.portal_seconds, Broken(kind="nonsense"))]
    rig.network.portal(["d0"], on=False)
    rig.send()
    assert isinstance(rig.run(20)[1][1], Answered)
    assert rig.server.handled == ["report"]


def test_partitions_of_one_device_add_up():
    rig = Rig()
    rig.network.cut(["d0"], "both")
    rig.network.cut(["d0"], "up")
    rig.network.mend(["d0"], "both")
    assert rig.links[0].blocked
    rig.network.mend(["d0"], "up")
    assert not rig.links[0].blocked


def test_a_changed_link_is_as_before_when_the_last_change_ends():
    rig = Rig()
    slow, slower = LinkQuality(latency_seconds=1.0), LinkQuality(latency_seconds=5.0)
    rig.network.change(1, ["d0"], slow)
    rig.network.change(2, ["d0"], slower)
    rig.network.restore(1, ["d0"])
    assert rig.links[0].quality is slower
    rig.network.restore(2, ["d0"])
    assert rig.links[0].quality is PLAIN
    assert rig.links[0].pipe is rig.network.sites["hall"].pipe


def test_a_control_plane_that_is_down_refuses_connections():
    rig = Rig()
    rig.server.up = False
    rig.send()
    [(at, outcome)] = rig.run(10)
    assert outcome == Broken(kind="lost")
    assert at < 1
