"""What every launcher does alike."""

import io
import math
from collections.abc import Iterator
from contextlib import suppress

from contracts.job_folder import JobFolder
from contracts.plain import open_plain, size_of
from docker_sdk_api.launchers import Task

MOST_OF_LOG = 16 * 2**20
"""Bytes of a log that are handed out together."""


def log_lines(files: JobFolder) -> Iterator[str]:
    """The lines of train.log, of a very long one those at its end; a progress bar's carriage return ends a line too.

    NULs are what was left out of it (docker_sdk_api/log_limit.py).
    """
    with suppress(FileNotFoundError), open_plain(files.log_file) as file:
        file.seek(max(0, size_of(files.log_file) - MOST_OF_LOG))
        with io.TextIOWrapper(io.BytesIO(file.read(MOST_OF_LOG).replace(b"\0", b"")), encoding="utf-8", errors="replace") as text:
            for line in text:
                yield line.rstrip("\n")


def common_environment(task: Task) -> dict[str, str]:
    """What every launcher tells a task: to print at once, and not to start more threads than it may keep busy."""
    settings = {"PYTHONUNBUFFERED": "1"}
    if task.limits.cpus is not None:
        settings["OMP_NUM_THREADS"] = str(max(1, math.ceil(task.limits.cpus)))
    return settings
