"""The container's entry point: docker run … -v FOLDER:/storage maskwright_waggle --config config.list --image_type waggle_cloud

Reads the folder, writes the job down, and runs the training job's own process, as docker_sdk_api does elsewhere.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import torch

from annotations.waggle import find_run, import_run, open_run, propose_name
from contracts.errors import NotFound, Problem
from contracts.events import Resumed, now
from contracts.hyperparameters import read_hyperparameters
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.networks import find_network
from contracts.waggle import CONFIG_FILE, MOUNTS, ImageType, WaggleRun, unknown_keys

CHECKPOINTS = Path("/checkpoints")
DATASETS = Path(tempfile.gettempdir()) / "maskwright"
"""The pictures as a dataset: made anew in every container, under the same path."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="waggle", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=CONFIG_FILE, help="the settings: a file of the folder")
    parser.add_argument("--image_type", required=True, choices=get_args(ImageType), help="what the labels hold")
    parser.add_argument("--seed", type=_seed, default=0, metavar="SEED", help="from 0: the same one gives the same training")
    parser.add_argument("--storage", type=Path, help=f"the folder, where it is mounted neither at {' nor at '.join(MOUNTS)}")
    parser.add_argument(
        "--checkpoints", type=Path, help=f"where the job goes: {CHECKPOINTS} where that is mounted, else checkpoints/ in it"
    )
    wish = parser.parse_args()
    try:
        storage = wish.storage or _mounted()
        checkpoints = wish.checkpoints or (CHECKPOINTS if CHECKPOINTS.is_dir() else storage / "checkpoints")
        return _run(_job(open_run(storage.resolve(), wish.config, wish.image_type), checkpoints, wish.seed))
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 2


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**31:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {2**31 - 1}, not {seed}")
    return seed


def _mounted() -> Path:
    for mount in map(Path, MOUNTS):
        if mount.is_dir():
            return mount
    raise NotFound(f"Nothing is mounted at {' or '.join(MOUNTS)}.", f"Start the container with -v FOLDER:{MOUNTS[0]}.")


def _job(run: WaggleRun, checkpoints: Path, seed: int) -> JobFolder:
    """The job's folder, with its dataset: the one that broke off, or a new one."""
    if unknown := unknown_keys(run.config_file.parent, run.config_file):
        print(f"{run.config_file.name}: {', '.join(unknown)} mean nothing here")
    checkpoints.mkdir(parents=True, exist_ok=True)
    folder = find_run(checkpoints, run, seed)
    if folder is not None:
        print(f"going on with the job {folder.name}")
        folder.stop_file.unlink(missing_ok=True)
        folder.add_event(Resumed())
    else:
        folder = JobFolder(checkpoints / propose_name(checkpoints, DATASETS, run))
    dataset = DATASETS / folder.name
    if not dataset.exists():
        for note in import_run(run, dataset, lambda _done, _total: None).notes:
            print(note)
    if not folder.exists():
        folder.path.mkdir()
        folder.write_job(_ask(run, folder.name, dataset, seed))
    return folder


def _ask(run: WaggleRun, name: str, dataset: Path, seed: int) -> Job:
    network, backbone = run.config.network
    row = find_network("pytorch", network, backbone)
    settings = read_hyperparameters(run.config.hyperparameters(), row.defaults)
    named = {"name": name, "dataset": name, "engine": row.engine, "network": network, "backbone": backbone}
    gpus = [0] if torch.cuda.is_available() else []
    return Job(**named, seed=seed, gpus=gpus, hyperparameters=settings, dataset_folder=dataset, created=now(), waggle=run)


def _run(folder: JobFolder) -> int:
    """The training, its words both to the terminal and to train.log. Whoever stops the container stops it too."""
    command = [sys.executable, "-u", "-m", "training_api", str(folder.path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job,
        open(folder.log_file, "a", buffering=1) as log,
    ):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: job.terminate())
        assert job.stdout is not None
        for line in job.stdout:
            print(line, end="", flush=True)
            log.write(line)
    return abs(job.returncode)


if __name__ == "__main__":
    sys.exit(main())
