"""Two devices that show one identity are told apart by the sessions that their agents draw at random at each start."""

import msgspec


class Session(msgspec.Struct, frozen=True, gc=False):
    """The session that an agent reports under, the one before, and how often a former one came back."""

    current: str
    previous: str = ""
    flips: int = 0


def next_session(known: Session | None, session: str) -> Session:
    """Return what is known after a report or poll under `session`. A new session is a restart. One that comes back after another was seen
    is not: a delayed message of the former one makes two such returns (A, B, A, B), a third one is a second device."""
    if known is None:
        return Session(session)
    if session == known.current:
        return known
    if session == known.previous:
        return Session(session, known.current, known.flips + 1)
    return Session(session, known.current)
