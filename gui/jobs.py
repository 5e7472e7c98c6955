"""Jobs: the list, and one job as it learns, live; stopping, resuming and deleting; what the browser follows while it runs."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.job import JobView
from gui import forms
from gui.backend import Asks, Backend
from gui.pages import classes_in_colour, page, path_to
from gui.start import last_sheets
from gui.wizard import find

router = APIRouter(prefix="/jobs", include_in_schema=False)
LINES = 400
"""Lines of the log on the page before the browser follows it."""
LAST_WORDS = 20


@router.get("", name="jobs")
async def jobs(request: Request, backend: Asks) -> HTMLResponse:
    views = await backend.jobs()
    return page(request, "jobs.html", {"views": views, "sheets": last_sheets(views)})


@router.get("/{name}", name="job")
async def job(request: Request, backend: Asks, name: str) -> HTMLResponse:
    view = await backend.job(name)
    networks = await backend.networks()
    network = find(networks, f"{view.job.engine}/{view.job.network}/{view.job.backbone}")
    lines = await backend.log(name, LINES)
    classes = await _classes(backend, view)
    context: dict[str, Any] = {
        "view": view,
        "network": network,
        "classes": classes,
        "live": {"status": view.status.model_dump(mode="json"), "classes": classes_in_colour(classes)},
        "lines": lines,
        "last_words": lines[-LAST_WORDS:],
        # A Waggle run has a learning rate for summed losses, which would teach an ordinary job nothing.
        "again": forms.draft_of(view.job, network.defaults).pairs() if network and not view.job.waggle else [],
    }
    return page(request, "job.html", context)


@router.post("/{name}/stop", name="stop_job")
async def stop(request: Request, backend: Asks, name: str) -> Response:
    form = await request.form()
    await backend.stop_job(name, keep_best=form.get("keep_best") == "true")
    return RedirectResponse(path_to(request, "job", name=name), status_code=303)


@router.post("/{name}/resume", name="resume_job")
async def resume(request: Request, backend: Asks, name: str) -> Response:
    await backend.resume_job(name)
    return RedirectResponse(path_to(request, "job", name=name), status_code=303)


@router.post("/{name}/delete", name="delete_job")
async def delete(request: Request, backend: Asks, name: str) -> Response:
    await backend.delete_job(name)
    return RedirectResponse(path_to(request, "jobs"), status_code=303)


@router.get("/{name}/events", name="job_events")
async def events(request: Request, backend: Asks, name: str) -> Response:
    return await _follow(request, backend, f"/v1/jobs/{quote(name, safe='')}/events")


@router.get("/{name}/log/stream", name="job_log_stream")
async def log_stream(request: Request, backend: Asks, name: str) -> Response:
    return await _follow(request, backend, f"/v1/jobs/{quote(name, safe='')}/log/stream")


@router.get("/{name}/log", name="job_log")
async def log(backend: Asks, name: str) -> Response:
    """The log as text, to save: its last ten thousand lines."""
    return await backend.pass_on(f"/v1/jobs/{quote(name, safe='')}/log", params={"tail": "10000"})


@router.get("/{name}/previews/{file}", name="preview")
async def preview(backend: Asks, name: str, file: str) -> Response:
    return await backend.pass_on(f"/v1/jobs/{quote(name, safe='')}/previews/{quote(file, safe='')}")


async def _follow(request: Request, backend: Backend, path: str) -> Response:
    """Live events from where the browser left off: it says so in the header, or in `after` when a page comes back to the front."""
    last = request.headers.get("last-event-id") or request.query_params.get("after")
    answer = await backend.pass_on(path, last_event_id=last)
    answer.headers["X-Accel-Buffering"] = "no"  # proxies would hold events back until a buffer is full
    return answer


async def _classes(backend: Backend, view: JobView) -> list[str]:
    """The job's classes in the order of their ids, which gives them their colours; from the scores where the dataset is gone."""
    rows = await backend.datasets()
    named = next((row.classes for row in rows if row.name == view.job.dataset), [])
    scored = next((list(epoch.iou_per_class) for epoch in view.status.history if epoch.iou_per_class), [])
    return scored or named
