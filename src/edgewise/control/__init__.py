"""The control plane process: it keeps views current, carries out what the controllers decide, and speaks with devices and people.

Rules: no decision is made here (ask `edgewise.controllers`); an answer leaves after the commit; every path says who may use it in one table
(`gateway.ROUTES`, `api/access.py`), default deny; every limit is a field of `limits.ControlLimits`; nothing waits unbounded, nothing is
read unbounded, files are never read on the loop.

Start reading at `process.py` (how the parts are put together), then `gateway.py` (devices), `api/app.py` (people) and `runner.py` (the
loop around the controllers).
"""
