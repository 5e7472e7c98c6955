"""The models that can be asked: every checkpoints/<job>/model. Loaded on first use, again when published anew."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotations.whole_picture import Normalisation, Reading, read_whole_picture
from contracts.errors import NotFound
from contracts.model import MODEL_FILE, Model, read_model
from inference_api.predictors import Predictor, load_predictor


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `published` tells a folder that was published again from the one that was loaded."""

    model: Model
    predictor: Predictor
    published: int

    def read(self, picture: np.ndarray) -> Reading:
        """Class and confidence of every pixel of a picture, uint8 (height, width, 3)."""
        normalisation = Normalisation(self.model.mean, self.model.deviation)
        return read_whole_picture(picture, self.model.geometry, normalisation, self.predictor.predict)


def load_model(folder: Path) -> LoadedModel:
    """The model of a folder, ready to answer. Raises Broken where something is missing in it."""
    published = (folder / MODEL_FILE).stat().st_mtime_ns
    model = read_model(folder)
    return LoadedModel(model, load_predictor(folder, model), published)


class Store:
    """Models by name; the `most` used last stay in memory."""

    def __init__(self, checkpoints: Path, most: int) -> None:
        self.checkpoints = checkpoints
        self.most = most
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._loading = threading.Lock()

    def models(self) -> list[Model]:
        """Everything that can be asked, newest first."""
        folders = [path / "model" for path in self.checkpoints.iterdir() if path.name[0] != "." and (path / "model" / MODEL_FILE).is_file()]
        return sorted((read_model(folder) for folder in folders), key=lambda model: model.created, reverse=True)

    def model(self, name: str) -> Model:
        return read_model(self._folder(name))

    def load(self, name: str) -> LoadedModel:
        """A model ready to answer. Raises NotFound."""
        folder = self._folder(name)
        published = (folder / MODEL_FILE).stat().st_mtime_ns
        with self._loading:
            loaded = self._loaded.get(name)
            if loaded is None or loaded.published != published:
                loaded = load_model(folder)
            self._loaded[name] = loaded
            self._loaded.move_to_end(name)
            while len(self._loaded) > self.most:
                self._loaded.popitem(last=False)
        return loaded

    def _folder(self, name: str) -> Path:
        folder = self.checkpoints / name / "model"
        if "/" in name or name.startswith(".") or not (folder / MODEL_FILE).is_file():
            known = ", ".join(model.name for model in self.models()[:5]) or "none yet"
            raise NotFound(f"There is no model “{name}”.", f"A model is there once its job has finished. There are: {known}.")
        return folder
