"""`python -m edgewise.supervisor`, and the same file run by its path under `python -I -S`, which leaves out `site` and saves its memory."""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH100, PTH120

import os
import sys

if __package__ in (None, ""):
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from edgewise.supervisor.main import main

sys.exit(main(sys.argv[1:]))
