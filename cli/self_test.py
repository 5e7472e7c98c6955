"""`maskwright self-test`: a tiny model from the dummy dataset to a mask, each step said as it is done, and nothing left behind."""

import time

from rich.console import Console

from annotations.dataset import open_dataset, read_picture
from annotations.split import Split
from contracts.answers import Step
from contracts.errors import Problem
from contracts.job_folder import JobFolder
from docker_sdk_api.jobs import GRACE, Jobs
from docker_sdk_api.self_test import start_self_test, steps_of
from inference_api.store import load_model

LOOK = 0.5


def self_test(jobs: Jobs, engine: str, keep: bool, console: Console) -> bool:
    """Whether every step went well. Raises Problem where the job cannot even be started."""
    name = start_self_test(jobs, engine).job.name
    try:
        steps = _follow(jobs, name, console)
        if all(step.state == "good" for step in steps):
            steps.append(_serve(JobFolder(jobs.settings.checkpoints / name)))
            _say(steps[-1])
        return all(step.state == "good" for step in steps)
    finally:
        if not keep:
            jobs.launcher.stop(name, GRACE)
            jobs.deleted.remove(jobs.delete(name).id)


def _follow(jobs: Jobs, name: str, console: Console) -> list[Step]:
    """Say each step once it is done; the steps at the end of the job."""
    said = 0
    with console.status("Starting") as bar:
        while True:
            ended = jobs.status(name).ended_already  # before the steps: what they say is then final
            steps = steps_of(jobs, name)
            while said < len(steps) and steps[said].state in ("good", "failed"):
                _say(steps[said])
                said += 1
            if ended or any(step.state == "failed" for step in steps):
                return steps
            bar.update(f"{steps[said].title}: {steps[said].said}" if said < len(steps) else "")
            time.sleep(LOOK)


def _serve(folder: JobFolder) -> Step:
    """Ask the model about a picture that it has not learnt from, with the code that serves it."""
    try:
        loaded = load_model(folder.model)
        stem = Split.model_validate_json(folder.split_file.read_bytes()).validation[0]
        pixels = read_picture(open_dataset(folder.job().dataset_folder).pair(stem).picture)
        before = time.perf_counter()
        height, width = loaded.read(pixels).mask.shape
    except Problem as problem:
        return Step(title="Serving", state="failed", said=problem.cause, cure=problem.cure)
    seconds = time.perf_counter() - before
    return Step(title="Serving", state="good", said=f"A mask of {width} × {height} pixels after {seconds:.2f} s, by {loaded.runtime}.")


def _say(step: Step) -> None:
    print(f"{'✓' if step.state == 'good' else '✗'} {step.title}: {step.said} {step.cure}".rstrip(), flush=True)
