"""Room on the disk: what a training takes of it, what is free, and that there is none left, said plainly whoever noticed it."""

import errno
import shutil
from pathlib import Path

from contracts.errors import Full
from contracts.hyperparameters import Hyperparameters
from contracts.networks import Network

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


def needed(network: Network, settings: Hyperparameters) -> int:
    """Bytes of disk that a training takes."""
    scorings = -(-settings.epochs // settings.validate_every)
    return round(network.parameters * 4e6 * (STATES * CHECKPOINTS + MODELS)) + SHEET * scorings + BESIDES


def free(place: Path) -> int:
    """Bytes that can be written where a folder lies, or will."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def taken(folder: Path) -> int:
    """Bytes of all files of a folder. Of one that is being written to, about."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
