"""A training's checkpoints: each written whole and sealed with its checksums, and a damaged one passed over for the one before."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel

from contracts.durable import damage, folder_aside, force, is_sealed, seal, write_aside
from contracts.job import EpochScores
from contracts.job_folder import JobFolder

PROGRESS = "progress.json"


class Reached(BaseModel):
    """How far a checkpoint is. `scores`: of its epoch. `best`: of the best epoch until then."""

    epoch: int
    best: EpochScores | None = None
    scores: EpochScores | None = None


class Checkpoints:
    """last/, best/ and before/ of a job. The first process of a group writes them, all of them read."""

    def __init__(self, folder: JobFolder, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn
        self._sound: dict[Path, bool] = {}

    def settle(self) -> None:
        """Let what was broken off while it took its place take it; what else was broken off goes.

        For the first process, before any reads.
        """
        for place in (self.folder.last, self.folder.best):
            new = place.with_name(f".{place.name}.new")
            if not place.exists() and is_sealed(new):
                new.rename(place)
                force(self.folder.path)
        for left in self._left_over():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()

    def _left_over(self) -> Iterator[Path]:
        """What a killed training was writing aside (contracts/durable.py). docker_sdk_api may be writing files of its own just now."""
        folder = self.folder
        for place in (folder.last, folder.best, folder.model):
            yield from (left for end in ("new", "old") if (left := place.with_name(f".{place.name}.{end}")).exists())
        for file in (
            folder.split_file,
            folder.weights_file,
            folder.confusion_file,
            folder.figures_file,
            folder.mlflow_file,
            folder.ballast,
        ):
            yield from folder.path.glob(f".{file.name}.*.*")

    def newest(self) -> Path | None:
        """Where to go on from: the newest one that is whole. None: there is none yet, or none is left."""
        places = (self.folder.last, self.folder.before)
        found = next((place for place in places if self._is_sound(place)), None)
        if found is None and any((place / PROGRESS).exists() for place in places):
            self._warn("No checkpoint of this job is whole any more: it begins anew.")
        return found

    def has_best(self) -> bool:
        """Whether best/ is whole."""
        return self._is_sound(self.folder.best)

    def reached(self, place: Path) -> Reached:
        return Reached.model_validate_json((place / PROGRESS).read_bytes())

    def save(self, fill: Callable[[Path], None], reached: Reached) -> None:
        """Fill last/ anew, and best/ with the very same files where its epoch is the best one.

        Raises contracts.errors.Full, or what `fill` does; then what was there is intact.
        """
        best = reached.best is not None and reached.best.epoch == reached.epoch
        with folder_aside(self.folder.last, keep=self.folder.before) as aside:
            fill(aside)
            write_aside(aside / PROGRESS, reached.model_dump_json())
            if best:
                self._save_best(aside)
            seal(aside)
            if self.folder.last.exists() and not self._sound.get(self.folder.last, True):  # must not take the place of a sound one
                shutil.rmtree(self.folder.last)
        self._sound[self.folder.last] = True

    def _save_best(self, whole: Path) -> None:
        with folder_aside(self.folder.best) as aside:
            for file in whole.iterdir():
                _share(file, aside / file.name)
            seal(aside)
        self._sound[self.folder.best] = True

    def _is_sound(self, place: Path) -> bool:
        """Looked at once: what this process writes later is sound."""
        if place not in self._sound:
            self._sound[place] = self._look(place)
        return self._sound[place]

    def _look(self, place: Path) -> bool:
        if not (place / PROGRESS).exists() and not is_sealed(place):
            return False
        wrong = damage(place) if is_sealed(place) else ""  # those of older versions are not sealed
        if wrong:
            self._warn(f"The checkpoint in {place.name}/ is damaged and passed over: {wrong}.")
        return not wrong


def best_scores(folder: JobFolder) -> EpochScores | None:
    """Of the weights that lie in best/."""
    file = folder.best / PROGRESS
    best = json.loads(file.read_bytes())["best"] if file.exists() else None
    return None if best is None else EpochScores.model_validate(best)


def _share(file: Path, place: Path) -> None:
    """The same file under a second name; a copy where the disk cannot do that."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
