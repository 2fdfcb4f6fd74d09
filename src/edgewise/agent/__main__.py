"""`python -m edgewise.agent --data DIR`: see `main.py`.

The memory allocator is told by the environment, before the interpreter starts, to keep one arena for all threads and to give memory back;
so the process replaces itself once when it was started without.
"""

import os
import sys

_SMALL = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}

if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in _SMALL.items()):
        command = [sys.executable, "-m", "edgewise.agent", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **_SMALL})  # noqa: S606  # an argument vector, no shell
    from edgewise.agent.main import main

    # Threads may still wait for the network or the disk; everything that must be kept is on the disk by now.
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)
