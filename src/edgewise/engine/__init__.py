"""The device's decisions, pure: what to fetch, start, swap, roll back, report, drop.

Rules: `handle(state, event, now) -> (state, effects)`; no input or output, no clock, no randomness; immutable state. Everything that must
survive a power cut is a journal record, and recovery is a fold over the records followed by one look at what really runs. State machines
are tables. Raw metric samples do not pass through here.

Start reading at `protocol.py` (events and effects), then `machine.py`.
"""
