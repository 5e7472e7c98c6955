"""Jobs against one another: their curves, the settings that differ, results per class, the same validation pictures side by side."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from contracts.job import EpochScores, JobView
from gui.backend import Asks
from gui.figures import duration, score, setting, share
from gui.pages import page

router = APIRouter(prefix="/compare", include_in_schema=False)
MOST = 6
"""More lines and columns than this nobody can tell apart."""


@router.get("", name="compare")
async def compare(request: Request, backend: Asks, job: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:
    names = list(dict.fromkeys(job or []))
    views = [await backend.job(name) for name in names[:MOST]]
    others = [] if len(views) > 1 else await backend.jobs(limit=20)
    context: dict[str, Any] = {
        "views": views,
        "left_out": names[MOST:],
        "others": others,
        "rows": different_settings(views),
        "alike": alike_settings(views),
        "results": result_rows(views),
        "classes": shared_classes(views),
        "pictures": same_pictures(views),
        "live": [curves_of(view) for view in views],
    }
    return page(request, "compare.html", context)


def settings_of(view: JobView) -> dict[str, str]:
    """All that a job was asked for, as it is typed, by name."""
    job = view.job
    facts = {
        "dataset": job.dataset,
        "dataset version": job.dataset_fingerprint[:12] or "–",
        "engine": job.engine,
        "network": job.network,
        "backbone": job.backbone,
        "weights": job.weights.replace("_", " ") + (f" ({job.weights_from})" if job.weights_from else ""),
        "runs on": f"GPU {', '.join(map(str, job.gpus))}" if job.gpus else "CPU",
        "processes": setting(job.together),
        "kept aside": share(job.validation_share),
        "seed": setting(job.seed),
    }
    return facts | {name.replace("_", " "): setting(value) for name, value in job.hyperparameters.model_dump().items()}


def different_settings(views: list[JobView]) -> list[tuple[str, list[str]]]:
    """Name and each job's value, of the settings that are not the same in all."""
    return [row for row in _settings(views) if len(set(row[1])) > 1]


def alike_settings(views: list[JobView]) -> list[tuple[str, str]]:
    return [(name, values[0]) for name, values in _settings(views) if len(set(values)) == 1]


def _settings(views: list[JobView]) -> list[tuple[str, list[str]]]:
    asked = [settings_of(view) for view in views]
    return [(name, [row[name] for row in asked]) for name in asked[0]] if asked else []


def result_rows(views: list[JobView]) -> list[dict[str, Any]]:
    """What came out, a row a figure: text for every job, and the places of the best ones."""
    bests = [view.status.best for view in views]
    rows = [
        _row("mIoU", [best.mean_iou if best else None for best in bests], score),
        _row("pixels right", [best.pixel_accuracy if best else None for best in bests], share),
    ]
    for name in shared_classes(views):
        rows.append(_row(name, [best.iou_per_class.get(name) if best else None for best in bests], score, kind="class"))
    if any(view.status.test for view in views):
        rows.append(_row("mIoU of the test pictures", [view.status.test.mean_iou if view.status.test else None for view in views], score))
    rows.append(_row("best epoch", [float(best.epoch) if best else None for best in bests], lambda value: _whole(value), best="none"))
    rows.append(_row("time until then", [_seconds(view, view.status.best) for view in views], duration, best="least"))
    return rows


def _row(name: str, values: list[float | None], text: Any, best: str = "most", kind: str = "") -> dict[str, Any]:
    known = [value for value in values if value is not None]
    top = None if best == "none" or len(set(known)) < 2 else min(known) if best == "least" else max(known)
    return {
        "name": name,
        "kind": kind,
        "texts": [text(value) for value in values],
        "best": [value is not None and value == top for value in values],
    }


def _whole(value: float | None) -> str:
    return "–" if value is None else str(int(value))


def _seconds(view: JobView, best: EpochScores | None) -> float | None:
    """Seconds of learning and scoring up to and with the best epoch."""
    return sum(scores.seconds for scores in view.status.history if scores.epoch <= best.epoch) if best else None


def shared_classes(views: list[JobView]) -> list[str]:
    """The classes of the first job and then those that only others have, in the order of their ids."""
    names = [name for view in views for scores in view.status.history[:1] for name in scores.iou_per_class]
    late = [name for view in views for name in (view.status.best.iou_per_class if view.status.best else {})]
    return list(dict.fromkeys([*names, *late]))


def same_pictures(views: list[JobView]) -> list[dict[str, Any]]:
    """Validation pictures that every job shows: the stem, and for each job the number of its picture and the file of its best epoch."""
    if len(views) < 2 or len({view.job.dataset for view in views}) > 1:
        return []
    rows = []
    for stem in views[0].status.pictures:
        if all(stem in view.status.pictures for view in views):
            places = [view.status.pictures.index(stem) for view in views]
            files = [f"{_best_sheet(view)}-{place}.png" for view, place in zip(views, places, strict=True)]
            rows.append({"stem": stem, "place": places[0], "files": files})
    return rows


def _best_sheet(view: JobView) -> str:
    """The name of the best epoch's sheet without its ending; the last one's where the best has none."""
    wanted = f"epoch-{view.status.best.epoch:04d}.jpg" if view.status.best else ""
    file = wanted if wanted in view.status.previews else view.status.previews[-1]
    return file.removesuffix(".jpg")


def curves_of(view: JobView) -> dict[str, Any]:
    """What the curves are drawn from."""
    keep = {"epoch", "loss", "seconds", "mean_iou", "pixel_accuracy", "iou_per_class"}
    history = [scores.model_dump(mode="json", include=keep) for scores in view.status.history]
    best = view.status.best
    return {"name": view.job.name, "history": history, "best": best.model_dump(mode="json", include=keep) if best else None}
