"""The public Python API: everything that a person can do with a fleet, over the operator API.

Rules: asynchronous, bounded and with deadlines; only what cannot do harm twice is tried again; the control plane is believed only behind
the pinned authority; no token, key or secret ever stands in a message. Heavy things (the signed repository) are imported when used.

Start reading at `fleet.py` (`Client`), then `connection.py`; `errors.py` says what can go wrong.
"""
