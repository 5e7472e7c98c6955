"""Finding pictures and their masks in folders: by the names that people give such folders, with or without given splits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from annotations.dataset import picture_files
from annotations.formats.reading import shown
from annotations.formats.source import Side
from contracts.errors import Invalid

PICTURE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "rgb")
MASK_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "annot", "gt", "ground_truth", "segmentationclass", "segmentation")
MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_L", "-mask", "-label")
SIDES: dict[str, Side] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
NAMED = 5
"""How many files a note names before it only counts."""


@dataclass(frozen=True)
class Found:
    """A picture and its mask as files."""

    stem: str
    picture: Path
    mask: Path
    side: Side | None


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names; hidden ones and what archives leave behind are passed over."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def split_folders(folder: Path) -> list[tuple[Path, Side]]:
    """The subfolders that are named after a side of a split."""
    return [(path, SIDES[path.name.lower()]) for path in subfolders(folder) if path.name.lower() in SIDES]


def side_of(file: Path, root: Path) -> Side | None:
    """The side that the nearest folder between `root` and the file is named after."""
    parts = file.relative_to(root).parts[:-1]
    return next((SIDES[part.lower()] for part in reversed(parts) if part.lower() in SIDES), None)


def picture_and_mask_folders(folder: Path) -> Iterator[tuple[Path, Path, Side | None]]:
    """Every pair of a folder of pictures and a folder of masks: side by side, in train/ and the like, or around it."""
    for base, side in [(folder, None), *split_folders(folder)]:
        pictures, masks = _named(base, PICTURE_FOLDERS), _named(base, MASK_FOLDERS)
        if pictures is None or masks is None:
            continue
        inner = [(path, masks / path.name, name) for path, name in split_folders(pictures) if (masks / path.name).is_dir()]
        if inner:
            yield from inner
        else:
            yield pictures, masks, side


def find_pairs(folder: Path) -> tuple[list[Found], list[str]]:
    """All pictures that have a mask, and notes on files that have no partner."""
    places = list(picture_and_mask_folders(folder))
    if not places:  # pictures and masks side by side, told apart by a suffix
        places = [(base, base, side) for base, side in [(folder, None), *split_folders(folder)]]
    found: list[Found] = []
    notes: list[str] = []
    for pictures, masks, side in places:
        some, more = pair_files(picture_files(pictures), picture_files(masks), side)
        found += some
        notes += more
    return found, notes


def pair_files(pictures: list[Path], masks: list[Path], side: Side | None) -> tuple[list[Found], list[str]]:
    """Pairs by stem, or by the stem and a suffix such as _mask. Raises Invalid where two files claim the same partner."""
    together = bool(masks) and masks[0].parent in {picture.parent for picture in pictures}
    if together:
        masks = [mask for mask in masks if _bare(mask.stem) != mask.stem]
        pictures = [picture for picture in pictures if picture not in masks]
    by_stem = unique_stems(pictures)
    partner: dict[str, Path] = {}
    alone = []
    for mask in masks:
        stem = mask.stem if mask.stem in by_stem else _bare(mask.stem)
        if stem not in by_stem:
            alone.append(mask)
        elif stem in partner:
            raise Invalid(f"{shown(partner[stem])} and {shown(mask)} are both masks of {by_stem[stem].name}.", "Keep one of them.")
        else:
            partner[stem] = mask
    found = [Found(stem, picture, partner[stem], side) for stem, picture in by_stem.items() if stem in partner]
    bare = [] if together and not found else [picture for stem, picture in by_stem.items() if stem not in partner]
    return found, left_out(bare, "no mask") + left_out(alone, "no picture")


def unique_stems(files: list[Path]) -> dict[str, Path]:
    """Files by stem. Raises Invalid where two share one, since nobody can say which is labelled."""
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.stem in by_stem:
            raise Invalid(
                f"{shown(by_stem[file.stem])} and {file.name} share one name, so their mask is not certain.", "Rename one of them."
            )
        by_stem[file.stem] = file
    return by_stem


def left_out(files: list[Path], why: str) -> list[str]:
    """A note on files that are not imported; none where there are none."""
    if not files:
        return []
    names = ", ".join(shown(file) for file in files[:NAMED]) + (" …" if len(files) > NAMED else "")
    count = "1 file has" if len(files) == 1 else f"{len(files)} files have"
    left = "was left out" if len(files) == 1 else "were left out"
    return [f"{count} {why} and {left}: {names}"]


def require_items(items: list[Found], notes: list[str]) -> None:
    """Raises Invalid where nothing can be imported."""
    if not items:
        raise Invalid("No picture has a mask of the same name. " + " ".join(notes), "Give each mask the name of its picture.")


def _named(folder: Path, names: tuple[str, ...]) -> Path | None:
    there = {path.name.lower(): path for path in subfolders(folder)}
    return next((there[name] for name in names if name in there), None)


def _bare(stem: str) -> str:
    """A mask's stem without the suffix that says it is one."""
    return next((stem[: -len(suffix)] for suffix in MASK_SUFFIXES if stem.endswith(suffix) and len(stem) > len(suffix)), stem)
