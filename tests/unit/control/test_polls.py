"""Open polls: one per agent, woken alone, ended by a coarse wheel."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from edgewise.control.polls import Polls, Woken


async def test_the_newest_poll_wins():
    polls = Polls()
    older, newer = polls.open("a", 10, 0.0), polls.open("a", 10, 0.0)
    assert await older is Woken.SUPERSEDED
    assert not newer.done()
    assert len(polls) == 1


async def test_only_the_agent_is_woken():
    polls = Polls()
    a, b = polls.open("a", 10, 0.0), polls.open("b", 10, 0.0)
    assert polls.wake("a")
    assert not polls.wake("a")
    assert await a is Woken.CHANGED
    assert not b.done()


async def test_a_poll_ends_at_its_time_rounded_up():
    polls = Polls()
    poll = polls.open("a", 2.0, 100.0)
    for now in (100.5, 101.0, 101.9):
        polls.tick(now)
        assert not poll.done()
    polls.tick(103.0)
    assert await poll is Woken.EXPIRED
    assert len(polls) == 0


async def test_forgetting_an_older_poll_leaves_the_newer():
    polls = Polls()
    older = polls.open("a", 10, 0.0)
    newer = polls.open("a", 10, 0.0)
    polls.close_poll("a", older)
    assert not newer.done()
    polls.close_poll("a", newer)
    assert await newer is Woken.CLOSED


async def test_closing_ends_all_and_takes_no_more():
    polls = Polls()
    first = polls.open("a", 10, 0.0)
    polls.close()
    assert await first is Woken.CLOSED
    assert await polls.open("b", 10, 0.0) is Woken.CLOSED
    assert len(polls) == 0


async def test_a_cancelled_poll_does_no_harm():
    polls = Polls()
    poll = polls.open("a", 1, 0.0)
    poll.cancel()
    polls.tick(5.0)
    assert len(polls) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.floats(0, 20), st.floats(0, 3)),
        max_size=30,
    )
)
def test_every_poll_ends_within_half_a_second_of_its_time(steps):
    async def run():
        polls, now, due = Polls(), 0.0, {}
        for agent, wait, pause in steps:
            due[agent] = (polls.open(agent, wait, now), now + wait)
            now += pause
            polls.tick(now)
            for poll, until in due.values():
                if poll.done() and poll.result() is Woken.EXPIRED:
                    assert now >= until
                if not poll.done():
                    assert now <= until + 1.0 + 1e-6
        polls.tick(now + 30)
        assert len(polls) == 0

    asyncio.run(run())
