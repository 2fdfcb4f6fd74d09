"""How to start a supervisor; read by those who start it, never by the supervisor itself."""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH100, PTH118, PTH120

import os
import sys
from collections.abc import Sequence


def supervisor_argv(data_folder: str, agent_argv: Sequence[str], limits: Sequence[str] = ()) -> list[str]:
    """Return the argument vector of a supervisor for `data_folder` that runs `agent_argv`. `-I -S`: neither the environment nor `site` add
    paths or modules, which keeps it small and lets nobody put code in its way. `limits` are `NAME=NUMBER`."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    argv = [sys.executable, "-I", "-S", program, "--data", data_folder]
    for limit in limits:
        argv += ["--limit", limit]
    return [*argv, "--", *agent_argv] if agent_argv else argv
