"""The control plane's decisions, pure: gateway requests, placement, rollouts, liveness, failover, an operator's verbs.

Rules: `handle(event, view, now) -> Decision`; the view is indexed state fed by the store's changes and updated per change, so no decision
loads the fleet. A decision whose writes were applied is empty when made again; after a conflict the shell lets the view catch up and asks
again. No input or output, no clock, no randomness but what is passed in.

Start reading at `view.py`, then `reconcile.py` (what follows from changes and time) and `gateway.py` (what devices ask).
"""
