"""The short-lived helper process: `python -m edgewise.agent.fetch`. One job on standard input, progress and the result on standard output.

What needs much memory or touches keys happens here: verifying, downloading, installing, renewing, opening secrets. Killing it at any
moment is safe; a download goes on later from where it was.
"""

import sys
from collections.abc import Callable

import msgspec

from edgewise.agent.jobs import FetchEnded, FetchJob, Job, Line, RenewJob, UnsealJob
from edgewise.ports.disk import DiskFiles
from edgewise.ports.files import Files

_JOB_BYTES_MAX = 8 * 1024 * 1024


def main() -> int:
    """Do the job on standard input. Returns the exit status, 0 whenever a result was written."""
    data = sys.stdin.buffer.read(_JOB_BYTES_MAX + 1)
    if len(data) > _JOB_BYTES_MAX:
        sys.stderr.write("the job is too large\n")
        return 2
    job = msgspec.json.decode(data, type=Job)
    result = run_job(job, DiskFiles(job.place.data), _write)
    _write(result)
    return 0


def run_job(job: Job, files: Files, write: Callable[[Line], None]) -> Line:
    """Do one job and return its result; progress goes to `write`."""
    match job:
        case FetchJob():
            from edgewise.agent.fetching import Fetcher

            return FetchEnded(result=Fetcher(job, files, write).run())
        case RenewJob():
            from edgewise.agent.renew import renew_certificate

            return renew_certificate(job, files)
        case UnsealJob():
            from edgewise.agent.unseal import open_secrets

            return open_secrets(job, files)


def _write(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
