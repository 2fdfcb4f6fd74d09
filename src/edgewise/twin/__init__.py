"""The digital twin: the real engine and controllers under virtual time, simulated devices, networks and disks, and every fault.

Two uses of one thing: Edgewise's own reliability (seeded chaos, invariants, power cuts) and a rehearsal of a change on a twin of a user's
fleet before a real device sees it.

Rules: one thread, no sockets, no real sleep, no wall clock, no unordered iteration; the same plan and seed give the same trace, bit for
bit. Nothing of the product is forked: decisions come from `engine`, `controllers`, `delivery` and `trust`; what is modelled here is only
the world around them. Start reading at `kernel.py` (time and chance), then `world.py` (one run).
"""
