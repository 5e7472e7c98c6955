"""The models that can be asked: every checkpoints/<job>/model. Loaded on first use, again when published anew."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from annotations.untrusted import shown
from annotations.whole_picture import Normalisation, Picture, Reading, read_whole_picture
from contracts.errors import Broken, NotFound, Problem
from contracts.model import MODEL_FILE, RETIRED_FILE, Model, read_model
from contracts.plain import is_folder, is_plain
from inference_api.predictors import Predictor, load_predictor
from inference_api.turns import heed
from runtimes import GRAPHS

T = TypeVar("T")
COPIES, WORKING = 2, 300 * 2**20
"""What a loaded model takes: its graph's file twice, and what it works in. Measured at 480 × 480 and at 768 × 1024 (docs/inference.md)."""
SWAP = 5.0
"""Seconds that a model may be away while it is published anew."""


class Quick(Normalisation):
    """The same numbers by OpenCV, in half of the time. Trainings do without OpenCV."""

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        normalised = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel, levels in enumerate(self.levels()):
            cv2.LUT(cv2.extractChannel(pixels, channel), levels, normalised[channel])
        return normalised


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, which takes about so many bytes. `published` tells a folder that was published again from this one."""

    model: Model
    predictor: Predictor
    published: int
    memory: int

    def read(
        self,
        picture: Picture,
        size: tuple[int, int] | None = None,
        confidence: type | None = np.float32,
        short_side: int | None = None,
    ) -> Reading:
        """Class and confidence of every pixel of a picture, as read_whole_picture does it; at another size than its own if asked."""
        geometry = self.model.geometry.model_copy(update={} if short_side is None else {"short_side": short_side})
        normalisation = Quick(self.model.mean, self.model.deviation)
        return read_whole_picture(picture, geometry, normalisation, self._predict, size, confidence)

    @property
    def runtime(self) -> str:
        """What answers, such as “openvino 2026.4.1, bfloat16, 2 threads”."""
        return self.predictor.describe

    def _predict(self, batch: np.ndarray) -> np.ndarray:
        heed()
        return self.predictor.predict(batch)


def load_model(folder: Path, runtime: str = "auto", precision: str = "auto") -> LoadedModel:
    """The model of a folder, ready to answer. Raises Broken where something is missing in it, Unavailable where it cannot be
    answered by the runtime or in the precision that was asked for."""
    if strange := [path.name for path in folder.iterdir() if not is_plain(path) and not is_folder(path)]:
        raise Broken(f"{strange[0][:100]} of this model is no plain file.", "Train or import the model again: nobody publishes such ones.")
    published = (folder / MODEL_FILE).stat().st_mtime_ns
    model = read_model(folder)
    graph = folder / GRAPHS["float32"]
    memory = WORKING + (COPIES * graph.stat().st_size if graph.is_file() else 0)
    return LoadedModel(model, load_predictor(folder, model, runtime, precision), published, memory)


class Store:
    """Models by name; those used last stay in memory, as many as `memory` has bytes for, and one at least."""

    def __init__(self, checkpoints: Path, memory: int, runtime: str = "auto", precision: str = "auto") -> None:
        self.checkpoints = checkpoints
        self.memory = memory
        self.runtime, self.precision = runtime, precision
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._loading, self._ordering = threading.Lock(), threading.Lock()

    def models(self) -> list[Model]:
        """Everything that can be asked, newest first."""
        found = []
        for path in self.checkpoints.iterdir():
            # A model whose file was damaged must not hide the others: who asks for it by name is told.
            with suppress(FileNotFoundError, NotADirectoryError, ValueError):
                if not path.name.startswith(".") and not (path / RETIRED_FILE).exists() and is_folder(path / "model"):
                    found.append(read_model(path / "model"))
        return sorted(found, key=lambda model: model.created, reverse=True)

    def model(self, name: str) -> Model:
        """What is known of a model. Raises NotFound, or Broken where its file is damaged."""
        return self._whole(name, lambda: read_model(self.folder(name)))

    def in_memory(self, name: str) -> LoadedModel | None:
        """A model, if it is loaded."""
        return self._loaded.get(name)

    def load(self, name: str, again: bool = False) -> LoadedModel:
        """A model ready to answer; `again`: read from its folder even if it is loaded. Raises NotFound."""
        loaded = self._loaded.get(name)
        if loaded is not None and not again and not self._is_retired(name):
            if self._is_current(name, loaded):
                return self._keep(name, loaded)
            if self._loading.locked():  # another caller brings what was published anew; until then the former answers
                return loaded
        with self._loading:
            loaded = self._loaded.get(name)
            if again or loaded is None or not self._is_current(name, loaded):
                loaded = self._read(name)
            return self._keep(name, loaded)

    def count(self) -> int:
        """How many are in memory."""
        return len(self._loaded)

    def _keep(self, name: str, loaded: LoadedModel) -> LoadedModel:
        with self._ordering:
            self._loaded[name] = loaded
            self._loaded.move_to_end(name)
            while len(self._loaded) > 1 and sum(model.memory for model in self._loaded.values()) > self.memory:
                self._loaded.popitem(last=False)
        return loaded

    def _read(self, name: str) -> LoadedModel:
        """A model from its folder, ready to answer."""
        return self._whole(name, lambda: load_model(self.folder(name), self.runtime, self.precision))

    def _whole(self, name: str, read: Callable[[], T]) -> T:
        """What `read` makes of a model's folder, with all files of one publication, though the folder may be replaced meanwhile."""
        deadline = time.monotonic() + SWAP
        while True:
            before = self._published(name)
            try:
                found = read()
            except (Problem, OSError, ValueError) as error:
                settled = before == self._published(name) and not self._is_being_published(name)
                if settled or time.monotonic() > deadline:
                    raise (error if isinstance(error, Problem) else _damaged(name)) from error
            else:
                if before == self._published(name) or time.monotonic() > deadline:
                    return found
            time.sleep(0.01)

    def _is_current(self, name: str, loaded: LoadedModel) -> bool:
        published = self._published(name)
        return published == loaded.published or (published is None and self._is_being_published(name))

    def _is_being_published(self, name: str) -> bool:
        """Whether the former folder was moved away for the new one this moment (contracts.job_folder.folder_aside)."""
        with suppress(OSError, ValueError):  # no folder can have this name
            return (self.checkpoints / name / ".model.old").exists()
        return False

    def _is_retired(self, name: str) -> bool:
        with suppress(OSError, ValueError):  # no folder can have this name
            return (self.checkpoints / name / RETIRED_FILE).exists()
        return False

    def _published(self, name: str) -> int | None:
        with suppress(OSError, ValueError):
            return None if self._is_retired(name) else (self.checkpoints / name / "model" / MODEL_FILE).stat().st_mtime_ns
        return None

    def folder(self, name: str) -> Path:
        """Where a model lies. Raises NotFound."""
        folder = self.checkpoints / name / "model"
        named = name and "/" not in name and not name.startswith(".") and len(name.encode()) < 256
        if not named or not is_folder(folder) or not is_plain(folder / MODEL_FILE):
            known = ", ".join(model.name for model in self.models()[:5]) or "none yet"
            raise NotFound(f"There is no model “{shown(name)}”.", f"A model is there once its job has finished. There are: {known}.")
        if self._is_retired(name):
            raise NotFound(f"The model “{shown(name)}” was retired.", "Publish it again on its page, or ask another model.")
        return folder


def _damaged(name: str) -> Broken:
    cause = f"{MODEL_FILE} of the model “{shown(name)}” cannot be read."
    return Broken(cause, "Its folder is damaged: train or import it again.")
