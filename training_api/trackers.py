"""A training told to the tools that people compare trainings with: TensorBoard files for every job, MLflow where it is asked for.

`checkpoints/<job>/tensorboard/` is read by `tensorboard --logdir checkpoints`. MLflow is told where MLFLOW_TRACKING_URI names its
server, over its REST API (https://mlflow.org/docs/latest/rest-api.html): five routes of it, so that a training needs none of the
thirty packages of its client. A tracker that cannot be reached is said once, and never ends a training.
"""

import base64
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from contracts.job import EpochScores, Job
from contracts.job_folder import JobFolder, write_aside

PATIENCE = 10.0
"""Seconds that a training waits for MLflow's answer."""
AT_ONCE = 1000
"""Metrics that MLflow takes in one request."""


class Tracker(Protocol):
    """Told of a training as it goes. Steps are counted from 1 over the whole training."""

    def step(self, step: int, loss: float, learning_rate: float) -> None: ...
    def epoch(self, step: int, scores: EpochScores) -> None: ...
    def preview(self, step: int, picture: Path, /) -> None: ...
    def close(self, published: bool, /) -> None: ...


def open_trackers(folder: JobFolder, job: Job, done: int, warn: Callable[[str], None]) -> list[Tracker]:
    """The trackers of a training that goes on after `done` steps; `warn` says what could not be told."""
    trackers: list[Tracker] = [TensorBoard(folder.tensorboard, done)]
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address:
        trackers.append(MLflow(address, folder, job, warn))
    return trackers


def scalars(scores: EpochScores) -> dict[str, float]:
    """The figures of an epoch by name; an IoU that is n/a is left out."""
    named = {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}
    named |= {f"iou/{name}": iou for name, iou in scores.iou_per_class.items()}
    return {"epoch_loss": scores.loss, **{name: value for name, value in named.items() if value is not None}}


class TensorBoard:
    """Event files, in tensorboardX's form, which needs no framework. Written at once: a thread of its own, as tensorboardX has
    one, would lose an epoch that the job's folder has when the training is killed."""

    def __init__(self, folder: Path, done: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(exist_ok=True)
        self._file: Any = EventsWriter(str(folder / "events"))
        if done:  # readers drop what an earlier process told of later steps
            from tensorboardX.proto.event_pb2 import SessionLog

            self._tell(done + 1, session_log=SessionLog(status=SessionLog.START))

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        self._scalars(step, {"loss": loss, "learning_rate": learning_rate})

    def epoch(self, step: int, scores: EpochScores) -> None:
        self._scalars(step, scalars(scores))
        self._file.flush()

    def preview(self, step: int, picture: Path) -> None:
        from tensorboardX.summary import image

        with Image.open(picture) as sheet:
            self._tell(step, summary=image("validation", np.asarray(sheet.convert("RGB")), dataformats="HWC"))

    def close(self, _: bool, /) -> None:
        self._file.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._tell(step, summary=scalar(name, value))

    def _tell(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time.time(), step=step, **what))


class MLflow:
    """One run of an MLflow experiment; a training that is resumed goes on in its run, whose id lies in the job's folder."""

    def __init__(self, address: str, folder: JobFolder, job: Job, warn: Callable[[str], None]) -> None:
        self._address = address.rstrip("/")
        self._folder = folder
        self._warn: Callable[[str], None] | None = warn
        self._metrics: list[dict[str, Any]] = []
        self._run, self._artifacts = "", ""
        self._try(lambda: self._open(job))

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        self._note(step, {"loss": loss, "learning_rate": learning_rate})

    def epoch(self, step: int, scores: EpochScores) -> None:
        self._note(step, scalars(scores))
        self._try(self._send)

    def preview(self, _: int, picture: Path, /) -> None:
        self._try(lambda: self._keep(picture, f"previews/{picture.name}"))

    def close(self, published: bool) -> None:
        self._try(lambda: self._close(published))

    def _open(self, job: Job) -> None:
        known = self._folder.mlflow_file
        if known.exists():
            self._run = json.loads(known.read_bytes())["run"]
            run = self._ask("POST", "runs/update", run_id=self._run, status="RUNNING")["run_info"]
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "maskwright")
            wish = {"experiment_id": self._experiment(name), "run_name": job.name, "start_time": _now()}
            run = self._ask("POST", "runs/create", **wish)["run"]["info"]
            self._run = run["run_id"]
            write_aside(known, json.dumps({"run": self._run}))
            asked = {**job.model_dump(mode="json", exclude={"hyperparameters"}), **job.hyperparameters.model_dump(mode="json")}
            params = [{"key": key, "value": str(value)} for key, value in asked.items()]
            self._ask("POST", "runs/log-batch", run_id=self._run, params=params[:100])
        self._artifacts = run["artifact_uri"]

    def _experiment(self, name: str) -> str:
        try:
            found = self._ask("GET", f"experiments/get-by-name?experiment_name={urllib.parse.quote(name)}")
            return str(found["experiment"]["experiment_id"])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return str(self._ask("POST", "experiments/create", name=name)["experiment_id"])

    def _note(self, step: int, values: dict[str, float]) -> None:
        at = _now()
        self._metrics += [{"key": _key(name), "value": value, "timestamp": at, "step": step} for name, value in values.items()]

    def _send(self) -> None:
        while self._metrics:
            self._ask("POST", "runs/log-batch", run_id=self._run, metrics=self._metrics[:AT_ONCE])
            del self._metrics[:AT_ONCE]

    def _close(self, published: bool) -> None:
        self._send()
        if self._folder.figures_file.exists():
            self._keep(self._folder.figures_file, self._folder.figures_file.name)
        for path in sorted(self._folder.model.rglob("*")) if published else []:
            if path.is_file():
                self._keep(path, f"model/{path.relative_to(self._folder.model)}")
        self._ask("POST", "runs/update", run_id=self._run, status="FINISHED" if published else "FAILED", end_time=_now())

    def _keep(self, file: Path, name: str) -> None:
        """Lay a file with the run. A server that keeps no artefacts itself names a place that only its client's plugins reach."""
        place = urllib.parse.urlsplit(self._artifacts)
        if place.scheme != "mlflow-artifacts":
            return
        path = urllib.parse.quote(f"{place.path.strip('/')}/{name}")
        with open(file, "rb") as content:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
            self._request("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content, headers)

    def _ask(self, method: str, route: str, **body: Any) -> dict[str, Any]:
        content = json.dumps(body).encode() if body else None
        headers = {"Content-Type": "application/json"}
        answer: dict[str, Any] = json.loads(self._request(method, f"/api/2.0/mlflow/{route}", content, headers))
        return answer

    def _request(self, method: str, path: str, content: Any, headers: dict[str, str]) -> bytes:
        request = urllib.request.Request(self._address + path, content, {**headers, **_credentials()}, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def _try(self, tell: Callable[[], None]) -> None:
        """A tracker must not end a training: the first failure is said, and the run left as it is."""
        if self._warn is None:
            return
        try:
            tell()
        except (OSError, ValueError, KeyError) as error:
            self._warn(f"MLflow at {self._address} could not be told ({error}); the training goes on without it.")
            self._warn = None


def _key(name: str) -> str:
    """MLflow takes letters, digits and a few signs; a class may be named otherwise."""
    return re.sub(r"[^\w./ :-]", "_", name, flags=re.ASCII)


def _credentials() -> dict[str, str]:
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user:
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
