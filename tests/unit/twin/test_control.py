"""The simulated control plane: what a process keeps, loses and answers, over both stores."""

import msgspec
import pytest

from edgewise.controllers.documents import put_labelled
from edgewise.resources.states import Connection
from edgewise.store.contract import Transaction
from edgewise.twin.admitting import agent_in, certificate_text
from edgewise.twin.control import SimControl, Witness
from edgewise.twin.kernel import Kernel
from edgewise.twin.link import Answered, Refused, Request
from edgewise.twin.vault import MemoryVault, SqliteVault
from edgewise.wire.desired import DesiredState, Position
from edgewise.wire.enrolment import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest
from edgewise.wire.report import EventReport, LaneItems, Report, ReportAnswer


class Caller:
    def __init__(self):
        self.outcome = None
        self.resets = 0

    def reply(self, outcome):
        assert self.outcome is None, "an answer comes once"
        self.outcome = outcome

    def reset(self):
        self.resets += 1


class Rig:
    def __init__(self, sqlite=False):
        self.kernel = Kernel(3)
        self.vault = SqliteVault(lambda: self.kernel.wall) if sqlite else MemoryVault()
        self.control = SimControl(self.kernel, self.vault, blob_size={"sha256:known": 1_000}.get)
        self.control.start()
        self.control.make_token("token", "hall")

    def ask(self, purpose, device="d0", body=None, key=None, **fields):
        caller = Caller()
        encoded = b"" if body is None else msgspec.msgpack.encode(body)
        request = Request(purpose=purpose, agent=device, device=device, key=key or f"key-{device}", body=encoded, **fields)
        self.control.handle(request, caller)
        return caller

    def join(self, device="d0", key=None):
        body = JoinRequest(secret="token", device=device, signing_request=key or f"key-{device}", sealing_key=b"k" * 32)
        return self.ask("join", device, body, key)

    def report(self, device="d0", first=1, count=1, incarnation="box", session="s"):
        items = tuple(EventReport(device=device, at=1.0, type="Normal", reason="Said", message=f"{first + n}") for n in range(count))
        return self.ask(
            "report", device, Report(incarnation=incarnation, session=session, lanes={"events": LaneItems(first=first, items=items)})
        )

    def poll(self, device="d0", after="", wait=240.0, session="s"):
        return self.ask("desired", device, path=after, wait=wait, session=session)

    def marks(self, outcome):
        return msgspec.msgpack.decode(outcome.body, type=ReportAnswer).marks

    def run(self, seconds):
        self.kernel.run(self.kernel.now + seconds)


@pytest.fixture(params=["memory", "sqlite"])
def rig(request):
    rig = Rig(sqlite=request.param == "sqlite")
    yield rig
    rig.vault.close()


def test_a_device_joins_reports_polls_and_renews(rig):
    joined = msgspec.msgpack.decode(rig.join().outcome.body, type=JoinAnswer)
    assert joined.agent == "d0" == agent_in(joined.certificate)
    assert rig.marks(rig.report(count=3).outcome) == {"events": 3}
    state = msgspec.msgpack.decode(rig.poll().outcome.body, type=DesiredState)
    assert [document.device for document in state.devices] == ["d0"]
    pem = f"-----BEGIN CERTIFICATE-----\n{joined.certificate}\n-----END CERTIFICATE-----\n"
    renewed = rig.ask("renew", body=RenewRequest(certificate=pem, signing_request="key-d0")).outcome
    assert agent_in(msgspec.msgpack.decode(renewed.body, type=RenewAnswer).certificate) == "d0"
    assert rig.control.exchanges == 2


def test_without_a_certificate_nothing_is_answered(rig):
    rig.join()
    assert rig.ask("desired", key="another").outcome == Refused(
        status=401, reason="NoCertificate", message="this takes a client certificate of this fleet"
    )
    other = rig.ask("renew", body=RenewRequest(certificate=certificate_text("d0", "1", 0.0), signing_request="another")).outcome
    assert isinstance(other, Refused)


def test_the_same_report_twice_has_its_effect_once(rig):
    rig.join()
    assert rig.marks(rig.report(count=2).outcome) == rig.marks(rig.report(count=2).outcome) == {"events": 2}
    assert rig.marks(rig.report(first=2, count=2).outcome) == {"events": 3}


def test_what_was_acknowledged_outlives_a_death_and_an_open_poll_does_not(rig):
    rig.join()
    rig.report(count=2)
    position = str(rig.control.view.position)
    rig.run(1)
    poll = rig.poll(after=position)
    assert poll.outcome is None
    rig.control.kill()
    assert (poll.resets, poll.outcome) == (1, None)
    assert not rig.control.up
    rig.run(10)
    rig.control.start()
    assert rig.marks(rig.report(count=2).outcome) == {"events": 2}
    assert rig.control.view.devices["d0"].spec.site == "hall"


@pytest.mark.parametrize("committed", [False, True])
def test_a_death_at_a_write_answers_nobody_and_keeps_all_or_nothing(rig, committed):
    died = []
    rig.join()
    rig.control.on_killed = lambda: died.append(rig.kernel.now)
    rig.control.kill_at_write(committed=committed)
    caller = rig.report(count=2)
    assert (caller.outcome, len(died), rig.control.up) == (None, 1, False)
    rig.control.start()
    kept = rig.control.view.marks.get("d0")
    assert (kept is not None and kept.numbers == {"events": 2}) is committed
    assert rig.marks(rig.report(count=2).outcome) == {"events": 2}


def test_a_restored_backup_has_another_epoch_each_time_and_forgets(rig):
    rig.join()
    backup = rig.control.backup()
    epochs = [rig.control.view.epoch]
    rig.join("d1")
    for _ in range(2):
        rig.run(5)
        rig.control.restore(backup)
        epochs.append(rig.control.view.epoch)
        assert sorted(rig.control.view.devices) == ["d0"]
    assert epochs == sorted(set(epochs))
    assert rig.report("d1").outcome.reason == "UnknownAgent"


def test_the_newest_poll_wins():
    rig = Rig()
    rig.join()
    rig.run(1)
    position = str(rig.control.view.position)
    older = rig.poll(after=position)
    newer = rig.poll(after=position)
    assert older.outcome.status == 409
    assert newer.outcome is None
    assert rig.control.polling("d0")


def test_a_poll_ends_when_its_time_is_over_and_when_nobody_waits_any_more():
    rig = Rig()
    rig.join()
    rig.run(1)
    position = str(rig.control.view.position)
    poll = rig.poll(after=position, wait=30.0)
    rig.run(29.9)
    assert poll.outcome is None
    rig.run(1)
    assert poll.outcome == Answered()
    gone = rig.poll(after=position)
    rig.control.hung_up(gone)
    rig.run(300)
    assert gone.outcome is None
    assert rig.control.view.devices["d0"].status.connection is Connection.OFFLINE


def test_a_poll_beyond_the_limit_waits_no_longer():
    rig = Rig()
    rig.join()
    rig.run(1)
    poll = rig.poll(after=str(rig.control.view.position), wait=10_000.0)
    rig.run(rig.control.limits.poll_seconds_max + 1)
    assert poll.outcome == Answered()


def test_a_change_wakes_the_poll():
    rig = Rig()
    rig.join()
    rig.run(1)
    poll = rig.poll(after=str(rig.control.view.position))
    row = rig.control.view.devices["d0"]
    spec = msgspec.structs.replace(row.spec, cleared_refusals=1)
    rig.control.commit(Transaction(now=rig.kernel.wall, writes=(put_labelled(row, spec),)))
    assert poll.outcome is None
    rig.run(0.02)
    state = msgspec.msgpack.decode(poll.outcome.body, type=DesiredState)
    assert state.devices[0].cleared_refusals == 1


def test_a_slow_store_lets_requests_wait_and_writes_them_together():
    rig = Rig()
    for number in range(4):
        rig.join(f"d{number}")
    rig.run(1)
    rig.control.write_seconds = 2.0
    callers = [rig.report(f"d{number}") for number in range(4)]
    rig.run(1.9)
    assert [caller.outcome for caller in callers] == [None] * 4
    rig.run(0.2)
    assert callers[0].outcome is not None
    rig.run(2)
    assert all(rig.marks(caller.outcome) == {"events": 1} for caller in callers)


def test_reports_of_one_agent_take_turns_and_too_many_are_turned_away():
    rig = Rig()
    rig.join()
    rig.run(1)
    rig.control.write_seconds = 1.0
    callers = [rig.report(first=number + 1) for number in range(4)]
    assert callers[3].outcome.status == 429
    assert callers[3].outcome.retry_after > 0
    rig.run(10)
    assert [rig.marks(caller.outcome) for caller in callers[:3]] == [{"events": 1}, {"events": 2}, {"events": 3}]


def test_too_many_downloads_are_turned_away_until_one_ends():
    rig = Rig()
    rig.join()
    most = rig.control.limits.transfers_max
    answers = [rig.ask("blob", path="sha256:known", offset=200).outcome for _ in range(most + 1)]
    assert answers[:most] == [Answered(size=800)] * most
    assert answers[most].status == 503
    rig.control.transferred()
    assert rig.ask("blob", path="sha256:known").outcome == Answered(size=1_000)
    rig.control.transferred()
    assert rig.ask("blob", path="sha256:other").outcome.status == 404


def test_two_devices_with_one_identity_are_quarantined_and_told_so():
    rig = Rig()
    rig.join()
    outcomes = [rig.report(first=number + 1, session="ab"[number % 2]).outcome for number in range(6)]
    assert outcomes[-1].reason == "Quarantined"
    assert rig.poll().outcome.reason == "Quarantined"


def test_what_is_no_message_is_refused():
    rig = Rig()
    rig.join()
    for purpose in ("report", "join", "renew"):
        caller = Caller()
        rig.control.handle(Request(purpose=purpose, agent="d0", device="d0", key="key-d0", body=b"\xc1"), caller)
        assert caller.outcome.status == 400
    assert rig.poll(after="x").outcome.status == 400


def test_the_witness_hears_of_writes_decisions_and_deaths():
    rig = Rig()
    heard = []

    class Ear(Witness):
        def wrote(self, changes):
            heard.extend(change.key.kind for change in changes)

        def lived(self, what):
            heard.append(what)

    rig.control.witness = Ear()
    rig.join()
    rig.control.kill()
    rig.control.start()
    assert heard == ["Agent", "Device", "JoinToken", "killed", "started"]


def test_a_position_of_another_life_is_told_everything():
    rig = Rig()
    rig.join()
    answer = rig.poll(after=str(Position(99, 7)))
    assert msgspec.msgpack.decode(answer.outcome.body, type=DesiredState).position.epoch == 1
