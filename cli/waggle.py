"""`maskwright waggle`: a folder of the Waggle FCN plugin, trained as its users know it, as a job of the product."""

import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from annotations.waggle import find_run, import_run, open_run, propose_name
from contracts.errors import Invalid, Taken
from contracts.job import JobRequest
from contracts.waggle import ImageType, WaggleRun, unknown_keys
from docker_sdk_api.jobs import Jobs


def start_waggle(jobs: Jobs, folder: Path, config: str, image_type: ImageType, seed: int, gpus: list[int], console: Console) -> str:
    """Start the run that the folder asks for, or go on with one that was broken off. Gives the job's name."""
    run = open_run(folder, config, image_type)
    if unknown := unknown_keys(run.config_file.parent, run.config_file):
        console.print(f"{run.config_file.name}: {', '.join(unknown)} mean nothing here", style="yellow", highlight=False)
    _refuse_running(jobs, run)
    earlier = find_run(jobs.settings.checkpoints, run, seed)
    if earlier is not None:
        console.print(f"Going on with the job {earlier.name}", highlight=False)
        jobs.resume(earlier.name)
        return earlier.name
    return _start(jobs, run, seed, gpus, console)


def _refuse_running(jobs: Jobs, run: WaggleRun) -> None:
    """Two jobs must not write into one output folder."""
    for name in jobs.names():
        waggle = jobs.folder(name).job().waggle
        if waggle and waggle.output == run.output and not jobs.status(name).ended_already:
            cure = "Wait for its end, stop it, or choose another output_dir."
            raise Taken(f"The job “{name}” writes into {run.output.name} already.", cure)


def _start(jobs: Jobs, run: WaggleRun, seed: int, gpus: list[int], console: Console) -> str:
    if len(gpus) > 1:
        raise Invalid("A Waggle run learns on one GPU.", "Give --gpu once.")
    datasets = jobs.settings.datasets.resolve()
    datasets.mkdir(parents=True, exist_ok=True)
    name = propose_name(jobs.settings.checkpoints, datasets, run)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)
        found = import_run(run, datasets / name, lambda done, total: bar.update(task, completed=done, total=total))
    for note in found.notes:
        console.print(note, highlight=False)
    network, backbone = run.config.network
    request = JobRequest(
        name=name, dataset=name, network=network, backbone=backbone, gpus=gpus, seed=seed, hyperparameters=run.config.hyperparameters()
    )
    try:
        jobs.start(request, datasets / name, run)
    except BaseException:
        shutil.rmtree(datasets / name)
        raise
    console.print(f"The job {name} writes into {run.output}", highlight=False)
    return name
