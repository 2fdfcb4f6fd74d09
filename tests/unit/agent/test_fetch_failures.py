"""What the engine is told of what went wrong in the fetch process."""

import errno
import os

import pytest

from edgewise.agent.fetching import failure


@pytest.mark.parametrize(
    ("number", "reason", "message"),
    [
        (errno.ENOSPC, "DiskFull", "the disk is full: No space left on device (repository/timestamp.json)"),
        (errno.EDQUOT, "DiskFull", "the disk is full: Disk quota exceeded (repository/timestamp.json)"),
        (errno.EIO, "DiskFailed", "the disk failed: Input/output error (repository/timestamp.json)"),
    ],
)
def test_a_disk_that_fails_is_said_as_the_disk(number, reason, message):
    told = failure(OSError(number, os.strerror(number), "repository/timestamp.json"))
    assert (told.kind, told.reason, told.message) == ("transient", reason, message)


def test_an_error_that_names_no_file():
    assert failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))).message == "the disk is full: No space left on device"
    assert failure(OSError("odd")).message == "the disk failed: odd"
