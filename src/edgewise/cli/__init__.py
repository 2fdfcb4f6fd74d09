"""The commands. Operator commands are clients of the public API; `up` and `agent` start a process.

Rules: kubectl's verbs, flags and manners. What was asked for goes to standard output, everything else to standard error; errors say what
was wrong, where, and what to do next; exit codes are 0, 1 (it did not happen), 2 (wrong usage), 130 (Ctrl-C). Modules import heavy things
inside functions, so that `edgewise --help` is quick.

Start reading at `main.py` and `app.py`; `tables.py` and `describe.py` say how things look.
"""
