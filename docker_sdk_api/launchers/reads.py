"""What a task reads, for nodes that have to be brought it: which files of which folders, and under what name they are kept."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from annotations.doctor.checking import fingerprint_now
from contracts.errors import Invalid
from contracts.job_folder import JobFolder
from contracts.networks import find_network
from contracts.weights import file_patterns
from docker_sdk_api.launchers import Task

OF_A_JOB = ("job.json", "weights.json", "events.jsonl", "model", "best")
"""Of an earlier job, what another one starts from."""
OR = "Or give the cluster a shared disk instead of STORE (docs/cluster.md)."
Folder = tuple[Path, list[tuple[str, Path]]]
"""A folder that a task reads, and its files by their names in it."""


def refuse(task: Task) -> None:
    """Raises Invalid for what needs a disk that nodes share with this machine."""
    if task.nodes > 1:
        raise Invalid("Over an object store a job learns on one node.", f"Leave `nodes` at 1. {OR}")
    if task.port is not None:
        raise Invalid("A job that an old client asks needs a shared disk.", f"Run it on one machine (LAUNCHER=process). {OR}")
    if any(str(folder) != task.environment.get("WEIGHTS") for folder in task.writable):
        raise Invalid("A run of a Waggle folder writes there, where no node can.", f"Run it on one machine (LAUNCHER=process). {OR}")


def what_is_read(task: Task) -> Iterator[Folder]:
    """Every folder that a task reads, with those of its files that it may need: all but hidden ones; of an earlier job its weights; of
    weights that were fetched before, those of this job's network."""
    environment = task.environment
    for folder in task.read_only:
        if str(folder) != environment.get("WEIGHTS_MIRROR"):
            of_a_job = (folder / "job.json").is_file()
            yield folder, [row for row in files_of(folder) if not of_a_job or row[0].partition("/")[0] in OF_A_JOB]
    if "WEIGHTS" in environment:
        job = JobFolder(task.folder).job()
        patterns = file_patterns(find_network(job.engine, job.network, job.backbone))
        folders = [Path(environment[name]) for name in ("WEIGHTS_MIRROR", "WEIGHTS") if environment.get(name)]
        found = {name: file for folder in folders for name, file in files_of(folder) if any(fnmatch(name, pattern) for pattern in patterns)}
        if found:
            yield Path(environment["WEIGHTS"]), sorted(found.items())


def files_of(folder: Path) -> list[tuple[str, Path]]:
    """By their names, those in folders too; hidden ones not."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(place) / name for name in names if not name.startswith(".")]
        found += [(file.relative_to(folder).as_posix(), file) for file in files if file.is_file()]
    return sorted(found)


def key_of(folder: Path, files: list[tuple[str, Path]]) -> str:
    """The name of a folder in the store: its own, and its fingerprint; of what is no dataset that of its files' sizes and times."""
    digest = fingerprint_now(folder)
    if digest in ("", "gone"):
        stamps = [(name, stat.st_size, stat.st_mtime_ns) for name, file in files for stat in [file.stat()]]
        digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    return f"{re.sub('[^A-Za-z0-9._-]', '_', folder.name).lstrip('.')[:60]}-{digest[:20]}"
