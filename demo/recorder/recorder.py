"""A small workload with nothing to do but to be there: it beats its heart through the local workload API."""

import contextlib
import time

from edgewise import workload

PERIOD_SECONDS = 2.0


def main() -> None:
    """Beat until stopped."""
    while True:
        with contextlib.suppress(workload.Unavailable):  # the agent is being restarted: beat on
            workload.heartbeat()
        time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    main()
