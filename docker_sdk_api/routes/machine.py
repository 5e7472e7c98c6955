"""/v1/machine, /v1/networks, /v1/hyperparameters: what it can do; /v1/health, /v1/ready, /v1/metrics: for those who watch over it."""

import os
from functools import cache
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from contracts.answers import Machine, Step
from contracts.errors import Unavailable
from contracts.hyperparameters import describe_hyperparameters, read_hyperparameters
from contracts.job import JobView
from contracts.metrics import CONTENT_TYPE
from contracts.networks import CATALOGUE
from docker_sdk_api.diagnostics import bundle_name, write_bundle
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import describe_machine, list_engines
from docker_sdk_api.self_test import start_self_test, steps_of

routes = APIRouter(prefix="/v1", tags=["machine"])


@routes.get("/health")
def health() -> dict[str, str]:
    """The service runs."""
    return {"status": "ok"}


@routes.get("/ready")
def ready(request: Request) -> dict[str, str]:
    """Trainings can be started: the folder of the jobs can be written to, the queue answers, and so does what runs them."""
    jobs: Jobs = request.app.state.jobs
    folder = jobs.settings.checkpoints
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise Unavailable(f"The folder {folder.name} of the jobs cannot be written to.", "Check that it is there and who may write to it.")
    jobs.line.queue.entries()
    jobs.launcher.running()
    return {"status": "ready"}


@routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Requests, latencies, jobs by their state and room on the disk, as Prometheus reads them."""
    return Response(request.app.state.metrics.as_text(), media_type=CONTENT_TYPE)


@routes.get("/machine")
def machine(request: Request) -> Machine:
    """Cores, memory and disk (bytes), GPUs, and which engines can run."""
    return describe_machine(request.app.state.settings, request.app.state.jobs.launcher)


@routes.get("/networks")
def networks(request: Request) -> list[dict[str, Any]]:
    """The catalogue, with each network's complete default settings and whether its engine can run here."""
    states = {state.engine: state for state in list_engines(request.app.state.settings, request.app.state.jobs.launcher)}
    rows = []
    for row in _catalogue():
        state = states[row["engine"]]
        rows.append({**row, "available": state.available, "cause": state.cause, "cure": state.cure})
    return rows


@cache
def _catalogue() -> list[dict[str, Any]]:
    """What of the catalogue's rows no machine changes."""
    return [{**row.model_dump(), "key": row.key, "defaults": read_hyperparameters({}, row.defaults).model_dump()} for row in CATALOGUE]


@routes.get("/hyperparameters")
def hyperparameters() -> list[dict[str, Any]]:
    """Every setting: kind, default, range, unit, help."""
    return describe_hyperparameters()


class SelfTest(BaseModel):
    """`engine`: empty for the first one that can run here."""

    engine: str = ""


@routes.get("/diagnostics", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
def diagnostics(request: Request) -> Response:
    """A zip for a report of a fault: machine, versions, settings, the last jobs' events and logs; no pictures, no secrets."""
    headers = {"Content-Disposition": f'attachment; filename="{bundle_name()}"'}
    return Response(write_bundle(request.app.state.jobs), media_type="application/zip", headers=headers)


@routes.post("/self-test", status_code=201)
def start_test(request: Request, wish: SelfTest) -> JobView:
    """Train a tiny model on the dummy dataset: a real job, through everything that a job goes through."""
    return start_self_test(request.app.state.jobs, wish.engine)


@routes.get("/self-test/{job}")
def self_test(request: Request, job: str) -> list[Step]:
    """How far such a job has come, step by step."""
    return steps_of(request.app.state.jobs, job)
