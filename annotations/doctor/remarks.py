"""What only the whole dataset shows: classes that are missing or tiny, pictures twice, a split that gives answers away."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from annotations.dataset import IGNORE
from annotations.doctor.examine import Facts
from annotations.doctor.findings import Finding, Report
from annotations.doctor.recode import all_white, white_is_ignored, white_masks
from contracts.hyperparameters import Hyperparameters

FEWEST_PAIRS = 2
TINY = 0.0005
"""A class with a smaller share of the pixels is hard to learn."""
VANISHED = 4.0
"""A class that covers less than so many pixels of a picture, at the size at which a network sees it, cannot be found there."""


def remark(folder: Path, report: Report, sound: list[Facts], alike: dict[str, str]) -> list[Finding]:
    """Findings of the sound pairs together; `alike` gives for a stem the first that looks the same."""
    findings = [
        *_enough(report, sound, len(alike)),
        *(_classes(report) if sound else []),
        *_pictures(report, sound),
        *_white(folder, sound),
        *_twice(sound),
    ]
    return findings + list(_split(report, sound, alike))


def _warning(code: str, file: str, what: str, cure: str, **where: Any) -> Finding:
    return Finding(severity="warning", code=code, file=file, what=what, cure=cure, **where)


def _enough(report: Report, sound: list[Facts], pairs: int) -> Iterator[Finding]:
    name = f"{report.dataset}/"
    if pairs < FEWEST_PAIRS:
        what = f"Has {pairs} pairs of picture and mask; one must teach and one must score."
        yield Finding(code="too_few", file=name, what=what, cure=f"Add pictures with masks, {FEWEST_PAIRS} at least, better 20.")
    elif sound and sum(count > 0 for count in report.class_pixels) < 2 and len(sound) == pairs:
        shown = [name for name, count in zip(report.classes, report.class_pixels, strict=True) if count]
        what = f"Its masks show {f'nothing but “{shown[0]}”' if shown else 'no class at all'}: there is nothing to tell apart."
        first = f"labels/{sound[0].mask.name}"
        yield Finding(code="nothing_to_learn", file=first, what=what, cure="Look whether the masks were exported with their classes.")


def _classes(report: Report) -> Iterator[Finding]:
    total = sum(report.class_pixels)
    for name, pixels, pictures in zip(report.classes, report.class_pixels, report.class_pictures, strict=True):
        if pictures == 0:
            yield _warning(
                "absent_class", "objectclasses.json", f"The class “{name}” is in no mask.", "Remove it, or add pictures that show it."
            )
        elif pixels < TINY * total:
            what = f"The class “{name}” has {pixels / total:.4%} of the pixels, in {pictures} pictures."
            cure = "Add pictures that show it, or raise the share of crops that are centred on rare classes."
            yield _warning("tiny_class", "objectclasses.json", what, cure, share=pixels / total)


def _pictures(report: Report, sound: list[Facts]) -> Iterator[Finding]:
    short_side: int = Hyperparameters.model_fields["short_side"].default
    for pair in sound:
        name, values = f"labels/{pair.mask.name}", pair.values()
        if set(values) == {IGNORE}:
            yield _warning("all_ignored", name, "All of it is 255, “ignore”: it teaches nothing.", "Label the picture, or remove it.")
        elif set(values) <= {0, IGNORE} and not pair.values().get(IGNORE) and len(report.classes) > 1:
            what = f"Shows nothing but “{report.classes[0]}”."
            yield _warning(
                "all_background", name, what, "Keep it if there is nothing to see in the picture; label it otherwise.", share=1.0
            )
        scale = min(1.0, short_side / max(1, min(pair.picture.width, pair.picture.height))) ** 2
        gone = [value for value, count in values.items() if 0 < value < IGNORE and count * scale < VANISHED]
        if gone and scale < 1:
            shown = ", ".join(f"“{report.classes[value]}” ({values[value]} pixels)" for value in gone)
            what = f"Shows {shown}, which vanishes when the picture is shrunk to a short side of {short_side}."
            share = values[gone[0]] / (pair.mask.width * pair.mask.height)
            yield _warning("vanishes", name, what, "Train with a longer short side.", value=gone[0], share=share)
        yield from _oddities(pair)


def _oddities(pair: Facts) -> Iterator[Finding]:
    turned = pair.picture.turn
    hidden = turned in (2, 3, 4) or (turned > 4 and pair.picture.width == pair.picture.height)
    if hidden and pair.mask.turn == 1:
        what = f"The camera turned the picture (EXIF orientation {turned}); whether the mask was turned with it, its size cannot tell."
        cure = "Look at the picture under its mask; save the picture upright if they do not fit."
        yield _warning("maybe_turned", f"images/{pair.picture.name}", what, cure)
    for name, frames in ((f"images/{pair.picture.name}", pair.picture.frames), (f"labels/{pair.mask.name}", pair.mask.frames)):
        if frames > 1:
            yield _warning("frames", name, f"Holds {frames} pictures, of which only the first is read.", "Save each as a file of its own.")


def _white(folder: Path, sound: list[Facts]) -> Iterator[Finding]:
    """Masks of 0 and 255 among others that show classes: perhaps another tool wrote them."""
    if all_white(sound) or white_is_ignored(folder):
        return
    for pair in white_masks(sound):
        share = pair.values()[IGNORE] / (pair.mask.width * pair.mask.height)
        x, y = pair.places.get(str(IGNORE), (0, 0))
        what = f"Holds 0 and 255 only, first 255 at x {x}, y {y} ({share:.2%} of its pixels), while other masks show classes."
        yield _warning(
            "white_some",
            f"labels/{pair.mask.name}",
            what,
            "Say whether 255 means “ignore” here, or the foreground.",
            value=IGNORE,
            share=share,
            place=(x, y),
            cure_code="white_ignore",
        )


def _twice(sound: list[Facts]) -> Iterator[Finding]:
    """The same picture under two names."""
    ordered = sorted(sound, key=lambda pair: (pair.picture.digest, pair.stem))
    for _, group in groupby(ordered, key=lambda pair: pair.picture.digest):
        first, *others = group
        for pair in others:
            differs = "" if pair.mask.digest == first.mask.digest else ", but has another mask: one of the two is wrong"
            what = f"Is the same picture as images/{first.picture.name}{differs}."
            yield _warning("duplicate", f"images/{pair.picture.name}", what, "Remove one of them, with its mask.")


def _split(report: Report, sound: list[Facts], alike: dict[str, str]) -> Iterator[Finding]:
    """What is wrong with a split that lies with the dataset."""
    if report.split is None:
        return
    sides = report.split.sides()
    stems = {pair.stem: pair for pair in sound}
    for side, names in sides.items():
        for name in sorted(set(names) - alike.keys()):
            yield _warning(
                "split_stem", "split.json", f"Names {name} for {side}, which is not there.", "Add it, or remove it from the file."
            )
    named = [name for names in sides.values() for name in names]
    for name in sorted({name for name in named if named.count(name) > 1}) if len(named) != len(set(named)) else []:
        yield Finding(code="split_twice", file="split.json", what=f"Names {name} more than once.", cure="Leave it on one side.")
    for side in ("training", "validation"):
        if not stems.keys() & set(sides[side]):
            yield Finding(
                code="split_empty", file="split.json", what=f"No picture is for {side}.", cure="Name one at least, or remove the file."
            )
    for name in sorted(alike.keys() - set(named)):
        yield _warning("not_in_split", f"images/{name}", "Is on no side of split.json, so it teaches.", "Add it to a side.")
    yield from _leaks(sides, stems, alike)
    yield from _one_sided(report, sides, stems)


def _leaks(sides: dict[str, list[str]], stems: dict[str, Facts], alike: dict[str, str]) -> Iterator[Finding]:
    """Pictures that score and look like one that teaches."""
    teaching: dict[str, str] = {}
    for name in sides["training"]:
        teaching.setdefault(alike.get(name, name), name)
    for side in ("validation", "test"):
        for name in sides[side]:
            twin = teaching.get(alike.get(name, name))
            if twin is None or name not in stems or twin not in stems:
                continue
            same = stems[name].picture.digest == stems[twin].picture.digest
            what = f"Is for {side} and {'is the same as' if same else 'looks like'} {twin}, which teaches: its score flatters."
            code = "duplicate_across_split" if same else "near_duplicate_across_split"
            yield _warning(code, f"images/{stems[name].picture.name}", what, "Put both on one side of split.json.")


def _one_sided(report: Report, sides: dict[str, list[str]], stems: dict[str, Facts]) -> Iterator[Finding]:
    shown = {side: {value for name in names if name in stems for value in stems[name].values()} for side, names in sides.items()}
    for index, name in enumerate(report.classes):
        if index in shown["training"] and index not in shown["validation"]:
            what = f"The class “{name}” is only in pictures that teach, so it is never scored."
            yield _warning("only_in_training", "split.json", what, "Move a picture that shows it to validation.", value=index)
        elif index not in shown["training"] and index in shown["validation"] | shown["test"]:
            what = f"The class “{name}” is in no picture that teaches, so it cannot be learnt."
            yield _warning("not_in_training", "split.json", what, "Move a picture that shows it to training.", value=index)
