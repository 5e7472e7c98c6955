"""One folder per job: where each file lies, and who writes it. Everything else about a job follows from this folder.

job.json        what was asked                            docker_sdk_api, once
stop            somebody asked it to stop                 docker_sdk_api
split.json      which picture teaches, which one scores   the training job, once
weights.json    what its first weights came from          the training job, once
events.jsonl    what happened, one JSON object a line     the training job, append only; docker_sdk_api while none runs
train.log       what it printed                           the launcher
task.json       how to find the running task again        the launcher
log.csv         figures per step and epoch                the training job
previews/       validation pictures per epoch             the training job
tensorboard/    the same figures, for TensorBoard         the training job
mlflow.json     its run, where an MLflow server is told   the training job, once
last/  best/    weights and everything needed to go on    the training job, each replaced by rename
model/          what is served and downloaded             the training job, last, by rename: there = servable
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.events import Event, read_event
from contracts.job import Job


def write_aside(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, even after a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `path` only when the block ends well."""
    aside, former = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(former, ignore_errors=True)
    if path.exists():
        path.rename(former)
    aside.rename(path)
    shutil.rmtree(former, ignore_errors=True)


class JobFolder:
    """The folder of one job. Reading is safe at any moment, whoever is writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.job_file = path / "job.json"
        self.stop_file = path / "stop"
        self.split_file = path / "split.json"
        self.weights_file = path / "weights.json"
        self.events_file = path / "events.jsonl"
        self.log_file = path / "train.log"
        self.task_file = path / "task.json"
        self.figures_file = path / "log.csv"
        self.previews = path / "previews"
        self.tensorboard = path / "tensorboard"
        self.mlflow_file = path / "mlflow.json"
        self.last = path / "last"
        self.best = path / "best"
        self.model = path / "model"

    def exists(self) -> bool:
        return self.job_file.is_file()

    def job(self) -> Job:
        return Job.model_validate_json(self.job_file.read_bytes())

    def write_job(self, job: Job) -> None:
        write_aside(self.job_file, job.model_dump_json(indent=2))

    def events(self) -> list[Event]:
        """Every event so far, oldest first. A line that is still being written is left for the next time."""
        if not self.events_file.exists():
            return []
        lines = self.events_file.read_text().split("\n")
        return [read_event(line) for line in lines[:-1] if line]

    def add_event(self, event: Event) -> None:
        """Append an event from outside the training: only while none runs. What a kill left of a last line goes."""
        with open(self.events_file, "ab+") as file:
            file.seek(0)
            written = file.read()
            file.truncate(written.rfind(b"\n") + 1)
            file.write(event.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def ask_to_stop(self, keep_best: bool) -> None:
        write_aside(self.stop_file, json.dumps({"keep_best": keep_best}))

    def asked_to_stop(self) -> dict[str, bool] | None:
        """None, or `{"keep_best": whether the best weights so far are to be published}`."""
        if not self.stop_file.exists():
            return None
        return json.loads(self.stop_file.read_bytes())
