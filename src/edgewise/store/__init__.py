"""Documents with revisions and watch, events, telemetry frames, marks, liveness, and blobs.

Rules: one contract (`contract.py`), one suite (`tests/contract/test_store*.py`) that every implementation passes. The store knows no kinds:
specs and statuses are bytes to it (`codec.py` makes resources of them). One writer assigns revisions inside the transaction, so that no
watcher skips one; an answer leaves after the commit. What a transaction does to documents is decided in one place, `plan.py`.

Start reading at `contract.py`; then `memory.py`, the plainest store, and `sqlite.py`, the embedded one.
"""
