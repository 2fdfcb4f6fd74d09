"""The resident device process around the pure engine.

It carries out what the engine decides, keeps the connections to the control plane and serves the local workload API. Rules: threads, no
event loop; the standard library plus msgspec, psutil, zstandard and h11 only, and of the standard library nothing big (a test guards the
list); whatever needs more memory (verification, keys, unpacking) runs in the short-lived `fetch` process. No thread may die of an
exception. Everything that is read from outside has a limit in `limits.py`.

Start reading at `main.py` (what is put together), then `loop.py` (the engine's thread).
"""
