"""Label Studio's “brush labels to PNG”: a black-and-white PNG for every task and label, and the pictures.

The PNGs name only the task's number. Which picture that is stands in the JSON export, to be put into the same folder; without it,
pictures that are named after the number (12.jpg, task-12.jpg) are found too.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from annotations.formats.binary_masks import white_area
from annotations.formats.finding import PictureIndex
from annotations.formats.label_studio import picture_of, read_tasks, results_of
from annotations.formats.layers import lay
from annotations.formats.naming_classes import classes_of_labels, ids_of_labels
from annotations.formats.pairs import left_out, side_of
from annotations.formats.reading import fit, read_frame, shown
from annotations.formats.source import Choices, Labelled, Source
from contracts.errors import Invalid

NAME = "Label Studio brush labels as PNG (task-…-annotation-….png, the pictures and the JSON export)"
FILE = re.compile(r"^task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-(?P<rest>.+)-(?P<number>\d+)$")


def recognise(folder: Path) -> bool:
    return bool(_masks(folder))


def read(folder: Path, choices: Choices) -> Source:
    """Labels are laid on one another in the order of their numbers; of several annotations of a task the last is taken."""
    index = PictureIndex(folder)
    tasks = {str(task.id): (file, task) for file, task in read_tasks(folder)}
    known = set(choices.classes or [])
    known |= {result.value.label for file, task in tasks.values() for result in results_of(task, file) or [] if result.value.label}
    by_task: dict[int, list[tuple[int, int, str, Path]]] = {}
    for mask in _masks(folder):
        match = FILE.match(mask.stem)
        if match is not None:
            row = (int(match["annotation"]), int(match["number"]), _label(match["rest"], known), mask)
            by_task.setdefault(int(match["task"]), []).append(row)
    classes = classes_of_labels(sorted({row[2] for rows in by_task.values() for row in rows}), choices)
    items, alone = [], []
    for task, rows in sorted(by_task.items()):
        picture = picture_of(tasks[str(task)][1], tasks[str(task)][0], index) if str(task) in tasks else None
        picture = picture or index.of_stem(str(task)) or index.of_stem(f"task-{task}")
        last = max(row[0] for row in rows)
        layers = [(label, mask) for annotation, _, label, mask in sorted(rows) if annotation == last]
        if picture is None:
            alone += [mask for _, mask in layers]
            continue
        ids = ids_of_labels([label for label, _ in layers], classes, shown(layers[0][1]))
        draw = partial(_draw, [(ids[label], mask) for label, mask in layers], picture)
        items.append(Labelled(picture.stem, picture, draw, side_of(picture, index.root)))
    if not items:
        raise Invalid(
            f"Nothing says which picture {shown(alone[0])} belongs to: its name holds only the number of the task.",
            "Put the pictures and Label Studio's JSON export of the same project into the folder.",
        )
    return Source("label_studio_png", classes, items, left_out(alone, "no picture"))


def _masks(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("task-*-annotation-*.png") if FILE.match(file.stem))


def _label(rest: str, known: set[str]) -> str:
    """The label at the end of “<user>-<tag>-<label>”: a known one, the longest, else what follows the second dash."""
    fitting = [name for name in known if rest.endswith(f"-{name}")]
    return max(fitting, key=len) if fitting else rest.split("-", 2)[-1]


def _draw(layers: list[tuple[int, Path]], picture: Path) -> np.ndarray:
    frame = read_frame(picture, shown(picture))
    areas = ((index, fit(white_area(mask).astype(np.uint8), frame, shown(mask)) > 0) for index, mask in layers)
    return lay(areas, frame.upright)
