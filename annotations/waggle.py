"""From a Waggle folder to a run: what is asked, the run that it may go on with, and its pictures as a dataset."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from annotations.formats import Choices, Source
from annotations.importing import import_dataset
from contracts.errors import Invalid, NotFound
from contracts.job_folder import JobFolder
from contracts.waggle import ImageType, WaggleRun, below, read_waggle_config


def open_run(folder: Path, config: str, image_type: ImageType) -> WaggleRun:
    """The run that a folder and its config.list ask for. `config`: a file of the folder, or any by its full path.

    Raises NotFound or Invalid with what is missing or wrong.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.", "Give the folder that holds images/, labels/ and config.list.")
    if not os.access(folder, os.W_OK):
        raise Invalid(f"The folder {folder} cannot be written, and results go into it.", "Make it yours, or run this as its owner.")
    file = Path(config) if Path(config).is_file() and Path(config).is_absolute() else below(folder, config)
    run = WaggleRun(folder=folder, config_file=file, config=read_waggle_config(folder, file), image_type=image_type)
    _ = run.pretrained  # that it is there
    return run


def find_run(checkpoints: Path, run: WaggleRun, seed: int) -> JobFolder | None:
    """The newest job that was asked for the very same run and has no model yet: the one to go on with. None: a new one is due.

    Raises Invalid where the run has been trained to its end.
    """
    folders = [folder for path in checkpoints.iterdir() if path.is_dir() and (folder := JobFolder(path)).exists()]
    jobs = [(folder.job(), folder) for folder in folders]
    same = [(job.created, folder) for job, folder in jobs if job.waggle == run and job.seed == seed]
    if not same:
        return None
    newest = max(same, key=lambda pair: pair[0])[1]
    status = newest.status()
    if status.state != "finished":
        return newest
    if run.config.mode == "train" and status.epoch >= run.config.rounds:
        cure = "Raise max_iteration to go on from there, or choose another output_dir to begin anew."
        raise Invalid(f"{run.output.name} is finished: the job {newest.name} has its model.", cure)
    return None


def propose_name(checkpoints: Path, datasets: Path, run: WaggleRun) -> str:
    """The first free name, for the job and for its dataset, made of those of the folder and of its output."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{run.folder.name}-{run.config.output_dir}").strip("-._")[:58] or "waggle"
    number = 1
    name = words
    while (checkpoints / name).exists() or (datasets / name).exists():
        number += 1
        name = f"{words}-{number}"
    return name


def import_run(run: WaggleRun, destination: Path, progress: Callable[[int, int], None]) -> Source:
    """The folder's pictures as a dataset of the product, labels read as the run's image type says. The folder stays as it is."""
    found = import_dataset(run.folder, destination, "waggle", Choices(image_type=run.image_type), progress)
    if len(found.items) < 2:
        raise Invalid(f"{run.folder.name} holds one labelled picture.", "Bring two at least: one to learn from, one to score.")
    return found
