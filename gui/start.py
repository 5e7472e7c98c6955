"""Where everything stands at a glance: what runs and what ran, the last models, the datasets, the machine."""

import asyncio
import math
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from contracts.job import JobView
from contracts.metrics import CONTENT_TYPE
from gui.backend import Asks, Backend
from gui.pages import page

router = APIRouter(include_in_schema=False)
SHOWN = 6
ENDED = 3
NEWEST = 10


@router.get("/", name="start")
async def start(request: Request, backend: Asks) -> HTMLResponse:
    alive, ended, models, datasets, machine = await asyncio.gather(
        backend.jobs(running=True), _ended_lately(backend), backend.models(SHOWN), backend.datasets(), backend.machine()
    )
    context: dict[str, Any] = {
        "running": [view for view in alive if view.status.state != "queued"],
        "waiting": sorted((view for view in alive if view.status.state == "queued"), key=_turn),
        "ended": ended,
        "models": models,
        "datasets": datasets[:SHOWN],
        "more_datasets": len(datasets) - SHOWN,
        "machine": machine,
    }
    return page(request, "start.html", context)


async def _ended_lately(backend: Backend) -> list[JobView]:
    """Among the newest jobs there mostly are enough: to tell of every job whether it has ended takes as long as all else here."""
    newest, count = await backend.find_jobs("", None, limit=NEWEST)
    ended = [view for view in newest if view.status.ended_already][:ENDED]
    return ended if len(ended) == ENDED or count <= NEWEST else await backend.jobs(running=False, limit=ENDED)


def _turn(view: JobView) -> float:
    return view.status.place.position if view.status.place else math.inf


@router.get("/health", name="health")
async def health() -> dict[str, str]:
    """Not a page: the gui is well even where the services behind it are not."""
    return {"status": "ok"}


@router.get("/ready", name="ready")
async def ready(backend: Asks) -> dict[str, str]:
    """Trainings can be started and predictions be asked for. Raises Unavailable, saying why, where one of the two cannot."""
    await backend.training_ready()
    await backend.inference_ready()
    return {"status": "ready"}


@router.get("/metrics", name="metrics")
async def metrics(request: Request) -> Response:
    """The pages' requests and latencies, as Prometheus reads them."""
    return Response(request.app.state.metrics.as_text(), media_type=CONTENT_TYPE)


def last_sheets(jobs: list[JobView]) -> dict[str, str]:
    """The file name of each job's latest preview, by job: the picture that stands for its model."""
    return {view.job.name: view.status.previews[-1] for view in jobs if view.status.previews}
