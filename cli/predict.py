"""Ask a model about pictures, folders and archives: by itself without any service running, or an inference API by its address."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from annotations.archives import Limits, is_archive, unpack
from annotations.colours import overlay as draw_overlay
from annotations.dataset import is_picture_name, read_picture
from contracts.errors import Invalid, Problem, TooLarge
from contracts.model import MODEL_FILE, Model
from inference_api.png import write_png
from inference_api.settings import Settings
from inference_api.store import LoadedModel, Store, load_model
from maskwright_client import Client

ASKED_AT_ONCE = 4
"""Pictures that are on their way to a service at the same time: it need not wait for the next one."""


@dataclass(frozen=True)
class Looked:
    """A picture that was asked about: the share of every class in it, or why there is none."""

    name: Path
    shares: dict[str, float]
    problem: Problem | None = None


@dataclass(frozen=True)
class Eyes:
    """Who looks at pictures: a model, here or behind an address. `mask_of`: file and pixels → class ids, uint8 (height, width)."""

    model: Model
    mask_of: Callable[[Path, np.ndarray], np.ndarray]
    at_once: int = 1


def predict_all(
    model: str, sources: list[Path], out: Path | None, overlay: Path | None, url: str | None, console: Console
) -> Iterator[Looked]:
    """Write masks and overlays: as these files for one picture, else below these folders under the pictures' names.

    What cannot be read keeps back none of the others. Raises Problem where nothing can be done at all.
    """
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, Settings().largest_picture)  # Pillow's own guard is one for the process
    with _gathered(sources) as pictures, _eyes(model, url) as eyes, _bar(console) as bar:
        one = len(pictures) == 1 and sources[0].is_file() and not is_archive(sources[0])
        task = bar.add_task(eyes.model.name, total=len(pictures))

        def look(picture: tuple[Path, Path]) -> Looked:
            name, path = picture
            places = [place and (place if one and place.suffix else place / _as_png(name)) for place in (out, overlay)]
            try:
                return Looked(name, _look(eyes, path, *places))
            except Problem as problem:
                return Looked(name, {}, problem)

        with ThreadPoolExecutor(eyes.at_once) as pool:
            for looked in pool.map(look, pictures):
                bar.advance(task)
                yield looked


def _look(eyes: Eyes, path: Path, out: Path | None, overlay: Path | None) -> dict[str, float]:
    try:
        pixels = read_picture(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise Invalid(f"{path} cannot be read as a picture ({error}).", "Give a JPEG, PNG, WebP, BMP or TIFF file.") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{path} has more pixels than are read.", "Raise LARGEST_PICTURE, or give a smaller picture.") from error
    mask = eyes.mask_of(path, pixels)
    for place in (out, overlay):
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
    if out is not None:
        with open(out, "wb") as file:
            write_png(file, mask.shape, [mask], eyes.model.palette)
    if overlay is not None:
        Image.fromarray(draw_overlay(pixels, mask, eyes.model.palette)).save(overlay)
    counts = np.bincount(mask.ravel(), minlength=len(eyes.model.classes))
    return {name: float(count / mask.size) for name, count in zip(eyes.model.classes, counts, strict=False)}


@contextmanager
def _gathered(sources: list[Path]) -> Iterator[list[tuple[Path, Path]]]:
    """The pictures of files, folders and archives: the name of each, and where it lies. Raises Invalid where there is none."""
    with ExitStack() as unpacked:
        found = [row for source in sources for row in _pictures_of(source, unpacked)]
        if not found:
            raise Invalid("There is no picture in what was given.", "Give JPEG, PNG, WebP, BMP or TIFF files, folders or zips of them.")
        _refuse_same_names(found)
        yield found


def _pictures_of(source: Path, unpacked: ExitStack) -> list[tuple[Path, Path]]:
    if not source.exists():
        raise Invalid(f"There is no file or folder {source}.", "Check the path.")
    if source.is_file() and not is_archive(source):
        return [(Path(source.name), source)]
    folder = source
    if source.is_file():
        folder = Path(unpacked.enter_context(tempfile.TemporaryDirectory())) / "pictures"
        unpack(source, folder, Limits(), lambda *_: None)
    return [(path.relative_to(folder), path) for path in sorted(folder.rglob("*")) if path.is_file() and is_picture_name(path.name)]


def _refuse_same_names(found: list[tuple[Path, Path]]) -> None:
    """No mask may take the place of another one."""
    taken: dict[Path, Path] = {}
    for name, path in found:
        other = taken.setdefault(_as_png(name), path)
        if other is not path:
            raise Invalid(f"The masks of {other} and {path} would have the same name.", "Rename one of them, or ask for them one by one.")


def _as_png(name: Path) -> Path:
    return name.with_suffix(".png")


@contextmanager
def _eyes(model: str, url: str | None) -> Iterator[Eyes]:
    if url is None:
        loaded = _load(model)
        yield Eyes(loaded.model, lambda _, pixels: loaded.read(pixels).mask)
        return
    with Client(url) as client:
        yield Eyes(client.model(model), lambda path, _: client.mask(model, path), ASKED_AT_ONCE)


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _load(model: str) -> LoadedModel:
    path = Path(model)
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
            return _load(folder)
    if (path / MODEL_FILE).is_file():
        return load_model(path)
    return Store(Settings().checkpoints, memory=0).load(model)
