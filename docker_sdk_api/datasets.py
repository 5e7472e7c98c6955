"""The datasets folder: what lies in it, what is wrong with it, how it is split, and pictures of it."""

import contextlib
import hashlib
import io
import os
import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotations.colours import class_colours, overlay
from annotations.dataset import Dataset, Pair, open_dataset, read_mask, read_picture
from annotations.doctor.check import PairView, Report, check_dataset
from annotations.doctor.checking import OWN
from annotations.doctor.cures import Change, apply, list_undos, preview, undo
from annotations.split import SPLIT_FILE, Split, store_split
from annotations.whole_picture import resize_mask, resize_picture
from contracts.errors import Broken, Invalid, NotFound, Problem, Unavailable
from contracts.job_folder import write_aside

WIDEST_KEPT = 480
"""Overlays up to so many pixels wide are kept as thumbnails."""
PATIENCE = 2.0
"""Seconds that a request waits for a check before it is told how far the check is."""


@dataclass
class _Check:
    """A check that runs or has run: how many pairs are done, of how many, and its report in the end."""

    present: int
    report: Future[Report] = field(default_factory=Future)
    done: int = 0
    total: int = 0

    def run(self, folder: Path) -> None:
        def tell(done: int, total: int) -> None:
            self.done, self.total = done, total

        try:
            self.report.set_result(check_dataset(folder, tell))
        except Problem as problem:
            self.report.set_exception(problem)
        except OSError as error:
            self.report.set_exception(Unavailable(f"{folder.name} changed while it was checked ({error}).", "Check it again."))
        finally:
            if not self.report.done():  # whoever waits is told, and the traceback is in the service's log
                self.report.set_exception(Broken(f"The check of {folder.name} broke off.", "The service's log shows where."))


class Datasets:
    """Every folder in the datasets folder is a dataset, sound or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checks: dict[Path, _Check] = {}
        self._lock, self._curing = threading.Lock(), threading.Lock()

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and path.name[0] not in "._")

    def path(self, name: str) -> Path:
        """The folder of a dataset. Raises NotFound; a name can never lead out of the datasets folder."""
        if name not in self.names():
            known = ", ".join(self.names()) or "none yet"
            raise NotFound(f"There is no dataset “{name}”.", f"Put its folder into {self.folder.name}/, or choose one of: {known}.")
        return self.folder / name

    def summaries(self) -> list[dict[str, Any]]:
        """Every dataset at a glance."""
        return [self._summary(name) for name in self.names()]

    def _summary(self, name: str) -> dict[str, Any]:
        """Without reading its pictures."""
        try:
            dataset = open_dataset(self.folder / name)
        except Invalid as problem:
            return {"name": name, "pictures": 0, "classes": [], "error": str(problem), "sample": None}
        sample = dataset.pairs[0].stem if dataset.pairs else None
        return {"name": name, "pictures": len(dataset.pairs), "classes": dataset.classes, "error": None, "sample": sample}

    def report(self, name: str) -> dict[str, Any] | None:
        """The full check with the stems of all pairs; None where it takes longer than PATIENCE: see `progress`."""
        check = self._check(self.path(name))
        wait([check.report], PATIENCE)
        if not check.report.done():
            return None
        report = check.report.result()
        return {**report.model_dump(), "stems": [pair.stem for pair in report.pairs], "undos": list_undos(self.path(name))}

    def progress(self, name: str) -> dict[str, int]:
        """How many pairs the check of a dataset has read, and of how many."""
        check = self._checks.get(self.path(name))
        return {"done": check.done, "total": check.total} if check else {"done": 0, "total": 0}

    def pictures(self, name: str) -> list[PairView]:
        return self.check(self.path(name)).pairs

    def check(self, folder: Path) -> Report:
        """The full check; again only when a file of the dataset has changed since, by name, size and time."""
        return self._check(folder).report.result()

    def known(self, folder: Path) -> Report | None:
        """What the latest check found, perhaps of the folder as it was before; None where none has ended well. Nobody waits for it."""
        check = self._checks.get(folder) or self._check(folder)
        return None if not check.report.done() or check.report.exception() else check.report.result()

    def _check(self, folder: Path) -> _Check:
        """The check of the folder as it is now, started if there is none yet."""
        present = _state(folder)
        with self._lock:
            known = self._checks.get(folder)
            if known is None or known.present != present or (known.report.done() and known.report.exception()):
                known = self._checks[folder] = _Check(present)
                threading.Thread(target=known.run, args=(folder,), name=f"check of {folder.name}", daemon=True).start()
        return known

    def picture(self, name: str, stem: str) -> Path:
        """The file of a picture. Raises NotFound."""
        return open_dataset(self.path(name)).pair(stem).picture

    def preview_cure(self, name: str, code: str) -> list[Change]:
        return preview(self.path(name), code)

    def cure(self, name: str, code: str) -> str:
        """Apply a cure; the id under which it can be undone."""
        with self._curing:
            return apply(self.path(name), code)

    def undo(self, name: str, cure: str) -> list[Change]:
        with self._curing:
            return undo(self.path(name), cure)

    def split(self, name: str, validation_share: float, seed: int, test_share: float = 0.0) -> Split:
        """The split that a job with these settings will have."""
        report = self.check(self.path(name))
        report.refuse_few()
        return report.split_for(validation_share, seed, test_share)

    def store_split(self, name: str, validation_share: float, seed: int, test_share: float) -> Split:
        """Draw a split and lay it with the dataset, in the place of the one that lies there. Raises Unavailable."""
        report = self.check(self.path(name)).model_copy(update={"split": None})
        report.refuse_few()
        split = report.split_for(validation_share, seed, test_share)
        try:
            store_split(self.path(name), split)
        except OSError as error:
            raise _read_only(name, error) from error
        return split

    def forget_split(self, name: str) -> None:
        """Take away the split that lies with a dataset: every job draws its own again."""
        try:
            (self.path(name) / SPLIT_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise _read_only(name, error) from error

    def overlay(self, name: str, stem: str, width: int, opacity: float) -> bytes:
        """A JPEG of a picture with its mask laid over it, `width` pixels wide. Raises Invalid where it cannot be read.

        Small ones are made once and kept in .maskwright/thumbnails/, as long as neither file nor the classes change.
        """
        dataset = open_dataset(self.path(name))
        pair = dataset.pair(stem)
        kept = _thumbnail(dataset, pair, width, opacity)
        if kept is not None and kept.is_file():
            return kept.read_bytes()
        image = self._draw(dataset, pair, width, opacity)
        if kept is not None:
            with contextlib.suppress(OSError):  # a dataset that may only be read is drawn anew each time
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_aside(kept, image)
        return image

    def _draw(self, dataset: Dataset, pair: Pair, width: int, opacity: float) -> bytes:
        try:
            picture, mask = read_picture(pair.picture), read_mask(pair.mask)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Invalid(f"{pair.picture.name} or its mask cannot be read ({error}).", "See the dataset's findings.") from error
        size = (max(1, round(picture.shape[0] * width / picture.shape[1])), width)
        drawn = overlay(resize_picture(picture, size), resize_mask(mask, size), class_colours(len(dataset.classes)), opacity)
        return jpeg(drawn)


def _thumbnail(dataset: Dataset, pair: Pair, width: int, opacity: float) -> Path | None:
    """Where a small overlay is kept; its name changes with all that it is drawn from. None: too large to keep."""
    if width > WIDEST_KEPT:
        return None
    times = [path.stat().st_mtime_ns for path in (pair.picture, pair.mask)]
    content = "\0".join(map(str, (pair.picture.name, pair.mask.name, *times, width, opacity, len(dataset.classes))))
    return dataset.folder / OWN / "thumbnails" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.jpg"


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def _read_only(name: str, error: OSError) -> Problem:
    return Unavailable(f"The folder of the dataset {name} cannot be written ({error}).", "Make it writable for Maskwright.")


def _state(folder: Path) -> int:
    """A number that changes with the name, size or time of any file that the check looks at."""
    found = []
    for place in (folder, folder / "images", folder / "labels"):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name[0] != ".":
                    state = entry.stat()
                    found.append((place.name, entry.name, state.st_size if entry.is_file() else 0, state.st_mtime_ns))
    answers = folder / ".maskwright" / "answers.json"
    found.append(("answers", "", 0, answers.stat().st_mtime_ns if answers.exists() else 0))
    return hash(tuple(sorted(found)))
