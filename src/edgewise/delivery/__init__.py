"""What goes where, in which form, and in which order: placement, variant choice, templates, rollout steps, analysis, rendering.

Rules: pure functions over frozen facts; no store, no clock, no randomness; equal input gives equal output. Nothing moves without cause:
what runs stays where it is until something that it depends on changed. Every rejection can be said in words, with the numbers.

Start reading at `facts.py` (what is known of a device and of an artifact version), then `placement.py` and `rollout.py`.
"""
