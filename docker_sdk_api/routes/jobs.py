"""/v1/jobs: start, follow, stop, resume, delete."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel

from contracts.errors import NotFound
from contracts.job import JobRequest, JobView
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.streams import follow_events, follow_log, tail

routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class StopWish(BaseModel):
    """Whether the best weights so far are to be published."""

    keep_best: bool = False


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


@routes.get("")
def list_jobs(request: Request) -> list[JobView]:
    """Every job, newest first."""
    jobs = _jobs(request)
    return [jobs.view(name) for name in jobs.names()]


@routes.post("", status_code=201)
def start(request: Request, wish: JobRequest) -> JobView:
    """Check everything that can be checked, then start a training."""
    return _jobs(request).start(wish, request.app.state.datasets.path(wish.dataset))


@routes.get("/{name}")
def show(request: Request, name: str) -> JobView:
    return _jobs(request).view(name)


@routes.post("/{name}/stop")
def stop(request: Request, name: str, wish: StopWish) -> JobView:
    """Ask a job to stop after the step it is at, with the best model so far or without."""
    return _jobs(request).stop(name, wish.keep_best)


@routes.post("/{name}/resume")
def resume(request: Request, name: str) -> JobView:
    """Let a failed or stopped job go on after its last whole epoch."""
    return _jobs(request).resume(name)


@routes.delete("/{name}", status_code=204)
def delete(request: Request, name: str) -> Response:
    """Remove an ended job, its log and its model."""
    _jobs(request).delete(name)
    return Response(status_code=204)


@routes.get("/{name}/events", response_class=StreamingResponse)
def events(request: Request, name: str, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
    """Server-sent events: `event` (a line of events.jsonl), `status`, `end`."""
    jobs = _jobs(request)
    folder = jobs.folder(name)
    frames = follow_events(folder.events_file, lambda: jobs.status(name), last_event_id)
    return StreamingResponse(frames, media_type="text/event-stream", headers=STREAM)


@routes.get("/{name}/log", response_class=PlainTextResponse)
def log(request: Request, name: str, lines: Annotated[int, Query(alias="tail", ge=0, le=10_000)] = 200) -> str:
    """The last lines of what the training printed."""
    return tail(_jobs(request).folder(name).log_file, lines)


@routes.get("/{name}/log/stream", response_class=StreamingResponse)
def log_stream(request: Request, name: str, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
    """Server-sent events, one a line; the id is the byte offset behind the line."""
    jobs = _jobs(request)
    frames = follow_log(jobs.folder(name).log_file, lambda: jobs.status(name), last_event_id)
    return StreamingResponse(frames, media_type="text/event-stream", headers=STREAM)


@routes.get("/{name}/log.csv", response_class=FileResponse)
def figures(request: Request, name: str) -> FileResponse:
    """The figures of every step and epoch, for a spreadsheet."""
    file = _jobs(request).folder(name).figures_file
    if not file.exists():
        raise NotFound(f"The job “{name}” has no figures yet.", "They come with its first step.")
    return FileResponse(file, media_type="text/csv", filename=f"{name}.csv")


@routes.get("/{name}/previews/{file}", response_class=FileResponse)
def preview(request: Request, name: str, file: str) -> FileResponse:
    """A sheet of validation pictures as the model saw them after an epoch."""
    path = _jobs(request).folder(name).previews / file
    if "/" in file or file.startswith(".") or not path.is_file():
        raise NotFound(f"The job “{name}” has no preview {file}.", "Look at the job for the previews it has.")
    return FileResponse(path, headers={"Cache-Control": "private, max-age=31536000, immutable"})
