"""The queue of a run: calls come in the order of their time, then in the order in which they were asked for."""

from hypothesis import given
from hypothesis import strategies as st

from edgewise.twin.kernel import Kernel

TIMES = st.one_of(st.integers(0, 40).map(lambda number: number / 64.0), st.floats(0.0, 500.0))


@given(first=st.lists(TIMES, max_size=30), then=st.lists(st.tuples(TIMES, TIMES), max_size=30), stops=st.lists(TIMES, max_size=5))
def test_calls_come_in_the_order_of_their_time_and_then_of_their_asking(first, then, stops):
    kernel, came, asked = Kernel(1), [], []

    def ask(at: float) -> None:
        number = len(asked)
        asked.append((max(at, kernel.now), number))
        kernel.at(at, lambda: came.append((kernel.now, number)))

    for at in first:
        ask(at)
    for when, wait in then:
        kernel.at(when, lambda wait=wait: ask(kernel.now + wait))
    for stop in sorted(stops):
        kernel.run(stop)
        assert kernel.now == stop
        assert came == sorted(each for each in asked if each[0] <= stop)
        ask(stop / 2)
    kernel.run(2_000.0)
    assert came == sorted(came)
    assert sorted(came) == sorted(asked)


def test_what_was_cancelled_does_not_come():
    kernel, came = Kernel(1), []
    near, far = kernel.after(0.01, lambda: came.append("near")), kernel.after(100.0, lambda: came.append("far"))
    kernel.after(50.0, lambda: came.append("kept"))
    near.cancel()
    far.cancel()
    kernel.run(1_000.0)
    assert came == ["kept"]
