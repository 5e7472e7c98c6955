"""A log that takes no more room than is set: what lies between its beginning and its end is given back to the disk, as a hole.

A task writes its log itself (launchers/), and goes on when no service runs. So nothing stands between the two: what is in the log's
middle is taken out of it where it lies. No byte moves, and whoever reads by offsets (logs.py) or appends notices nothing.
"""

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.plain import NONE

LOG = logging.getLogger("maskwright.logs")
BEGINNING = 2**20
"""Bytes that are kept of the beginning, with its versions and warnings; of a small limit a quarter of it."""
LINE = 2**16
"""Bytes in which the end of a line is looked for; a longer one is cut."""
SLACK = 1.25
"""So many times the limit a log grows before something is taken out of it."""
PUNCH_HOLE, KEEP_SIZE = 2, 1


class LogLimit:
    """Of all logs of a folder. 0 megabytes: they are as long as what trainings print."""

    def __init__(self, megabytes: float) -> None:
        self.most = round(megabytes * 1e6)
        self._cannot: set[int] = set()

    def hold(self, log: Path) -> None:
        """Take the middle out of a log that has become too long. Raises OSError.

        A link, or a file with a second name, is left as it is: what it leads to may be anybody's. So are logs on a disk that knows no
        holes, which is said once.
        """
        if not self.most or _room_of(log) <= self.most * SLACK:
            return
        with _opened(log) as file:
            if file is None or os.fstat(file).st_dev in self._cannot:
                return
            try:
                self._shorten(file)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._cannot.add(os.fstat(file).st_dev)
                LOG.warning(
                    "The disk of %s cannot take the middle out of a file: there logs are longer than TRAIN_LOG_MEGABYTES allows.", log
                )

    def _shorten(self, file: int) -> None:
        """The line that tells of it ends where the rest begins, so that the next time it goes with what is left out then."""
        begin = os.pread(file, min(BEGINNING, self.most // 4), 0)
        begins = begin.rfind(b"\n") + 1 or len(begin)
        ends = os.fstat(file).st_size - self.most + begins
        ends += os.pread(file, LINE, max(0, ends)).find(b"\n") + 1
        told = f"… {(ends - begins) / 1e6:.1f} MB of this log were left out here, more than TRAIN_LOG_MEGABYTES allows …\n".encode()
        if ends - len(told) > begins:
            _punch(file, begins, ends)
            os.pwrite(file, told, ends - len(told))


def _room_of(log: Path) -> int:
    """Bytes that a file takes on the disk; 0 where there is none."""
    try:
        return log.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


@contextmanager
def _opened(log: Path) -> Iterator[int | None]:
    """A plain file that has no other name, to read and write; None where it is anything else."""
    try:
        file = os.open(log, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (*NONE, errno.EISDIR):
            raise
        yield None
        return
    try:
        found = os.fstat(file)
        yield file if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else None
    finally:
        os.close(file)


def _punch(file: int, begins: int, ends: int) -> None:
    """Give a part of a file back to the disk; it reads as NULs then. Raises OSError, EOPNOTSUPP where the disk cannot."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(file, PUNCH_HOLE | KEEP_SIZE, begins, ends - begins):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
