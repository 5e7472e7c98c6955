"""Room on the disk: what a training takes of it, what is free, and that there is none left, said plainly whoever noticed it."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from contracts.errors import Full
from contracts.hyperparameters import Hyperparameters
from contracts.networks import Network
from contracts.plain import is_folder

LEAST = 2**20
"""Where fewer bytes than these are free, whatever failed failed for that."""
STATES = 4
"""Numbers that a checkpoint holds for each weight: itself, its running average, and the two that AdamW keeps."""
CHECKPOINTS = 4
"""The last one, the one before, the best one, and the one that is being written."""
MODELS = 5
"""Numbers that publishing writes for each weight: the engine's own, the graph's, and narrower ones while they are compared."""
SHEET = 400_000
"""Bytes of what one scoring leaves in previews/."""
BESIDES = 20_000_000
"""Bytes of everything else: log, figures, curves."""

RECKONED = ("last", "before", "best", "model", "previews")
"""What `needed` reckons with in a job's folder. A log may be as long as it likes: no training needs less room for it."""


def needed(network: Network, settings: Hyperparameters) -> int:
    """Bytes of disk that a training takes."""
    scorings = -(-settings.epochs // settings.validate_every)
    return round(network.parameters * 4e6 * (STATES * CHECKPOINTS + MODELS)) + SHEET * scorings + BESIDES


def free(place: Path) -> int:
    """Bytes that can be written where a folder lies, or will."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def taken(job: Path) -> int:
    """Bytes that a job's folder has by now of those that `needed` reckons with."""
    return on_disk(*(job / name for name in RECKONED))


def on_disk(*folders: Path, besides: Path | None = None) -> int:
    """Bytes that folders take on the disk: a file of several names once, and none that also lies `besides`.

    Of what is being written to, about.
    """
    files = _files(*folders)
    for file in _files(besides) if besides else ():
        files.pop(file, None)
    return sum(files.values())


def _files(*folders: Path) -> dict[tuple[int, int], int]:
    """The bytes of each file, known by its disk and its number there; through no link."""
    found = {}
    for folder in folders:
        for place, _, names in os.walk(folder) if is_folder(folder) else ():
            for name in names:
                with suppress(FileNotFoundError):
                    stat = os.lstat(f"{place}/{name}")
                    found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return found


def refuse_full(place: Path, need: int) -> None:
    """Raises Full where so many bytes are not free."""
    left = free(place)
    if left < need:
        raise Full(
            f"Checkpoints, previews and the model need about {need / 1e6:.0f} MB of disk, and {left / 1e6:.0f} MB are free.",
            f"Make room on the disk of {place}, for instance by deleting old jobs, or take a smaller network.",
        )


def is_full(error: BaseException, place: Path) -> bool:
    """Whether an error came of a full disk. Frameworks raise what they like then, so that what is free decides, too."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, Full) or (isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT)):
            return True
        chain = chain.__cause__ or chain.__context__
    return free(place) < LEAST


def full(place: Path) -> Full:
    cause = f"The disk is full: {place.name} could not be written whole."
    return Full(cause, f"Make room on the disk of {place.parent}, then resume or try again: what was there before is intact.")
