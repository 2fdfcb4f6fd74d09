"""The operator API: HTTPS and JSON for people and their programs, by Litestar.

Rules: each handler names what it does and to what (`opt=may(…)`) and the guard in `access.py` asks `trust.access.decide`, so that a handler
that names nothing is denied; every change carries its audit record in the same transaction; bodies are bounded and decoded strictly;
nothing secret is ever answered. Start reading at `app.py`.
"""
