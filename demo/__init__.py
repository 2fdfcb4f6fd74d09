"""`make demo`: the whole loop with real processes on loopback, measured in front of you.

Start reading at `__main__.py` (the steps in order); `fleet.py` starts and kills processes, `model.py` makes the model.
"""
