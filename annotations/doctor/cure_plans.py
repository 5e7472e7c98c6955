"""What each cure would do, file by file. A plan changes nothing; cures.py carries it out and takes it back."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from annotations.colours import class_colours
from annotations.dataset import IGNORE, Dataset, open_dataset, picture_files
from annotations.doctor.checking import OWN, Checker
from annotations.doctor.examine import LOSSLESS, Facts, turn
from annotations.doctor.recode import ANSWERS, colour_ids, colour_masks, deep_masks, renumbering, white_masks
from contracts.errors import NotFound

ASIDE = "unpaired"
"""The folder inside a dataset to which files without a partner go."""


@dataclass(frozen=True)
class Step:
    """One change: `to` is where the file goes, or `content` gives what replaces it (or is written, where there is none)."""

    file: str
    what: str
    content: Callable[[], bytes] | None = None
    to: str = ""


@dataclass(frozen=True)
class _Subject:
    """A dataset as a cure sees it."""

    dataset: Dataset
    facts: list[Facts]

    @property
    def classes(self) -> int:
        return len(self.dataset.classes)

    def mask(self, facts: Facts) -> Path:
        return self.dataset.folder / "labels" / facts.mask.name

    def recode(self, facts: Facts, what: str, table: dict[int, int]) -> Step:
        """Give pixels of a mask other values; those that are not in the table stay."""
        path = self.mask(facts)

        def content() -> bytes:
            with Image.open(path) as mask:
                values = np.asarray(ImageOps.exif_transpose(mask))
            new = values.astype(np.uint8)
            for old, value in table.items():
                new[values == old] = value
            return self.encode(new, path)

        return Step(f"labels/{path.name}", what, content)

    def encode(self, mask: np.ndarray, path: Path) -> bytes:
        """An 8-bit mask, uint8 (height, width), in the colours of its classes and in the format of the file's ending."""
        image, file = Image.fromarray(mask), io.BytesIO()
        image.putpalette([channel for colour in class_colours(self.classes) for channel in colour])
        image.save(file, LOSSLESS[path.suffix.lower()])
        return file.getvalue()


def plan(folder: Path, code: str) -> list[Step]:
    """Every step of a cure. Raises NotFound for an unknown code, Invalid where the dataset cannot be opened."""
    if code not in _PLANS:
        raise NotFound(f"There is no cure “{code}”.", f"The cures are: {', '.join(_PLANS)}.")
    dataset = open_dataset(folder)
    facts = Checker(dataset).examine(lambda _done, _total: None)
    return list(_PLANS[code](_Subject(dataset, facts)))


def _white_foreground(subject: _Subject) -> Iterator[Step]:
    if subject.classes != 2:
        return
    for pair in subject.facts:
        values = pair.values()
        if pair.is_index and set(values) <= {0, IGNORE} and IGNORE in values:
            what = f"{values[IGNORE]} pixels of value 255 become 1, “{subject.dataset.classes[1]}”."
            yield subject.recode(pair, what, {IGNORE: 1})


def _white_ignore(subject: _Subject) -> Iterator[Step]:
    masks = white_masks(subject.facts)
    if masks:
        what = f"Keeps the answer: 255 means “ignore” in {len(masks)} masks of 0 and 255. No mask changes."
        yield Step(f"{OWN}/{ANSWERS}", what, lambda: json.dumps({"white": "ignore"}).encode())


def _map_colours(subject: _Subject) -> Iterator[Step]:
    ids = colour_ids(subject.dataset.folder, subject.dataset.classes, subject.facts)
    if not ids:
        return
    names = [*subject.dataset.classes, *["ignore"] * (IGNORE + 1)]
    for pair in colour_masks(subject.facts):
        table = {int(colour[1:], 16): ids[colour] for colour in pair.counts or {}}
        shown = ", ".join(f"{colour} → {ids[colour]} “{names[ids[colour]]}”" for colour in pair.counts or {})
        yield Step(f"labels/{pair.mask.name}", f"{shown}.", _colour_content(subject, subject.mask(pair), table))


def _colour_content(subject: _Subject, path: Path, table: dict[int, int]) -> Callable[[], bytes]:
    def content() -> bytes:
        with Image.open(path) as mask:
            pixels = np.asarray(ImageOps.exif_transpose(mask).convert("RGB"), np.int64) @ np.array([65536, 256, 1])
        ids = np.full(pixels.shape, IGNORE, np.uint8)
        for colour, index in table.items():
            ids[pixels == colour] = index
        return subject.encode(ids, path)

    return content


def _to_eight_bits(subject: _Subject) -> Iterator[Step]:
    for pair in deep_masks(subject.facts):
        path = subject.mask(pair)

        def content(path: Path = path) -> bytes:
            with Image.open(path) as mask:
                upright = ImageOps.exif_transpose(mask)
                return subject.encode(np.asarray(upright.getchannel(0) if upright.mode == "LA" else upright).astype(np.uint8), path)

        yield Step(f"labels/{pair.mask.name}", f"Its values stay, written with 8 bits instead of the mode {pair.mask.mode}.", content)


def _renumber(subject: _Subject) -> Iterator[Step]:
    table = renumbering(subject.facts, subject.classes)
    for pair in subject.facts:
        moved = {value: table[value] for value in pair.values() if table.get(value, value) != value}
        if pair.is_index and moved:
            yield subject.recode(pair, f"{', '.join(f'{old} → {new}' for old, new in moved.items())}.", moved)


def _set_unpaired_aside(subject: _Subject) -> Iterator[Step]:
    paired = {pair.stem for pair in subject.dataset.pairs}
    for place in ("images", "labels"):
        for path in picture_files(subject.dataset.folder / place):
            if path.stem not in paired:
                target = f"{ASIDE}/{place}/{path.name}"
                yield Step(f"{place}/{path.name}", f"Moves to {target}.", to=target)


def _turn(how: int) -> Callable[[_Subject], Iterator[Step]]:
    """Turn masks whose size is their picture's on its side: `how` is an EXIF orientation, 0 that of the picture."""

    def steps(subject: _Subject) -> Iterator[Step]:
        for pair in subject.facts:
            picture, mask = pair.picture, pair.mask
            lying = mask.width != mask.height and (picture.width, picture.height) == (mask.height, mask.width) and pair.is_index
            known = picture.turn >= 5 and mask.turn == 1
            if lying and known == (how == 0):
                orientation = how or picture.turn
                what = f"Is turned from {mask.width} × {mask.height} to {picture.width} × {picture.height}."
                yield Step(f"labels/{mask.name}", what, _turned_content(subject, subject.mask(pair), orientation))

    return steps


def _turned_content(subject: _Subject, path: Path, orientation: int) -> Callable[[], bytes]:
    def content() -> bytes:
        with Image.open(path) as mask:
            return subject.encode(np.asarray(turn(ImageOps.exif_transpose(mask), orientation), np.uint8), path)

    return content


_PLANS: dict[str, Callable[[_Subject], Iterator[Step]]] = {
    "white_foreground": _white_foreground,
    "white_ignore": _white_ignore,
    "map_colours": _map_colours,
    "to_eight_bits": _to_eight_bits,
    "renumber": _renumber,
    "set_unpaired_aside": _set_unpaired_aside,
    "turn_masks": _turn(0),
    "turn_masks_left": _turn(8),
    "turn_masks_right": _turn(6),
}
