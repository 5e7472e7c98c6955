"""Follow a job in a terminal: a bar, the figures of each epoch, and an end that a script can read."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.job import EpochScores, JobView
from docker_sdk_api.jobs import GRACE, Jobs

LOOK = 0.5


def follow(jobs: Jobs, name: str, console: Console) -> JobView:
    """Show a job until it has ended. Ctrl-C asks it to stop; a second one ends it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None, figures="")
        asked = False
        shown = 0
        while True:
            try:
                view = jobs.view(name)
                shown = _show(view, bar, task, shown)
                if view.status.ended_already:
                    return view
                time.sleep(LOOK)
            except KeyboardInterrupt:
                if asked:
                    jobs.launcher.stop(name, GRACE)
                asked = True
                jobs.stop(name, keep_best=True)
                bar.console.print("Stopping, and keeping the best model so far. Ctrl-C again ends it at once.")


def _show(view: JobView, bar: Progress, task: Any, shown: int) -> int:
    status = view.status
    done = max(0, status.epoch - 1) * status.steps + status.step if status.steps else 0
    loss = "" if status.loss is None else f"epoch {status.epoch}/{status.epochs} loss {status.loss:.3f}"
    bar.update(
        task, total=status.epochs * status.steps or None, completed=done, description=f"{view.job.name}: {status.stage}", figures=loss
    )
    for scores in status.history[shown:]:
        bar.console.print(_line(scores), highlight=False)
    return len(status.history)


def _line(scores: EpochScores) -> str:
    mean_iou = "" if scores.mean_iou is None else f"  mIoU {scores.mean_iou:.3f}{'  best' if scores.best else ''}"
    return f"epoch {scores.epoch:>3}  loss {scores.loss:.4f}{mean_iou}"


def figures_of(view: JobView) -> dict[str, Any]:
    """The job in figures: what `maskwright train --json` ends with."""
    status, best = view.status, view.status.best
    seconds = (status.ended - view.job.created).total_seconds() if status.ended else None
    return {
        "job": view.job.name,
        "model": view.job.name if status.state == "finished" else None,
        "mean_iou": best.mean_iou if best else None,
        "pixel_accuracy": best.pixel_accuracy if best else None,
        "iou_per_class": best.iou_per_class if best else {},
        "epochs": len(status.history),
        "seconds": seconds,
    }
