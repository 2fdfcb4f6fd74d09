"""Any story of an outbox: items, reports, answers, faults and power cuts in any order."""

import contextlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outbox_rig import Tokens, answer, balanced, item, opened

from edgewise.engine.outbox import LANES, ReportLimits
from edgewise.ports.files import Damaged, FilesError, Full, ReadOnly
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk
from edgewise.wire.report import Report, ReportAnswer


class ControlPlane:
    """Keeps what it takes, once; a number means one item for ever."""

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], int] = {}
        self.kept: dict[tuple[str, str, int], str] = {}

    def receive(self, report: Report) -> ReportAnswer:
        marks = {}
        for lane, items in report.lanes.items():
            mark = self.marks.get((report.incarnation, lane), 0)
            for number, one in enumerate(items.items, items.first):
                key = (report.incarnation, lane, number)
                assert self.kept.setdefault(key, one.message) == one.message, "a number means one item"  # type: ignore[union-attr]
                assert number > mark or key in self.kept
            marks[lane] = self.marks[report.incarnation, lane] = max(mark, items.first + len(items.items) - 1)
        return answer(**marks)


happenings = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(LANES), st.integers(0, 300)),
    st.tuples(st.just("flush"), st.none(), st.none()),
    st.tuples(st.just("report"), st.integers(1, 6), st.sampled_from(["taken", "answer lost", "lost"])),
    st.tuples(st.just("crash"), st.sampled_from(Crash), st.booleans()),
    st.tuples(st.just("cut"), st.integers(0, 12), st.sampled_from(Crash)),
    st.tuples(st.just("fault"), st.integers(1, 6), st.sampled_from([Full, ReadOnly, Damaged])),
)


class Story:
    def __init__(self) -> None:
        self.disk, self.tokens, self.control = RecordingDisk(), Tokens(), ControlPlane()
        self.outbox = opened(self.disk, self.tokens)
        self.count = 0
        self.safe: set[str] = set()
        self.unsafe: set[str] = set()
        self.faulty = False

    def play(self, what: str, first: object, second: object) -> None:
        try:
            getattr(self, f"_{what}")(first, second)
            balanced(self.outbox)
        except PowerCut:
            self._crash(self.how)

    how = Crash.DROPPED

    def _append(self, lane: str, size: int) -> None:
        self.count += 1
        if lane != "telemetry":
            self.unsafe.add(str(self.count) + "x" * size)
        self.outbox.append(lane, item(self.count, size))  # type: ignore[arg-type]

    def _flush(self, _: None, __: None) -> None:
        self.outbox.flush()
        if self.outbox.problem is None and not self.faulty:
            self.safe |= self.unsafe
            self.unsafe.clear()

    def _report(self, items: int, fate: str) -> None:
        report = self.outbox.next_report(ReportLimits(items_max=items))
        if fate == "lost" or not report.lanes:
            return
        given = self.control.receive(report)
        if fate == "taken":
            self.outbox.acknowledge(given)

    def _crash(self, how: Crash, clean: bool = False) -> None:
        if clean and not self.disk.dead:
            self.outbox.close()
        self.disk = self.disk.crash(how)
        self.unsafe.clear()
        self.outbox = opened(self.disk, self.tokens)

    def _cut(self, after: int, how: Crash) -> None:
        self.disk.cut_after = self.disk.operations + after
        self.how = how

    def _fault(self, after: int, fault: type[FilesError]) -> None:
        self.disk.fail_at, self.disk.fail_with = self.disk.operations + after, fault
        self.faulty = True


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(happenings, min_size=4, max_size=60))
def test_whatever_is_cut_numbers_mean_one_item_counts_balance_and_what_was_flushed_arrives(story: list) -> None:
    life = Story()
    for what, first, second in story:
        life.play(what, first, second)
    life.disk.cut_after = life.disk.fail_at = None
    with contextlib.suppress(PowerCut):
        life.outbox.flush()
    if life.disk.dead:
        life._crash(life.how)
    dropped = sum(counts.dropped for counts in life.outbox.counts().values())
    for _ in range(400):
        if life.outbox.empty:
            break
        report = life.outbox.next_report(ReportLimits(items_max=9))
        life.outbox.acknowledge(life.control.receive(report))
        balanced(life.outbox)
    assert life.outbox.empty
    if not dropped and not life.faulty:
        assert life.safe <= set(life.control.kept.values()), "what was flushed arrives"
