"""Where everything stands at a glance, and the machine it stands on."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from contracts.job import JobView
from gui.backend import Asks
from gui.pages import page

router = APIRouter(include_in_schema=False)
SHOWN = 6


@router.get("/", name="start")
async def start(request: Request, backend: Asks) -> HTMLResponse:
    jobs = await backend.jobs()
    context: dict[str, Any] = {
        "running": [view for view in jobs if not view.status.ended_already],
        "ended": [view for view in jobs if view.status.ended_already][:3],
        "models": (await backend.models())[:SHOWN],
        "datasets": (await backend.datasets())[:SHOWN],
        "machine": await backend.machine(),
        "sheets": last_sheets(jobs),
    }
    return page(request, "start.html", context)


@router.get("/health", name="health")
async def health() -> dict[str, str]:
    """Not a page: the gui is well even where the services behind it are not."""
    return {"status": "ok"}


@router.get("/machine", name="machine")
async def machine(request: Request, backend: Asks) -> HTMLResponse:
    return page(request, "machine.html", {"machine": await backend.machine()})


def last_sheets(jobs: list[JobView]) -> dict[str, str]:
    """The file name of each job's latest preview, by job: the picture that stands for its model."""
    return {view.job.name: view.status.previews[-1] for view in jobs if view.status.previews}
