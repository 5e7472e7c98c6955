"""Jobs: the list, and one job as it learns, live; stopping, resuming, deleting and bringing back; what the browser follows."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.job import Confusion, JobView
from gui.answers import NetworkChoice
from gui.backend import Asks, Backend, job_path
from gui.figures import setting
from gui.pages import classes_in_colour, page, path_to
from gui.start import last_sheets
from gui.verdict import matrix_of, one_class_only
from gui.wizard import find, sheet_settings

router = APIRouter(prefix="/jobs", include_in_schema=False)
LINES = 400
"""Lines of the log that come with the page."""
LAST_WORDS = 20
A_PAGE = 50
SHOWS = {"all": None, "running": True, "ended": False}


@router.get("", name="jobs")
async def jobs(request: Request, backend: Asks, search: str = "", show: str = "all", place: int = 1) -> Response:
    """A page of the jobs, newest first; `show` and `search` choose among them."""
    first = (max(place, 1) - 1) * A_PAGE
    deleted = await backend.deleted_jobs()  # before the views: of all who look at once nobody waits with a megabyte of them
    views, total = await backend.find_jobs(search, SHOWS.get(show), offset=first, limit=A_PAGE)
    words = [(name, value) for name, value in (("search", search), ("show", show)) if value not in ("", "all")]
    if total and first >= total:
        return RedirectResponse(path_to(request, "jobs", [*words, ("place", str(-(-total // A_PAGE)))]), status_code=303)
    context = {
        "views": views,
        "sheets": last_sheets(views),
        "deleted": deleted,
        "search": search,
        "show": show if show in SHOWS else "all",
        "total": total,
        "first": first,
        "before": [*words, ("place", str(place - 1))] if first else None,
        "after": [*words, ("place", str(max(place, 1) + 1))] if first + A_PAGE < total else None,
    }
    return page(request, "jobs.html", context)


@router.get("/{name}", name="job")
async def job(request: Request, backend: Asks, name: str) -> HTMLResponse:
    view = await backend.job(name)
    network = find(await backend.networks(), f"{view.job.engine}/{view.job.network}/{view.job.backbone}")
    confusion = await backend.confusion(name)
    log = await backend.log_part(name, LINES)
    classes = await classes_of(backend, view, confusion)
    # A Waggle run has a learning rate for summed losses, which would teach an ordinary job nothing.
    again = network is not None and not (view.job.waggle or view.job.imported)
    context: dict[str, Any] = {
        "view": view,
        "network": network,
        "classes": classes,
        "live": {"status": view.status.model_dump(mode="json"), "classes": classes_in_colour(classes)},
        "matrix": matrix_of(confusion),
        "verdict": one_class_only(confusion, view.job, view.status.ended_already),
        "log": log,
        "printed": last_words(view, log.lines),
        "settings": setting_rows(view, network),
        "shown_by": sheet_settings(view.job.hyperparameters) if again else [],
        "again": again,
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
    """To the list, which says until when it can be brought back."""
    await backend.delete_job(name)
    return RedirectResponse(path_to(request, "jobs"), status_code=303)


@router.post("/deleted/{id}/undo", name="undo_delete")
async def undo_delete(request: Request, backend: Asks, id: str) -> Response:
    view = await backend.undo_delete(id)
    return RedirectResponse(path_to(request, "job", name=view.job.name), status_code=303)


@router.post("/deleted/{id}/remove", name="delete_for_good")
async def delete_for_good(request: Request, backend: Asks, id: str) -> Response:
    await backend.delete_for_good(id)
    return RedirectResponse(path_to(request, "jobs"), status_code=303)


@router.get("/{name}/events", name="job_events")
async def events(request: Request, backend: Asks, name: str) -> Response:
    """What happens from now on; from where it left off for a browser whose connection broke."""
    last = request.headers.get("last-event-id")
    return await _follow(backend, job_path(name, "events"), last, {} if last else {"from_now": "true"})


@router.get("/{name}/log/stream", name="job_log_stream")
async def log_stream(request: Request, backend: Asks, name: str, after: str = "0") -> Response:
    return await _follow(backend, job_path(name, "log", "stream"), request.headers.get("last-event-id"), {"after": after})


@router.get("/{name}/log", name="job_log")
async def log(backend: Asks, name: str) -> Response:
    """The whole log as a file, to save."""
    return await backend.pass_on(job_path(name, "log", "file"))


@router.get("/{name}/log/{part}", name="job_log_part")
async def log_part(request: Request, backend: Asks, name: str, part: str) -> Response:
    """A part of the log, or the lines that hold a word, for the script of the page."""
    return await backend.relay(job_path(name, "log", part), request)


@router.get("/{name}/usage", name="job_usage")
async def usage(backend: Asks, name: str) -> Response:
    return await backend.pass_on(job_path(name, "usage"))


@router.get("/{name}/previews/{file}", name="preview")
async def preview(backend: Asks, name: str, file: str) -> Response:
    return await backend.pass_on(job_path(name, "previews", file))


async def _follow(backend: Backend, path: str, last: str | None, params: dict[str, str]) -> Response:
    answer = await backend.pass_on(path, params=params, last_event_id=last)
    answer.headers["X-Accel-Buffering"] = "no"  # proxies would hold events back until a buffer is full
    return answer


async def classes_of(backend: Backend, view: JobView, confusion: Confusion | None) -> list[str]:
    """The job's classes in the order of their ids, which gives them their colours; before it has scored, the dataset's."""
    scored = next((list(epoch.iou_per_class) for epoch in view.status.history if epoch.iou_per_class), [])
    if confusion or scored:
        return confusion.classes if confusion else scored
    return next((row.classes for row in await backend.datasets() if row.name == view.job.dataset), [])


def last_words(view: JobView, lines: list[str]) -> list[str]:
    """The last lines that a job printed; none where they say no more than its cause and its cure."""
    told = f"failed: {view.status.cause} {view.status.cure}"
    last = lines[-LAST_WORDS:] or ["It printed nothing."]
    return [] if last == [told] else last


def setting_rows(view: JobView, network: NetworkChoice | None) -> list[dict[str, Any]]:
    """Every hyper-parameter with what is usual for the network, those that differ from it first."""
    rows = []
    for name, value in view.job.hyperparameters.model_dump().items():
        usual = setting(network.defaults[name]) if network else None
        rows.append({"name": name, "value": setting(value), "usual": usual, "changed": usual is not None and usual != setting(value)})
    return sorted(rows, key=lambda row: not row["changed"])
