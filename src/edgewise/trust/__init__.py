"""Who is who, what may run, and who may do what.

Rules: private keys are made where they are used and travel nowhere; every time comes in as `now` (seconds since the Unix epoch), so that a
caller decides which clock to believe; everything that is parsed is bounded before it is parsed; what is refused is refused with one
CamelCase reason. Start reading at `authority.py` (identities), then `repository.py` and `verify.py` (what is signed), `sealing.py`
(secrets), `tokens.py` and `access.py` (people).
"""
