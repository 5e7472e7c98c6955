"""/v1/jobs: start, follow, stop, resume, delete."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Annotated, Any, BinaryIO
from weakref import WeakValueDictionary

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel

from contracts.answers import DeletedJob, LogPart
from contracts.errors import NotFound
from contracts.job import Confusion, JobRequest, JobView
from contracts.job_folder import JobFolder
from contracts.plain import open_plain
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.logs import CHUNK, Hits, find_lines, part_after, part_before, tail, text_parts
from docker_sdk_api.machine import describe_room
from docker_sdk_api.routes import PlainFile
from docker_sdk_api.streams import FROM_NOW, Watch, follow_events, follow_log

routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
names = APIRouter(tags=["jobs"])
PICTURES = {".jpg": "image/jpeg", ".png": "image/png"}
UNSEEN_IN_LISTS = {"status": {"history": {"__all__": {"iou_per_class", "pixel_accuracy", "best"}}}}
STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
LAST = 2**62
"""No file has a byte behind it."""
Place = Annotated[int, Query(ge=0, le=LAST)]


class StopWish(BaseModel):
    """Whether the best weights so far are to be published."""

    keep_best: bool = False


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _watch(request: Request, name: str) -> Watch:
    """The one look at a job that all its followers share; it goes with the last of them."""
    jobs = _jobs(request)
    file = jobs.folder(name).events_file
    watches: WeakValueDictionary[str, Watch] = request.app.state.watches
    return watches.setdefault(name, Watch(file, lambda: jobs.status(name)))


@routes.get("", response_model=list[JobView])
def list_jobs(
    request: Request,
    search: str = "",
    running: bool | None = None,
    name: Annotated[list[str] | None, Query()] = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int | None, Query(ge=0, le=1000)] = None,
    brief: bool = False,
) -> Response:
    """Every job, newest first; of those with a word in name, dataset or network, that run or have ended, or that are named.

    The header X-Total-Count says how many there are beside the part from `offset`. `brief`: with as much as a list shows.
    """
    jobs = _jobs(request)
    wanted = set(name or ())
    hits = [found for found in jobs.find(search, running) if not wanted or found in wanted]
    part = hits[offset : None if limit is None else offset + limit]
    views = (_there(jobs.glance if brief else jobs.view, found) for found in part)
    left_out = UNSEEN_IN_LISTS if brief else None
    # As objects, a view of 30 epochs is 55 KB.
    rows = [view.model_dump_json(by_alias=True, exclude=left_out).encode() for view in views if view]
    return Response(b"[" + b",".join(rows) + b"]", media_type="application/json", headers={"X-Total-Count": str(len(hits))})


@names.get("/v1/job-names")
def list_names(request: Request) -> list[str]:
    """Of every job, newest first: what a new job cannot be called."""
    return _jobs(request).names()


def _there(view: Callable[[str], JobView], name: str) -> JobView | None:
    """A view of a job that may be deleted at this very moment."""
    try:
        return view(name)
    except (NotFound, FileNotFoundError):
        return None


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


@routes.delete("/{name}")
def delete(request: Request, name: str) -> DeletedJob:
    """Move an ended job aside, with its log and its model; /v1/deleted brings it back, until it goes for good."""
    return _jobs(request).delete(name)


@routes.get("/{name}/events", response_class=StreamingResponse)
def events(request: Request, name: str, last_event_id: Annotated[int, Header(ge=0)] = 0, from_now: bool = False) -> StreamingResponse:
    """Server-sent events: `event` (a line of events.jsonl), `status`, `news` (a status without what was sent before), `end`.

    `from_now`: no event of the past, which the first status tells of.
    """
    watch = _watch(request, name)
    frames = follow_events(watch, FROM_NOW if from_now and not last_event_id else last_event_id)
    return StreamingResponse(frames, media_type="text/event-stream", headers=STREAM)


@routes.get("/{name}/log", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def log(request: Request, name: str, lines: Annotated[int, Query(alias="tail", ge=0, le=10_000)] = 200) -> PlainTextResponse:
    """The last lines of what the training printed."""
    return PlainTextResponse(tail(_jobs(request).folder(name).log_file, lines))


@routes.get("/{name}/log/file", response_class=FileResponse)
def log_file(request: Request, name: str) -> Response:
    """All that the training printed, but for what was left out of a log that became too long."""
    nothing = NotFound(f"The job “{name}” has printed nothing yet.", "It does once its process runs.")
    folder = _jobs(request).folder(name)
    answer = _sent(folder, folder.log_file, nothing, "text/plain; charset=utf-8", filename=f"{name}.log")
    size = os.fstat(answer.file.fileno()).st_size
    parts = text_parts(answer.file.fileno(), size)
    if parts in ([], [(0, size)]):
        return answer
    headers = {"Content-Length": str(sum(end - start for start, end in parts))}
    headers["Content-Disposition"] = answer.headers["Content-Disposition"]
    return StreamingResponse(_read(answer.file, parts), media_type=answer.media_type, headers=headers)


def _read(file: BinaryIO, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    """Parts of a file, from where to where; it is closed at the end."""
    with file:
        for start, end in parts:
            file.seek(start)
            while start < end and (piece := file.read(min(CHUNK, end - start))):
                start += len(piece)
                yield piece


@routes.get("/{name}/log/part")
def log_part(
    request: Request,
    name: str,
    before: Place | None = None,
    after: Place | None = None,
    lines: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> LogPart:
    """Lines that end before a byte of the log, or start at one; the last ones where neither is given."""
    file = _jobs(request).folder(name).log_file
    return part_before(file, before, lines) if after is None else part_after(file, after, lines)


@routes.get("/{name}/log/search")
def log_search(
    request: Request,
    name: str,
    word: Annotated[str, Query(min_length=1, max_length=200)],
    before: Place | None = None,
) -> Hits:
    """The last lines that hold a word, before a byte of the log where one is given."""
    return find_lines(_jobs(request).folder(name).log_file, word, before)


@routes.get("/{name}/log/stream", response_class=StreamingResponse)
def log_stream(
    request: Request, name: str, last_event_id: Annotated[int, Header(ge=0, le=LAST)] = 0, after: Place = 0
) -> StreamingResponse:
    """Server-sent events, one a line; the id is the byte offset behind the line. `after`: the offset to begin at."""
    watch = _watch(request, name)
    frames = follow_log(watch, _jobs(request).folder(name).log_file, last_event_id or after)
    return StreamingResponse(frames, media_type="text/event-stream", headers=STREAM)


@routes.get("/{name}/usage")
def usage(request: Request, name: str) -> dict[str, Any] | None:
    """What a running job takes: processor seconds so far and bytes of memory, beside the cores and the memory that there are; and how
    busy and how full its GPUs are, whoever else uses them.

    null where it does not run. What it takes of the processors is the quotient of two looks.
    """
    jobs = _jobs(request)
    taken = jobs.usage(name)
    return None if taken is None else {**asdict(taken), "at": time.time(), **describe_room(), "gpus": jobs.gpus(name)}


@routes.get("/{name}/confusion")
def confusion(request: Request, name: str) -> Confusion:
    """Which classes the model takes for which, in pixels of the validation pictures: of the best epoch and of the latest one."""
    found = _jobs(request).folder(name).confusion()
    if found is None:
        raise NotFound(f"The job “{name}” has no confusion matrix.", "It comes with the first scoring.")
    return found


@routes.get("/{name}/log.csv", response_class=FileResponse)
def figures(request: Request, name: str) -> FileResponse:
    """The figures of every step and epoch, for a spreadsheet."""
    nothing = NotFound(f"The job “{name}” has no figures yet.", "They come with its first step.")
    folder = _jobs(request).folder(name)
    return _sent(folder, folder.figures_file, nothing, "text/csv", filename=f"{name}.csv")


@routes.get("/{name}/previews/{file}", response_class=FileResponse)
def preview(request: Request, name: str, file: str) -> FileResponse:
    """A sheet of validation pictures as the model saw them after an epoch."""
    nothing = NotFound(f"The job “{name}” has no preview {file}.", "Look at the job for the previews it has.")
    folder, kind = _jobs(request).folder(name), PICTURES.get(PurePath(file).suffix)
    if "/" in file or file.startswith(".") or kind is None:
        raise nothing
    return _sent(folder, folder.previews / file, nothing, kind, headers={"Cache-Control": "private, max-age=600"})


def _sent(folder: JobFolder, file: Path, nothing: NotFound, kind: str, **more: Any) -> PlainFile:
    """A file of a job's folder as an answer. Raises `nothing` where it is not there."""
    try:
        return PlainFile(open_plain(file, folder.path), kind, **more)
    except FileNotFoundError:
        raise nothing from None
