"""`python -m edgewise.supervisor`.

Whatever way it is started, it runs its own file under `python -I -S`: without `site` and what that loads, and with no path or variable by
which somebody could put other code in its way.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH100, PTH120

import os
import sys

_HERE = os.path.abspath(__file__)

if not (sys.flags.isolated and sys.flags.no_site):
    os.execv(sys.executable, [sys.executable, "-I", "-S", _HERE, *sys.argv[1:]])  # noqa: S606 -- an argument vector, no shell

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(_HERE))))

from edgewise.supervisor.main import main  # noqa: E402 -- the path to it is set above

sys.exit(main(sys.argv[1:]))
