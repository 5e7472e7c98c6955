"""What a job's network starts from: the five types of contracts/weights.py, from the job's wish to a file that an engine takes in.

`python -m training_api.weights --list` says where every file can be had; `--bake networks.json --to FOLDER` fetches those that
networks.json selects, for an image or a machine without internet.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contracts.errors import Invalid, Problem
from contracts.events import Stage, Warned
from contracts.job import Job
from contracts.job_folder import JobFolder, write_aside
from contracts.model import MODEL_FILE, read_model
from contracts.networks import CATALOGUE, Network, find_network
from contracts.weights import CHECKPOINT_FILES, CLASSIFIER_FILES, licence_of, read_classifier, same_backbone
from training_api.downloads import Places, Source, fetch, require
from training_api.engines import FROM_SCRATCH, Start
from training_api.figures import Events

MODULES = {"pytorch": "training_api.engines.pytorch_weights", "gluon": "training_api.engines.gluon_weights"}
MB = 10**6


class Roots(BaseModel):
    """weights.json: where the first weights of a job came from, for its model card."""

    name: str = ""
    licence: str = "none: trained from scratch"
    file: str = ""
    sha256: str = ""


class Halted(Exception):
    """Somebody asked the job to stop while its weights were being fetched."""


def read_roots(folder: JobFolder) -> Roots:
    return Roots.model_validate_json(folder.weights_file.read_bytes()) if folder.weights_file.exists() else Roots()


def prepare_start(folder: JobFolder, job: Job, classes: list[str], events: Events) -> Start:
    """What a new job starts from, fetched where it has to be; weights.json says so afterwards.

    Raises Invalid or Unavailable with what is missing and where it can be had, Halted where the job was asked to stop.
    """
    if job.weights == "from_scratch":
        return FROM_SCRATCH
    row = find_network(job.engine, job.network, job.backbone)
    if job.weights == "pre_trained_classifier":
        start, roots = _classifier(job, row)
    elif job.weights == "from_checkpoint":
        start, roots = _checkpoint(job, classes, events)
    else:
        start, roots = _pre_trained(folder, job, row, events)
    write_aside(folder.weights_file, roots.model_dump_json(indent=1))
    print(f"starting from {roots.name}, {start.part}, licence: {roots.licence}")
    return start


def sources_of(row: Network) -> list[Source]:
    """Every file of pre-trained weights of a row of the catalogue, as its engine's packages name them; the first is the usual one."""
    if not licence_of(row):
        return []
    module: Any = importlib.import_module(MODULES[row.engine])
    return list(module.sources_of(row))


def _pre_trained(folder: JobFolder, job: Job, row: Network, events: Events) -> tuple[Start, Roots]:
    sources = sources_of(row)
    source = next((source for source in sources if job.weights_from in ("", source.name)), None)
    if source is None:
        known = ", ".join(source.name for source in sources) or "none"
        raise Invalid(f"There are no pre-trained weights “{job.weights_from}” for {row.key}.", f"There are: {known}.")
    places = Places.of_environment()
    if job.weights == "pre_trained_offline":
        found = require(source, places)
    else:
        found = fetch(source, places, Fetching(source.name, folder, events))
    if not found.checked:
        events.say(Warned(message=f"Nothing is known to check {found.path.name} with: take care where it came from."))
    start = Start(found.path, source.name, "network" if source.whole else "backbone")
    return start, Roots(name=source.name, licence=source.licence, file=found.path.name, sha256=found.sha256)


class Fetching:
    """Tells how far a download is, as an event once a second and a line of the log every five."""

    def __init__(self, name: str, folder: JobFolder, events: Events) -> None:
        self.name, self.folder, self.events = name, folder, events
        self._said = self._printed = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= 1 or done == total:
            self._said = now
            size = f", {done / MB:.0f} of {total / MB:.0f} MB" if total else f", {done / MB:.0f} MB" if done else ""
            self.events.say(Stage(state="starting", stage=f"fetching {self.name} weights{size}"))
            if now - self._printed >= 5 or done == total:
                self._printed = now
                print(f"fetching {self.name} weights{size}", flush=True)
            if self.folder.asked_to_stop():
                raise Halted


def _classifier(job: Job, row: Network) -> tuple[Start, Roots]:
    folder = _folder(job)
    known = read_classifier(folder)
    if not same_backbone(known.network, row.backbone):
        raise Invalid(
            f"The classifier “{folder.name}” is a {known.network}, and {row.key} needs a {row.backbone}.",
            "Choose another classifier, or a network on its backbone.",
        )
    file = _first(folder, CLASSIFIER_FILES[job.engine], f"The classifier “{folder.name}”")
    licence = known.licence or f"that of the classifier {folder.name}, which does not say"
    return Start(file, folder.name, "backbone"), Roots(name=folder.name, licence=licence, file=file.name)


def _checkpoint(job: Job, classes: list[str], events: Events) -> tuple[Start, Roots]:
    earlier = JobFolder(_folder(job))
    file = _first(earlier.path, CHECKPOINT_FILES[job.engine], f"The job “{earlier.name}”")
    former = _classes_of(earlier)
    if former != classes:
        names = f"{', '.join(former)}, and are now {', '.join(classes)}" if former else "not known"
        message = f"The classes of “{earlier.name}” were {names}: its head was replaced by a new one, which starts from random numbers."
        events.say(Warned(message=message))
        print(message)
    roots = read_roots(earlier)
    licence = roots.licence if roots.name else f"that of {earlier.name}, which was trained from scratch"
    return Start(file, earlier.name, "network", former == classes), Roots(name=earlier.name, licence=licence, file=file.name)


def _folder(job: Job) -> Path:
    if job.weights_folder is None or not job.weights_folder.is_dir():
        raise Invalid(f"“{job.weights_from}”, which this job should start from, is gone.", "Choose another one.")
    return job.weights_folder


def _first(folder: Path, files: tuple[str, ...], whose: str) -> Path:
    for name in files:
        if (folder / name).is_file():
            return folder / name
    raise Invalid(f"{whose} has no weights that this engine reads.", f"It needs one of: {', '.join(files)}.")


def _classes_of(earlier: JobFolder) -> list[str]:
    """The classes of an earlier job in the order of their ids; [] where nothing says."""
    if (earlier.model / MODEL_FILE).is_file():
        return read_model(earlier.model).classes
    best = earlier.status().best
    return list(best.iou_per_class) if best else []


def bake(selection: Path, to: Path, engine: str) -> None:
    """Fetch what a networks.json selects: {"select_all": false, "networks": {"pytorch/unet/resnet18": true, …}}."""
    chosen = json.loads(selection.read_bytes())
    keys = {row.key for row in CATALOGUE}
    unknown = sorted(set(chosen["networks"]) - keys)
    if unknown:
        raise Invalid(f"{selection.name} names {', '.join(unknown)}, which is not in the catalogue.", "See docs/networks.md for the names.")
    places = Places(to, base=Places.of_environment().base)
    for row in (row for row in CATALOGUE if row.engine == engine):
        if chosen["select_all"] or chosen["networks"].get(row.key):
            for source in sources_of(row):
                print(f"{row.key}: {fetch(source, places, lambda *_: None).path.name}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training_api.weights", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=sorted(MODULES), default="pytorch")
    parser.add_argument("--list", action="store_true", help="every file of pre-trained weights and where it can be had")
    parser.add_argument("--bake", type=Path, metavar="NETWORKS_JSON", help="fetch what this file selects")
    parser.add_argument("--to", type=Path, default=Places.of_environment().cache, metavar="FOLDER")
    wish = parser.parse_args()
    try:
        if wish.bake:
            bake(wish.bake, wish.to, wish.engine)
        else:
            for row in (row for row in CATALOGUE if row.engine == wish.engine):
                for source in sources_of(row):
                    print(f"{row.key}\t{source.file}\t{source.address}\t{source.licence}")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
