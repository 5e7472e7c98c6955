"""What every launcher does alike."""

import io
import math
from collections.abc import Iterator
from contextlib import suppress

from contracts.job_folder import JobFolder
from contracts.plain import open_plain
from docker_sdk_api.launchers import Task


def log_lines(files: JobFolder) -> Iterator[str]:
    """The lines of train.log; a progress bar's carriage return ends a line too."""
    with suppress(FileNotFoundError), io.TextIOWrapper(open_plain(files.log_file), encoding="utf-8", errors="replace") as file:
        for line in file:
            yield line.rstrip("\n")


def common_environment(task: Task) -> dict[str, str]:
    """What every launcher tells a task: to print at once, and not to start more threads than it may keep busy."""
    settings = {"PYTHONUNBUFFERED": "1"}
    if task.limits.cpus is not None:
        settings["OMP_NUM_THREADS"] = str(max(1, math.ceil(task.limits.cpus)))
    return settings
