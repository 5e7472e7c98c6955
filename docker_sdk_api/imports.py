"""Imports: from an upload, or from a folder or archive on the machine, to a dataset; in the background, all or nothing.

An import works in <datasets>/.imports/<id>/ and moves the finished dataset into place at its end. What a service that died
left there is deleted at the next start.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from annotations.archives import Limits, is_archive, unpack
from annotations.formats import FORMATS, Choices, Source
from annotations.importing import import_dataset
from annotations.untrusted import disk_problem, shown
from contracts.answers import ImportView
from contracts.durable import force
from contracts.errors import Broken, Invalid, NotFound, Problem, Taken
from contracts.job import NAME_PATTERN, NAME_RULE
from docker_sdk_api.uploads import Uploads, held

SYSTEM_FOLDERS = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr", "/run")
"""Nothing in them is anybody's dataset; but below /run/media desktops mount what is plugged in."""
NO_DATASETS = ("/", "/home", "/media", "/mnt", "/opt", "/root", "/run/media", "/srv", "/tmp", "/var", "/var/lib", "/var/log")
"""Folders that may hold a dataset and never are one."""


class ImportRequest(BaseModel):
    """Where the files are (`upload`: an id; `folder`: an absolute path on the machine), and what the dataset is to be called."""

    model_config = ConfigDict(extra="forbid")

    upload: str | None = None
    folder: str | None = None
    name: str = Field(pattern=NAME_PATTERN, description=f"The dataset's name. {NAME_RULE}")
    format: str | None = Field(None, description="One of /v1/formats; by itself where it is not given.")
    choices: Choices = Field(default_factory=Choices)

    @field_validator("choices", mode="before")
    @classmethod
    def _know_all(cls, value: Any) -> Any:
        known = [field.name for field in fields(Choices)]
        unknown = [key for key in value if key not in known] if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"there is no choice {shown(unknown[0])}; the choices are: {', '.join(known)}")
        return Choices() if value is None else value


class Imports:
    """The imports of this run of the service; one works at a time, the others wait."""

    def __init__(self, datasets: Path, uploads: Uploads, limits: Limits) -> None:
        self.datasets, self.uploads, self.limits = datasets, uploads, limits
        self.folder = datasets / ".imports"
        self._views: dict[str, ImportView] = {}
        self._starting, self._working = threading.Lock(), threading.Lock()
        self._forget_dead()

    def start(self, request: ImportRequest) -> ImportView:
        """Check what can be known beforehand, then import in the background. Raises Invalid, NotFound or Taken."""
        if request.format is not None and request.format not in FORMATS:
            raise Invalid(f"There is no format {shown(request.format)}.", f"The formats are: {', '.join(FORMATS)}.")
        with self._starting:
            self._refuse_taken(request.name)
            with ExitStack() as entered:
                source = entered.enter_context(self._source(request))
                view = ImportView(id=secrets.token_hex(8), name=request.name)
                self._views[view.id] = view
                # The thread leaves what is entered here: nobody can delete the upload in between.
                threading.Thread(target=self._run, args=(view, request, source, entered.pop_all()), daemon=True).start()
        return view.model_copy()

    def view(self, id: str) -> ImportView:
        if id not in self._views:
            cure = "The service was started again since then: look whether the dataset is there, or import once more."
            raise NotFound(f"There is no import {shown(id)}.", cure)
        return self._views[id].model_copy()

    def views(self) -> list[ImportView]:
        """Newest first."""
        return [view.model_copy() for view in reversed(list(self._views.values()))]

    def _refuse_taken(self, name: str) -> None:
        running = any(view.name == name and view.state == "running" for view in self._views.values())
        if running or (self.datasets / name).exists():
            raise Taken(f"There is already a dataset “{name}”.", "Choose another name, or remove that one from the datasets folder first.")

    @contextmanager
    def _source(self, request: ImportRequest) -> Iterator[Path]:
        if (request.upload is None) == (request.folder is None):
            raise Invalid("An import is of an upload or of a folder.", "Give one of `upload` and `folder`.")
        if request.upload is None:
            yield self._given(request.folder or "")
            return
        with self.uploads.complete(request.upload) as files:
            yield files

    def _given(self, text: str) -> Path:
        """A folder or an archive on the machine, as somebody typed it."""
        if not text.startswith("/") or "\0" in text:
            raise Invalid(f"“{shown(text)}” is no absolute path.", "Give the folder's whole path on the machine, from / on.")
        try:
            path = Path(text).resolve(strict=True)
            readable = os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
        except (OSError, RuntimeError):
            cure = "Look for a typing error. In a container, only the folders that are mounted into it are there."
            raise Invalid(f"There is no folder {shown(text)} on the machine.", cure) from None
        if not path.is_dir() and not (path.is_file() and is_archive(path)):
            raise Invalid(f"{shown(text)} is neither a folder nor an archive.", "Give the folder that holds the pictures and masks.")
        if not readable:
            raise Invalid(f"Maskwright may not read {shown(text)}.", "Allow its user to read the folder, or copy it elsewhere.")
        _refuse_system(path)
        home = self.datasets.resolve()
        if path.is_relative_to(home) or home.is_relative_to(path):
            where = "lies in the datasets folder already" if path.is_relative_to(home) else "holds the datasets folder itself"
            raise Invalid(f"{shown(text)} {where}.", "Give a folder elsewhere; what lies in the datasets folder need not be imported.")
        return path

    def _run(self, view: ImportView, request: ImportRequest, source: Path, entered: ExitStack) -> None:
        try:
            with entered, self._working, self._work_folder(view.id) as work:
                result = self._import(view, request, source, work)
            if request.upload is not None:
                with suppress(NotFound):
                    self.uploads.delete(request.upload)
            view.format, view.notes, view.stage, view.state = result.format, result.notes, "finished", "finished"
        except Problem as problem:
            _fail(view, problem)
        except OSError as error:
            _fail(view, disk_problem(error, f"The dataset {view.name}"))
        finally:
            if view.state == "running":
                _fail(view, Broken("The import ended in a way that nobody foresaw.", "The log of docker_sdk_api shows where."))

    @contextmanager
    def _work_folder(self, id: str) -> Iterator[Path]:
        work = self.folder / id
        work.mkdir(parents=True)
        try:
            with held(work):
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _import(self, view: ImportView, request: ImportRequest, source: Path, work: Path) -> Source:
        def show(done: int, total: int) -> None:
            view.done, view.total = done, total

        folder = self._gathered(view, source, work, request.upload is not None)
        view.stage, view.done, view.total = "reading", 0, 0
        result = import_dataset(folder, work / view.name, request.format, request.choices, show)
        try:
            (work / view.name).rename(self.datasets / view.name)
        except OSError:
            self._refuse_taken_meanwhile(view.name)
            raise
        force(self.datasets)  # before the upload that it came from goes
        return result

    def _refuse_taken_meanwhile(self, name: str) -> None:
        if (self.datasets / name).exists():
            raise Taken(f"A dataset “{name}” has come meanwhile.", "Choose another name.")

    def _gathered(self, view: ImportView, source: Path, work: Path, uploaded: bool) -> Path:
        """The folder to read. Archives are unpacked, each to a folder of its name; what lies beside them is put there too."""
        files = sorted(path for path in source.rglob("*") if path.is_file()) if uploaded else [source] if source.is_file() else []
        archives = {path for path in files if is_archive(path)}
        if not archives:
            return source

        def show(done: int, total: int) -> None:
            view.done, view.total = done, total

        view.stage, gathered = "unpacking", work / "gathered"
        for path in files:
            place = gathered / (path.relative_to(source) if uploaded else path.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path not in archives:
                _link(path, place)
                continue
            into = place.with_name(path.name.split(".")[0] or "archive")
            if into.exists():
                raise Invalid(f"Besides {shown(path.name)} there is another {shown(into.name)}.", "Give each a name of its own.")
            unpack(path, into, self.limits, show)
        return into if len(files) == 1 else gathered

    def _forget_dead(self) -> None:
        """What imports left that died with their service; one that another service runs holds its folder."""
        for work in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(NotFound, Taken), held(work):
                shutil.rmtree(work, ignore_errors=True)


def _fail(view: ImportView, problem: Problem) -> None:
    view.cause, view.cure, view.stage, view.state = problem.cause, problem.cure, "failed", "failed"


def _refuse_system(path: Path) -> None:
    inside = any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS) and not path.is_relative_to("/run/media")
    if inside or str(path) in NO_DATASETS:
        raise Invalid(f"{shown(str(path))} is a folder of the system, not a dataset.", "Give the dataset's own folder.")


def _link(path: Path, place: Path) -> None:
    """The same file at another place; a copy where the disk knows no links."""
    try:
        place.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, place)
