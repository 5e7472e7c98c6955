"""Ask a model by name, folder or downloaded zip, without any service running."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from annotations.colours import overlay as draw_overlay
from annotations.dataset import read_picture
from contracts.errors import Invalid
from contracts.model import MODEL_FILE
from inference_api.png import write_png
from inference_api.settings import Settings
from inference_api.store import LoadedModel, Store, load_model


def predict_picture(model: str, picture: Path, out: Path | None, overlay: Path | None) -> dict[str, float]:
    """Write mask and overlay; the share of every class in the picture. Raises Problem with the cure."""
    try:
        pixels = read_picture(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise Invalid(f"{picture} cannot be read as a picture ({error}).", "Give a JPEG, PNG, WebP, BMP or TIFF file.") from error
    loaded = _load(model)
    reading = loaded.read(pixels)
    if out is not None:
        with open(out, "wb") as file:
            write_png(file, reading.mask.shape, [reading.mask], loaded.model.palette)
    if overlay is not None:
        Image.fromarray(draw_overlay(pixels, reading.mask, loaded.model.palette)).save(overlay)
    counts = np.bincount(reading.mask.ravel(), minlength=len(loaded.model.classes))
    return {name: float(count / reading.mask.size) for name, count in zip(loaded.model.classes, counts, strict=False)}


def _load(model: str) -> LoadedModel:
    path = Path(model)
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
            return _load(folder)
    if (path / MODEL_FILE).is_file():
        return load_model(path)
    return Store(Settings().checkpoints, most=1).load(model)
