"""Bring in labelled pictures of any known format: read, convert, and write a dataset, all of it or nothing.

What is written: images/ (the file unchanged where it is upright and of a kind that everything reads, else a PNG), labels/ (8-bit
PNGs of class ids), objectclasses.json, split.json where the source came with a split, and source.json, which says where from.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from annotations.colours import class_colours
from annotations.dataset import IGNORE, MOST_CLASSES, ORIENTATION, as_rgb
from annotations.formats import Choices, Labelled, Side, Source, read_folder
from annotations.formats.naming_classes import VOC_BORDER
from annotations.formats.reading import naming, open_picture, shown
from annotations.split import SPLIT_FILE, Split, split_stems
from contracts.errors import Invalid, Taken
from contracts.job_folder import folder_aside

ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
"""The kinds of pictures that everything here reads, by Pillow's name for them. MPO is what many telephones write as .jpg."""
THREADS = 4
VALIDATION_SHARE = 0.2


def import_dataset(source: Path, destination: Path, format: str | None, choices: Choices, progress: Callable[[int, int], None]) -> Source:
    """Write the labelled pictures in the folder `source` as a dataset to `destination`. The source is never changed.

    `progress` hears (done, total) in pictures. Raises Invalid, naming file, value and cure, and Taken where there is such a
    dataset already; then nothing is left at the destination.
    """
    if destination.exists():
        raise Taken(f"There is a dataset {destination.name} already.", "Choose another name, or remove it first.")
    found = read_folder(source, format, choices)
    _require_classes(found.classes)
    items = list(_named_apart(found.items))
    if not items:
        raise Invalid(f"{source.name} holds no labelled pictures. {' '.join(found.notes)}".strip(), "Bring pictures with labels.")
    with folder_aside(destination) as folder:
        for name in ("images", "labels"):
            (folder / name).mkdir()
        _write_pairs(folder, items, found.classes, progress)
        classes = {"classes": len(found.classes), "classesname": found.classes}
        (folder / "objectclasses.json").write_text(json.dumps(classes, indent=4, ensure_ascii=False) + "\n", "utf-8")
        split, more = _split(items)
        notes = [*found.notes, *more]
        if split is not None:
            (folder / SPLIT_FILE).write_text(split.model_dump_json(indent=2) + "\n", "utf-8")
        for file in found.beside:
            shutil.copyfile(file, folder / file.name)
        origin = {"format": found.format, "when": datetime.now(timezone.utc).isoformat(), "files": len(items), "notes": notes}
        (folder / "source.json").write_text(json.dumps(origin, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return Source(found.format, found.classes, items, notes)


def save_mask(ids: np.ndarray, classes: int, file: Path) -> None:
    """uint8 (height, width) as a PNG whose pixel value is the class id, shown in the colours of the classes."""
    palette = [channel for colour in class_colours(classes) for channel in colour]
    palette += [0] * (3 * IGNORE - len(palette)) + list(VOC_BORDER)
    image = Image.fromarray(ids)
    image.putpalette(palette)
    image.save(file)


def _require_classes(classes: list[str]) -> None:
    if not 2 <= len(classes) <= MOST_CLASSES:
        named = ", ".join(classes[:10]) or "none"
        raise Invalid(f"There are {len(classes)} classes ({named}).", f"Bring 2 to {MOST_CLASSES}, the background among them.")
    twice = [name for name, count in Counter(classes).items() if count > 1 or not name.strip()]
    if twice:
        raise Invalid(f"The class name “{twice[0]}” is empty or there twice.", "Give every class a name of its own.")


def _named_apart(items: list[Labelled]) -> Iterator[Labelled]:
    """The items under names that no other has: of the same name, the side goes before it, and then a number behind it.

    Raises Invalid where a picture is labelled twice: its two copies could teach and score.
    """
    paths = Counter(item.picture for item in items if isinstance(item.picture, Path))
    if paths and (twice := paths.most_common(1)[0])[1] > 1:
        raise Invalid(f"The picture {shown(twice[0])} is labelled {twice[1]} times.", "Keep one of its labels, and import again.")
    names = Counter(item.stem for item in items)
    used: set[str] = {item.stem for item in items if names[item.stem] == 1}
    for item in items:
        base = f"{item.side}_{item.stem}" if names[item.stem] > 1 and item.side else item.stem
        name, number = base, 2
        while names[item.stem] > 1 and name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        yield Labelled(name, item.picture, item.mask, item.side)


def _write_pairs(folder: Path, items: list[Labelled], classes: list[str], progress: Callable[[int, int], None]) -> None:
    progress(0, len(items))
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for done, _ in enumerate(pool.map(lambda item: _write_pair(folder, item, classes), items), start=1):
                progress(done, len(items))
        finally:
            pool.shutdown(cancel_futures=True)


def _write_pair(folder: Path, item: Labelled, classes: list[str]) -> None:
    name = shown(item.picture) if isinstance(item.picture, Path) else f"the picture of {item.stem}"
    with naming(name), open_picture(item.picture) as image:
        ending = ENDINGS.get(image.format or "")
        upright = image.getexif().get(ORIENTATION, 1) in (0, 1)
        if ending is None or not upright:
            size = _save_upright(image, folder / "images" / f"{item.stem}.png")
        else:
            size = (image.height, image.width)
            _copy(item, folder, ending)
    with naming(f"the label of {name}"):
        ids = item.mask()
    if ids.shape != size:
        cause = f"The label of {name} has {ids.shape[1]} × {ids.shape[0]} pixels, the picture {size[1]} × {size[0]}."
        raise Invalid(cause, "Export the labels again.")
    _require_ids(ids, classes, item.stem)
    save_mask(ids, len(classes), folder / "labels" / f"{item.stem}.png")


def _save_upright(image: Image.Image, file: Path) -> tuple[int, int]:
    picture = as_rgb(image)
    picture.info.pop("exif", None)
    picture.save(file)
    return picture.height, picture.width


def _copy(item: Labelled, folder: Path, ending: str) -> None:
    if not isinstance(item.picture, Path):
        (folder / "images" / f"{item.stem}{ending}").write_bytes(item.picture())
        return
    # Its own ending stays, if only for the eye of whoever looks for it.
    kept = item.picture.suffix if item.picture.suffix.lower() in (*ENDINGS.values(), ".jpeg", ".tiff") else ending
    shutil.copyfile(item.picture, folder / "images" / f"{item.stem}{kept}")


def _require_ids(ids: np.ndarray, classes: list[str], stem: str) -> None:
    wrong = (ids >= len(classes)) & (ids != IGNORE)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise Invalid(
            f"The mask of {stem} holds the value {ids[row, column]} at x {column}, y {row} ({wrong.mean():.2%} of its pixels), "
            f"but the {len(classes)} classes end at {len(classes) - 1}.",
            "Name the missing classes, or correct the mask; 255 means “ignore”.",
        )


def _split(items: list[Labelled]) -> tuple[Split | None, list[str]]:
    """The split that the pictures came with, and what to say of it; None where they all came on one side, or on none.

    Where training and test pictures came without any to validate on, these are drawn from the training pictures: the test
    pictures must not be learnt from, nor be looked at before the end.
    """
    sides: dict[Side, list[str]] = {side: [item.stem for item in items if (item.side or "training") == side] for side in get_args(Side)}
    if sum(bool(stems) for stems in sides.values()) < 2:
        return None, []
    if sides["validation"] and sides["training"]:
        return Split(**sides), []
    if len(sides["training"]) < 2:
        return None, ["The given split has no training pictures, so it was left out"]
    drawn = split_stems(sides["training"], VALIDATION_SHARE, seed=0)
    notes = [f"No pictures were given to validate on: {len(drawn.validation)} of those for training were drawn"]
    return Split(training=drawn.training, validation=drawn.validation, test=sides["test"]), notes
