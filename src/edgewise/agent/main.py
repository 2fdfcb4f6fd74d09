"""The resident agent's entry: `python -m edgewise.agent --data DIR`, started by the supervisor.

Ends with 0 after a clean stop, 1 when the disk or the identity cannot be used (the supervisor starts it again, later and later), 2 on a
wrong command line, 3 when the device has not joined, 4 when the supervisor is gone, 70 to be started afresh.
"""

import signal
import sys
import threading
from types import FrameType

from edgewise.agent.config import ConfigError, read_config
from edgewise.agent.limits import LIMITS
from edgewise.agent.log import Log
from edgewise.agent.runtime import FAILED, SUPERVISOR_GONE, Runtime
from edgewise.agent.slots import SupervisorGone
from edgewise.ports.disk import DiskFiles
from edgewise.ports.files import FilesError

_WRONG_COMMAND, _NOT_JOINED = 2, 3


def main(arguments: list[str]) -> int:
    """Run the agent. Returns the exit status."""
    if len(arguments) != 2 or arguments[0] != "--data" or not arguments[1]:
        sys.stderr.write("usage: python -m edgewise.agent --data DIR\n")
        return _WRONG_COMMAND
    threading.stack_size(LIMITS.thread_stack_bytes)
    lines = Log()
    try:
        files = DiskFiles(arguments[1])
        runtime = Runtime(arguments[1], files, read_config(files), lines)
    except ConfigError as error:
        lines.error(str(error))
        return _NOT_JOINED
    except FilesError as error:
        lines.error("the data folder cannot be used", error)
        return FAILED
    except SupervisorGone as error:
        lines.error(str(error))
        return SUPERVISOR_GONE

    def end(_number: int, _frame: FrameType | None) -> None:
        runtime.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    return runtime.run()
