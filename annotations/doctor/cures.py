"""Cures that one click does: what each would change, the change itself, and the way back.

A cure writes new masks beside the old ones and puts them in their place by rename. What was there before is kept in
<folder>/.maskwright/undo/<id>/, with a journal that is written first, so that a cure that broke off can be undone too.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from annotations.doctor.checking import OWN
from annotations.doctor.cure_plans import Step, plan
from annotations.doctor.cure_table import TITLES
from annotations.doctor.fingerprint import file_digest
from contracts.errors import Invalid, NotFound, Unavailable
from contracts.job_folder import write_aside

JOURNAL = "journal.json"


class Change(BaseModel):
    """What a cure does to one file, its name being relative to the dataset's folder."""

    file: str
    what: str


def preview(folder: Path, code: str) -> list[Change]:
    """What a cure would change. Raises NotFound for an unknown code, Invalid where the dataset cannot be opened."""
    return [Change(file=step.file, what=step.what) for step in plan(folder, code)]


def apply(folder: Path, code: str) -> str:
    """Cure, wholly or not at all; the id under which it can be undone.

    Raises NotFound, Invalid where there is nothing to cure, and Unavailable where the folder cannot be written.
    """
    steps = plan(folder, code)
    if not steps:
        raise Invalid(f"There is nothing to do for “{TITLES[code]}” in {folder.name}.", "Check the dataset again: it may have changed.")
    try:
        journal = _Journal.begin(folder, code, steps)
        try:
            for step, row in zip(steps, journal.steps, strict=True):
                journal.do(step, row)
            journal.finish()
        except BaseException:
            journal.undo()
            raise
    except OSError as error:
        raise Unavailable(f"{folder.name} cannot be changed ({error}).", "Make its folder writable and look for free space.") from error
    return journal.name


def undo(folder: Path, name: str) -> list[Change]:
    """Take a cure back. Raises NotFound, or Invalid where files have changed since or another cure came after it."""
    undos = _undos(folder)
    if name not in undos:
        raise NotFound(f"There is nothing to undo under “{name}”.", f"What can be undone: {', '.join(undos) or 'nothing'}.")
    if name != undos[-1]:
        raise Invalid(f"Another cure came after {name}.", f"Undo {undos[-1]} first.")
    journal = _Journal(folder, name)
    journal.refuse_changed()
    try:
        return journal.undo()
    except OSError as error:
        raise Unavailable(f"{folder.name} cannot be changed ({error}).", "Make its folder writable, then undo again.") from error


def list_undos(folder: Path) -> list[dict[str, Any]]:
    """Cures that can be undone, newest first: id, code, title, files."""
    rows = []
    for name in reversed(_undos(folder)):
        journal = _Journal(folder, name)
        rows.append({"id": name, "code": journal.code, "title": TITLES.get(journal.code, journal.code), "files": len(journal.steps)})
    return rows


def _undos(folder: Path) -> list[str]:
    place = folder / OWN / "undo"
    return (
        sorted((path.name for path in place.iterdir() if path.name.isdecimal() and (path / JOURNAL).exists()), key=int)
        if place.is_dir()
        else []
    )


class _Journal:
    """What a cure does and did, and the files that it replaced."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.place = folder / OWN / "undo" / name
        content = json.loads((self.place / JOURNAL).read_bytes())
        self.code: str = content["code"]
        self.steps: list[dict[str, str]] = content["steps"]

    @classmethod
    def begin(cls, folder: Path, code: str, steps: list[Step]) -> "_Journal":
        name = str(int((_undos(folder) or ["0"])[-1]) + 1)
        place = folder / OWN / "undo" / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        rows = [{"file": step.file, "to": step.to, "digest": ""} for step in steps]
        write_aside(place / JOURNAL, json.dumps({"code": code, "steps": rows}))
        return cls(folder, name)

    def do(self, step: Step, row: dict[str, str]) -> None:
        path = self.folder / step.file
        if step.to:
            target = self.folder / step.to
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise Invalid(f"{step.to} is there already.", f"Move it out of {Path(step.to).parent} first.")
            path.rename(target)
            return
        assert step.content is not None
        content = step.content()
        if path.exists():
            kept = self.place / step.file
            kept.parent.mkdir(parents=True, exist_ok=True)
            _keep(path, kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, content)
        row["digest"] = file_digest(path)

    def finish(self) -> None:
        """Write down what every file became, so that a later change is noticed before it is undone."""
        write_aside(self.place / JOURNAL, json.dumps({"code": self.code, "steps": self.steps}))

    def refuse_changed(self) -> None:
        for row in self.steps:
            if row["digest"] and file_digest(self.folder / row["file"]) != row["digest"]:
                raise Invalid(f"{row['file']} has changed since.", "Undoing would lose that change: put the file as it was, or leave it.")
            if row["to"] and (self.folder / row["file"]).exists():
                raise Invalid(f"There is a new {row['file']} since.", f"Move it away, so that {row['to']} can come back.")

    def undo(self) -> list[Change]:
        done = []
        for row in reversed(self.steps):
            path, kept = self.folder / row["file"], self.place / row["file"]
            if row["to"]:
                if (self.folder / row["to"]).exists() and not path.exists():  # both: it was never moved
                    (self.folder / row["to"]).rename(path)
                    done.append(Change(file=row["file"], what=f"Is back from {row['to']}."))
            elif kept.exists():
                kept.replace(path)
                done.append(Change(file=row["file"], what="Is as it was."))
            elif row["digest"]:
                path.unlink(missing_ok=True)
                done.append(Change(file=row["file"], what="Is gone again."))
        shutil.rmtree(self.place)
        return done


def _keep(path: Path, kept: Path) -> None:
    """A second name for a file that is about to be replaced by rename; a copy where the disk knows no second names."""
    try:
        os.link(path, kept)
    except OSError:
        shutil.copy2(path, kept)
