"""Which pictures teach, which score, and which are kept for the end: by seed, the same on every machine.

A split that lies with the dataset (split.json) is kept as it is. Otherwise one is drawn so that every class is on both sides
in like parts, and pictures that look the same stay on one side: else the model would be scored on what it has learnt by heart.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from contracts.errors import Invalid
from contracts.job_folder import write_aside

SPLIT_FILE = "split.json"


class Split(BaseModel):
    """Stems of the pictures that teach, of those that score, and of those that score once at the end; no stem is in two."""

    training: list[str]
    validation: list[str]
    test: list[str] = []

    def sides(self) -> dict[str, list[str]]:
        return {"training": self.training, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Picture:
    """What a split is drawn by: the class ids that a picture shows, and whom it looks like (a stem, its own where nobody)."""

    stem: str
    classes: frozenset[int] = frozenset()
    alike: str = ""


def split_stems(stems: list[str], validation_share: float, seed: int) -> Split:
    """Draw by the stems alone. Both sides have at least one picture; fewer than two stems: ValueError."""
    return draw_split([Picture(stem) for stem in stems], validation_share, seed)


def draw_split(pictures: Iterable[Picture], validation_share: float, seed: int, test_share: float = 0.0) -> Split:
    """Draw by seed, classes in like parts, look-alikes together. Training and validation have at least one picture each.

    Shares are of all pictures. Fewer than two pictures: ValueError.
    """
    groups = _groups(pictures)
    everyone = sum(len(group) for group in groups)
    if everyone < 2:
        raise ValueError("a split needs two pictures or more")
    test = min(round(everyone * test_share), everyone - 2)
    validation = min(max(round(everyone * validation_share), 1), everyone - test - 1)
    room = {"validation": validation, "test": test, "training": everyone - validation - test}
    random.Random(seed).shuffle(groups)
    sides = _deal(groups, room)
    _leave_nobody_empty(sides)
    return Split(**{side: sorted(picture.stem for group in dealt for picture in group) for side, dealt in sides.items()})


def read_split(folder: Path) -> Split | None:
    """The split that lies with a dataset, None where there is none. Raises Invalid for a file that holds no split."""
    file = folder / SPLIT_FILE
    if not file.exists():
        return None
    try:
        return Split.model_validate_json(file.read_bytes())
    except ValidationError:
        raise Invalid(
            f"{SPLIT_FILE} of the dataset {folder.name} cannot be read.",
            'Write {"training": ["stem", …], "validation": [...], "test": [...]}, or remove the file.',
        ) from None


def store_split(folder: Path, split: Split) -> None:
    """Lay a split with its dataset: every job that starts from now on has it."""
    write_aside(folder / SPLIT_FILE, json.dumps(split.model_dump(), indent=1, ensure_ascii=False))


def complete_split(given: Split, stems: Sequence[str]) -> Split:
    """A given split as a job uses it: without the stems that are gone, and with new pictures on the side that teaches."""
    there = set(stems)
    named = {stem for side in given.sides().values() for stem in side}
    kept = {side: [stem for stem in names if stem in there] for side, names in given.sides().items()}
    return Split(**{**kept, "training": kept["training"] + [stem for stem in stems if stem not in named]})


Group = list[Picture]


def _groups(pictures: Iterable[Picture]) -> list[Group]:
    """Look-alikes together, in an order that hangs on the stems alone. Where all look alike, each is for itself."""
    groups: dict[str, Group] = {}
    for picture in sorted(pictures, key=lambda picture: picture.stem):
        groups.setdefault(picture.alike or picture.stem, []).append(picture)
    if len(groups) == 1:
        return [[picture] for group in groups.values() for picture in group]
    return list(groups.values())


def _deal(groups: list[Group], room: dict[str, int]) -> dict[str, list[Group]]:
    """Give every group a side: the rarest class first, each to the side that misses that class most and has room."""
    everyone = sum(room.values())
    having = Counter(index for group in groups for index in _classes(group))
    want = {side: {index: _wish(side, size / everyone, count) for index, count in having.items()} for side, size in room.items()}
    left, sides = dict(room), {side: list[Group]() for side in room}

    def give(group: Group, side: str) -> None:
        sides[side].append(group)
        left[side] -= len(group)
        for index in _classes(group):
            want[side][index] -= 1

    waiting = dict(enumerate(groups))
    for index, _ in sorted(having.items(), key=lambda item: (item[1], item[0])):
        for number, group in list(waiting.items()):
            if index in _classes(group):
                open_sides = [side for side in room if side == "training" or left[side] >= len(group)]
                give(group, max(open_sides, key=lambda side: (want[side][index], left[side], side)))
                del waiting[number]
    for group in waiting.values():
        open_sides = [side for side in room if side == "training" or left[side] >= len(group)]
        give(group, max(open_sides, key=lambda side: (left[side], side)))
    _top_up(sides, left)
    return sides


def _classes(group: Group) -> set[int]:
    return {index for picture in group for index in picture.classes}


def _wish(side: str, share: float, count: int) -> float:
    """How many groups of a class a side should have: its share, and one at least where there are two or more."""
    if side == "training":
        return max(count * share, 1.0)
    return max(count * share, 1.0) if share and count > 1 else count * share


def _top_up(sides: dict[str, list[Group]], left: dict[str, int]) -> None:
    """Sides that were left short take from training, those groups first whose classes it has most of."""
    for side in ("validation", "test"):
        while left[side] > 0:
            having = Counter(index for group in sides["training"] for index in _classes(group))
            fitting = [group for group in sides["training"] if len(group) <= left[side]]
            if not fitting or len(sides["training"]) < 2:
                break
            group = max(fitting, key=lambda group: min((having[index] for index in _classes(group)), default=len(having) + 1))
            sides["training"].remove(group)
            sides[side].append(group)
            left[side] -= len(group)


def _leave_nobody_empty(sides: dict[str, list[Group]]) -> None:
    """Where groups were too large for a side, the smallest one goes there: one side must teach, one must score."""
    for side, other in (("validation", "training"), ("training", "validation")):
        if not sides[side]:
            donor = other if len(sides[other]) > 1 else "test"
            group = min(sides[donor], key=len)
            sides[donor].remove(group)
            sides[side].append(group)
