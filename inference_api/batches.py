"""Folders and zips of pictures that are answered in the background: taken in, worked on one after another, kept for a while.

A batch is a folder: batch.json, pictures/ as they came, answers/ by number while it runs, result.zip at the end. One that was
under way when the service ended goes on with its next picture when it starts again.
"""

import asyncio
import json
import shutil
import threading
import time
import traceback
import uuid
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import BaseModel, Field

from annotations.archives import Limits, archive_kind, is_archive, unpack
from annotations.untrusted import disk_problem, inner_path, shown
from contracts.errors import Broken, NotFound, Problem, Unavailable
from contracts.job_folder import folder_aside, write_aside
from inference_api.answers import DRAWN, Wish, draw, list_answer, see
from inference_api.pictures import is_large, name_of, opened
from inference_api.settings import Settings
from inference_api.store import Store
from inference_api.turns import Left, Turn, Turns

PIECE = 2**20
WRITTEN_EVERY = 0.5
"""Seconds between two notes on the disk of how far a batch is."""


class Batch(BaseModel):
    """What is known of a batch. `cause` and `cure` are there where it failed as a whole."""

    id: str
    model: str
    wish: Wish
    state: Literal["waiting", "running", "finished", "failed"] = "waiting"
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    total: Annotated[int, Field(description="Files that came.")]
    done: Annotated[int, Field(description="Files that were looked at, with those that could not be read.")] = 0
    seconds_left: Annotated[float | None, Field(description="As far as can be told from those that are done.")] = None
    failures: Annotated[dict[str, dict[str, str]], Field(description="File → why it has no answer, and what to do about it.")] = {}
    cause: str = ""
    cure: str = ""


class Batches:
    """The batches of a service. `folder` is made with the first one."""

    def __init__(self, settings: Settings, store: Store, turns: Turns, large_pictures: threading.Lock) -> None:
        self.folder = settings.batches or settings.checkpoints / ".batches"
        self.settings, self.store, self.turns, self.large_pictures = settings, store, turns, large_pictures
        self._batches = dict(self._found())
        self._turn = Turn()
        self._current = ""
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, model: str, uploads: list[UploadFile], wish: Wish) -> Batch:
        """Take files and archives in. Raises NotFound, Invalid where one is refused, Unavailable where there is no room."""
        self.store.model(model)
        self._forget_old()
        room = self.settings.largest_batches - sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        identifier = uuid.uuid4().hex
        try:
            if room <= 0:
                cause = f"The batches that are kept take more than {self.settings.largest_batches / 2**30:.3g} GiB."
                raise Unavailable(cause, "Delete those that were fetched (DELETE /v1/batches/ID), or set LARGEST_BATCHES.")
            with folder_aside(self.folder / identifier) as aside:
                _take_in(uploads, aside / "pictures", room)
                total = len(_pictures(aside))
                batch = Batch(id=identifier, model=model, wish=wish, created=_now(), total=total)
                write_aside(aside / "batch.json", batch.model_dump_json())
        except OSError as error:
            raise disk_problem(error, "A batch") from error
        self._batches[identifier] = batch
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)
        return batch

    def all(self) -> list[Batch]:
        """Newest first."""
        return sorted(self._batches.values(), key=lambda batch: batch.created, reverse=True)

    def get(self, identifier: str) -> Batch:
        """Raises NotFound."""
        batch = self._batches.get(identifier)
        if batch is None:
            cause = f"There is no batch “{shown(identifier)}”."
            raise NotFound(cause, "It was deleted, or is too old; GET /v1/batches lists what there is.")
        return batch

    def result(self, identifier: str) -> Path:
        """The zip of a batch that is done. Raises NotFound, or Unavailable while there is none."""
        batch = self.get(identifier)
        if batch.state == "failed":
            raise Unavailable(f"This batch has no result: {batch.cause}", batch.cure)
        if batch.state != "finished":
            raise Unavailable(f"This batch is not done: {batch.done} of {batch.total} pictures are.", "Ask again once it is finished.")
        return self.folder / identifier / "result.zip"

    def remove(self, identifier: str) -> None:
        """Delete a batch with its result; one that is under way ends after its tile. Raises NotFound."""
        self.get(identifier)
        del self._batches[identifier]
        if identifier == self._current:
            self._turn.left = True  # whoever works on it deletes its folder
        else:
            shutil.rmtree(self.folder / identifier, ignore_errors=True)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Works on them while the block lasts."""
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        for left_over in self.folder.glob(".*"):  # an upload that the last end of the service cut off
            shutil.rmtree(left_over, ignore_errors=True)
        worker = asyncio.create_task(self._work(self._wake))
        try:
            yield
        finally:
            self._turn.left = True
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker

    async def _work(self, wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            batch = min((row for row in list(self._batches.values()) if row.ended is None), key=lambda row: row.created, default=None)
            if batch is None:
                await wake.wait()
                continue
            self._turn, self._current = Turn(), batch.id
            run = asyncio.create_task(self._run(batch))
            try:
                await asyncio.wait({run})
            finally:
                run.cancel()
            self._current = ""
            self._end(batch, run.exception())

    async def _run(self, batch: Batch) -> None:
        folder = self.folder / batch.id
        paths = await asyncio.to_thread(_pictures, folder)
        batch.state, batch.started, begin, noted = "running", batch.started or _now(), time.monotonic(), 0.0
        (folder / "answers").mkdir(exist_ok=True)
        before = batch.done
        for number in range(before, len(paths)):
            async with self.turns.take_when_idle(self._turn):
                await asyncio.to_thread(self._answer, batch, paths[number], folder / "answers" / str(number))
            batch.done = number + 1
            batch.seconds_left = (time.monotonic() - begin) / (batch.done - before) * (batch.total - batch.done)
            if time.monotonic() - noted > WRITTEN_EVERY:
                noted = time.monotonic()
                await asyncio.to_thread(self._note, batch)
        await asyncio.to_thread(_pack, folder, batch, paths)

    def _end(self, batch: Batch, error: BaseException | None) -> None:
        if batch.id not in self._batches:
            shutil.rmtree(self.folder / batch.id, ignore_errors=True)
            return
        batch.state, batch.ended, batch.seconds_left = "failed" if error else "finished", _now(), None
        if isinstance(error, OSError):
            error = disk_problem(error, "The batch")
        if error is not None and not isinstance(error, Problem):
            traceback.print_exception(error)
            error = Broken(f"The batch ended with an error that nobody foresaw ({type(error).__name__}).", "See the log of inference_api.")
        if isinstance(error, Problem):
            batch.cause, batch.cure = error.cause, error.cure
        with suppress(OSError):  # a full disk does not keep the others from their turn
            self._note(batch)

    def _note(self, batch: Batch) -> None:
        write_aside(self.folder / batch.id / "batch.json", batch.model_dump_json())

    def _answer(self, batch: Batch, path: Path, place: Path) -> None:
        """Write an answer: a PNG, and its segments as JSON. A picture that cannot be read keeps back none of the others."""
        loaded, name = self.store.load(batch.model), str(path.relative_to(self.folder / batch.id / "pictures"))
        answer = batch.wish.answer if batch.wish.answer in DRAWN else "mask"
        try:
            with open(path, "rb") as content:
                upload = UploadFile(content, filename=name)
                with opened(upload, self.settings) as picture, self.large_pictures if is_large(picture) else nullcontext():
                    reading, pixels = see(loaded, picture, name_of(upload), batch.wish, whole=answer == "overlay")
                    with open(place.with_suffix(".png"), "wb") as file:
                        draw(file, answer, reading, pixels, loaded.model)
            place.with_suffix(".json").write_text(json.dumps(list_answer("segments", reading, loaded.model, batch.wish)))
        except Left:
            raise
        except Problem as problem:
            batch.failures[name] = problem.as_dict()

    def _forget_old(self) -> None:
        oldest = _now() - timedelta(hours=self.settings.batches_kept)
        for batch in self.all():
            if batch.ended is not None and batch.ended < oldest:
                self.remove(batch.id)

    def _found(self) -> Iterator[tuple[str, Batch]]:
        """What an earlier run of the service left."""
        for file in self.folder.glob("[!.]*/batch.json"):
            with suppress(ValueError):
                yield file.parent.name, Batch.model_validate_json(file.read_bytes())


def _take_in(uploads: list[UploadFile], into: Path, room: int) -> None:
    for number, upload in enumerate(uploads):
        name = inner_path(upload.filename or f"{number}")
        place = into / name
        if place.exists():
            place = place.with_name(f"{place.stem}-{number + 1}{place.suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "wb") as file:
            shutil.copyfileobj(upload.file, file, PIECE)
        if is_archive(place) or archive_kind(place) == "zip":
            packed = place.rename(into.parent / f"upload{place.suffix}")
            unpack(packed, into if len(uploads) == 1 else place.with_suffix(""), Limits(total=room), lambda *_: None)
            packed.unlink()


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "pictures").rglob("*") if path.is_file())


def _pack(folder: Path, batch: Batch, paths: list[Path]) -> None:
    """The answers under the names of their pictures, numbered where two have the same; segments.json; problems.json if there are."""
    taken: set[Path] = set()
    with zipfile.ZipFile(folder / ".result.zip", "w") as archive, open(folder / ".segments.json", "w") as segments:
        for number, path in enumerate(paths):
            name, answer = path.relative_to(folder / "pictures"), folder / "answers" / f"{number}.png"
            if not answer.with_suffix(".json").is_file():
                continue
            free = name.with_suffix(".png")
            free = free if free not in taken else free.with_stem(f"{free.stem}-{number + 1}")
            segments.write(f"{',' if taken else '{'}\n{json.dumps(str(name))}: {answer.with_suffix('.json').read_text()}")
            taken.add(free)
            archive.write(answer, str(free))  # PNGs are packed already
        segments.write("\n}\n" if taken else "{}\n")
        segments.close()
        archive.write(folder / ".segments.json", "segments.json", zipfile.ZIP_DEFLATED)
        if batch.failures:
            archive.writestr("problems.json", json.dumps(batch.failures, indent=2), zipfile.ZIP_DEFLATED)
    (folder / ".result.zip").rename(folder / "result.zip")
    (folder / ".segments.json").unlink()
    shutil.rmtree(folder / "pictures")
    shutil.rmtree(folder / "answers")


def _now() -> datetime:
    return datetime.now(timezone.utc)
