"""Folders and zips of pictures that are answered in the background: taken in, worked on one after another, kept for a while.

A batch is a folder: batch.json, lock, pictures/ as they came, answers/ by number while it runs, result.zip at the end. All services over
one folder tell the same of it: who holds a batch's lock works on it, and notes how far it is. The operating system frees the lock of a
service that has ended, and whoever takes it next goes on with the batch's next picture.
"""

import asyncio
import json
import re
import shutil
import threading
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, nullcontext, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Annotated, Literal

from fastapi import UploadFile
from pydantic import BaseModel, Field

from annotations.untrusted import disk_problem, shown
from contracts.errors import Broken, NotFound, Problem, Unavailable
from contracts.job_folder import folder_aside, write_aside
from inference_api.answers import DRAWN, Wish, draw, list_answer, see
from inference_api.batch_files import bytes_of, keep, lock_of, pack, pictures_of, take_in
from inference_api.pictures import is_large, name_of, opened
from inference_api.settings import Settings
from inference_api.store import Store
from inference_api.turns import Left, Turn, Turns

WRITTEN_EVERY = 0.5
"""Seconds between two notes on the disk of how far a batch is, and two looks whether it was deleted."""
LOOKED_EVERY = 2.0
"""Seconds between two looks for a batch that another service took in, or left."""
CLEARED_EVERY = 3600.0
"""Seconds between two looks for batches that are too old, while nothing is to be done."""
IDENTIFIER = re.compile(r"[0-9a-f]{32}")


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
    """The batches of a folder, which is made with the first one."""

    def __init__(self, settings: Settings, store: Store, turns: Turns, large_pictures: threading.Lock) -> None:
        self.folder = settings.batches or settings.checkpoints / ".batches"
        self.settings, self.store, self.turns, self.large_pictures = settings, store, turns, large_pictures
        self._ended: dict[str, Batch] = {}  # which change no more, and are read once
        self._turn = Turn()
        self._cleared = -CLEARED_EVERY
        self._mine: Batch | None = None
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, model: str, uploads: list[UploadFile], wish: Wish) -> Batch:
        """Take files and archives in. Raises NotFound, Invalid where one is refused, Unavailable where there is no room."""
        self.store.model(model)
        self._forget_old()
        room = self.settings.largest_batches - bytes_of(self.folder)
        identifier = uuid.uuid4().hex
        try:
            if room <= 0:
                cause = f"The batches that are kept take more than {self.settings.largest_batches / 2**30:.3g} GiB."
                raise Unavailable(cause, "Delete those that were fetched (DELETE /v1/batches/ID), or set LARGEST_BATCHES.")
            with ExitStack() as held, folder_aside(self.folder / identifier) as aside:
                held.enter_context(lock_of(aside) or nullcontext())  # so that no other service takes it for what a killed one left
                take_in(uploads, aside / "pictures", room)
                total = len(pictures_of(aside))
                batch = Batch(id=identifier, model=model, wish=wish, created=_now(), total=total)
                write_aside(aside / "batch.json", batch.model_dump_json())
        except OSError as error:
            raise disk_problem(error, "A batch") from error
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)
        return batch

    def all(self) -> list[Batch]:
        """Newest first."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        for name in list(self._ended):
            if name not in names:  # another service removed it
                self._ended.pop(name, None)
        return sorted(self._found(names), key=lambda batch: batch.created, reverse=True)

    def get(self, identifier: str) -> Batch:
        """As it is here, or as another service noted it last. Raises NotFound."""
        mine, batch = self._mine, None
        if IDENTIFIER.fullmatch(identifier) and (self.folder / identifier).is_dir():
            batch = mine if mine is not None and mine.id == identifier else self._read(identifier)
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
        """Delete a batch with its result; whoever works on it ends after its tile. Raises NotFound."""
        self.get(identifier)
        gone = self.folder / f".{identifier}.gone"
        try:
            (self.folder / identifier).rename(gone)
        except FileNotFoundError:
            return  # another caller was quicker
        except OSError as error:
            raise disk_problem(error, "The batch") from error
        shutil.rmtree(gone, ignore_errors=True)
        self._ended.pop(identifier, None)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Works on them while the block lasts."""
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        for left_over in self.folder.glob(".*"):  # an upload that the end of its service cut off
            with suppress(OSError), lock_of(left_over) or nullcontext() as lock:
                if lock is not None:
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
            found = await asyncio.to_thread(self._next)
            if found is None:
                await asyncio.to_thread(self._clear_now_and_then)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(wake.wait(), LOOKED_EVERY)
                continue
            self._mine, lock = found
            with closing(lock):
                await self._end(self._mine, await self._finish(self._mine))
                self._mine = None

    async def _finish(self, batch: Batch) -> BaseException | None:
        """Work on a batch to its end, or until somebody deletes it. What went wrong."""
        self._turn, run = Turn(), asyncio.create_task(self._run(batch))
        try:
            while not (await asyncio.wait({run}, timeout=WRITTEN_EVERY))[0]:
                if not await asyncio.to_thread((self.folder / batch.id).is_dir):
                    self._turn.left = True
        finally:
            run.cancel()
        return run.exception()

    def _next(self) -> tuple[Batch, IO[bytes]] | None:
        """The oldest batch that waits and that nobody works on, with its lock."""
        for batch in reversed(self.all()):
            with suppress(OSError):
                if batch.ended is None and (lock := lock_of(self.folder / batch.id)):
                    present = self._read(batch.id)  # once more: another service may have ended it between look and lock
                    if present is not None and present.ended is None:
                        return present, lock
                    lock.close()
        return None

    async def _run(self, batch: Batch) -> None:
        folder = self.folder / batch.id
        if (folder / "result.zip").exists():  # which its service made, and was killed before it could say so
            return
        paths = await asyncio.to_thread(pictures_of, folder)
        batch.state, batch.started, begin, noted = "running", batch.started or _now(), time.monotonic(), 0.0
        (folder / "answers").mkdir(exist_ok=True)
        await asyncio.to_thread(self._note, batch)
        before = kept = batch.done
        for number in range(before, len(paths)):
            async with self.turns.take_when_idle(self._turn):
                await asyncio.to_thread(self._answer, batch, paths[number], folder / "answers" / str(number))
            batch.done = number + 1
            batch.seconds_left = (time.monotonic() - begin) / (batch.done - before) * (batch.total - batch.done)
            if time.monotonic() - noted > WRITTEN_EVERY:
                noted = time.monotonic()
                await asyncio.to_thread(keep, folder, range(kept, batch.done))
                kept = batch.done
                await asyncio.to_thread(self._note, batch)
        await asyncio.to_thread(pack, folder, paths, batch.failures)

    async def _end(self, batch: Batch, error: BaseException | None) -> None:
        if not (self.folder / batch.id).is_dir():  # deleted
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
            await asyncio.to_thread(self._note, batch)

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

    def _clear_now_and_then(self) -> None:
        """Without anybody who asks: nothing is kept of the last batch either once it is too old."""
        if time.monotonic() - self._cleared > CLEARED_EVERY:
            self._cleared = time.monotonic()
            with suppress(OSError, Problem):  # the disk may do better the next time
                self._forget_old()

    def _forget_old(self) -> None:
        oldest = _now() - timedelta(hours=self.settings.batches_kept)
        for batch in self.all():
            if batch.ended is not None and batch.ended < oldest:
                with suppress(NotFound):  # another service did
                    self.remove(batch.id)

    def _found(self, names: set[str]) -> Iterator[Batch]:
        for name in names:
            with suppress(NotFound):
                yield self.get(name)

    def _read(self, identifier: str) -> Batch | None:
        """A batch as its folder tells of it; None where that cannot be read."""
        if identifier in self._ended:
            return self._ended[identifier]
        with suppress(OSError, ValueError):
            batch = Batch.model_validate_json((self.folder / identifier / "batch.json").read_bytes())
            if batch.ended is not None:
                self._ended[identifier] = batch
            return batch
        return None


def _now() -> datetime:
    return datetime.now(timezone.utc)
