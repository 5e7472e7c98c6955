"""The wizard: dataset, settings, hyper-parameters, review. Each step is a page whose form asks for the next one, or for one before.

A step that is reached with something missing or out of range shows the earlier step again, the fault at its field.
"""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.answers import Forecast
from contracts.errors import Invalid, NotFound, Problem, Unavailable
from contracts.hyperparameters import Hyperparameters
from contracts.job import JobRequest
from gui import forms
from gui.answers import Checking, DatasetReport
from gui.backend import Asks, Backend
from gui.choice import ORDERS, STEP_OF, WEIGHT_TITLES, Choice, find, look, network_groups, setting_rows
from gui.datasets import class_rows
from gui.equivalents import call_for, command_for
from gui.figures import setting
from gui.findings import group_findings
from gui.forms import Draft, read_draft
from gui.pages import page, path_to

__all__ = ["find", "router", "sheet_settings"]
router = APIRouter(include_in_schema=False)
SAMPLES = 6
SHEET = 12
SHOWN_BY_CROPS = ("short_side", "crop", "augment", "rare_class_share", "turns")
"""Settings that change what a crop looks like."""
REFUSED = 422


@router.get("/wizard", name="wizard")
async def wizard(request: Request, backend: Asks, clone: str = "") -> Response:
    """The first step; with `clone`, the last one, filled with what a former job was asked for."""
    if not clone:
        return RedirectResponse(path_to(request, "train", request.query_params.multi_items()), status_code=303)
    job = (await backend.job(clone)).job
    network = find(await backend.networks(), f"{job.engine}/{job.network}/{job.backbone}")
    if job.waggle or job.imported or network is None:
        kinds = {"it is a run of a Waggle folder": bool(job.waggle), "its model was brought along": job.imported}
        what = next((words for words, so in kinds.items() if so), f"there is no network {job.engine}/{job.network}/{job.backbone} any more")
        raise Invalid(f"The job {clone} cannot be cloned: {what}.", "Start a new training, and choose its settings there.")
    return RedirectResponse(path_to(request, "train_review", forms.draft_of(job, network.defaults).pairs()), status_code=303)


@router.get("/train", name="train")
async def choose_dataset(request: Request, backend: Asks) -> HTMLResponse:
    draft = read_draft(request.query_params.multi_items())
    if (draft.settings or draft.name) and (report := await _sound_dataset(backend, draft)):
        known = (await look(backend, draft, report)).draft
        draft = replace(draft, name=known.name, settings=known.settings)  # what is only recommended or proposed follows the dataset
    return await _dataset_step(request, backend, draft)


@router.get("/train/settings", name="train_settings")
async def choose_settings(request: Request, backend: Asks) -> HTMLResponse:
    return await _step(request, backend, 2)


@router.get("/train/hyperparameters", name="train_hyperparameters")
async def choose_hyperparameters(request: Request, backend: Asks) -> HTMLResponse:
    return await _step(request, backend, 3)


@router.get("/train/review", name="train_review")
async def review(request: Request, backend: Asks) -> HTMLResponse:
    return await _step(request, backend, 4)


@router.post("/train", name="train_start")
async def start(request: Request, backend: Asks) -> Response:
    form = await request.form()
    draft = read_draft((name, value) for name, value in form.multi_items() if isinstance(value, str))
    report = await _sound_dataset(backend, draft)
    choice = await look(backend, draft, report) if report else None
    if choice is None or choice.network is None or choice.complete is None or choice.forecast is None:
        return await _go(request, backend, draft, report, choice, 4)
    if choice.name_fault or choice.forecast.obstacles:
        return await _review_step(request, backend, choice)
    try:
        view = await backend.start_job(forms.as_request(replace(choice.draft, name=choice.name), choice.network, choice.complete))
    except Unavailable:
        raise
    except Problem as problem:
        return await _review_step(request, backend, choice, problem)
    return RedirectResponse(path_to(request, "job", name=view.job.name), status_code=303)


async def _step(request: Request, backend: Backend, step: int) -> HTMLResponse:
    draft = read_draft(request.query_params.multi_items())
    report = await _sound_dataset(backend, draft)
    choice = await look(backend, draft, report, propose=step == 2) if report else None
    return await _go(request, backend, draft, report, choice, step)


async def _go(
    request: Request, backend: Backend, draft: Draft, report: DatasetReport | None, choice: Choice | None, step: int
) -> HTMLResponse:
    """The page of a step, or of the first step before it that lacks something."""
    if report is None or choice is None:
        fault = "Choose a dataset that can be trained on." if draft.dataset else "Choose a dataset."
        return await _dataset_step(request, backend, draft, fault)
    if forms.split_faults(draft):
        return await _dataset_step(request, backend, choice.draft, refused=True)
    if step == 2:
        return await _settings_step(request, backend, choice)
    if choice.faults or choice.network is None or (step == 3 and choice.name_fault):
        proposed = choice if choice.network else await look(backend, draft, report, propose=True)
        return await _settings_step(request, backend, proposed, choice.faults)
    if step == 3 or choice.complete is None:
        return _hyperparameters_step(request, choice, refused=step == 4)
    return await _review_step(request, backend, choice)


async def _sound_dataset(backend: Backend, draft: Draft) -> DatasetReport | None:
    try:
        report = await backend.checked(draft.dataset) if draft.dataset else None
    except NotFound:
        return None
    return None if report is None or isinstance(report, Checking) or report.errors else report


async def _dataset_step(request: Request, backend: Backend, draft: Draft, fault: str = "", refused: bool = False) -> HTMLResponse:
    rows = await backend.datasets()
    chosen = draft.dataset or next((row.name for row in rows if not row.error), "")
    found = await backend.checked(chosen) if chosen in {row.name for row in rows} else None
    report = None if isinstance(found, Checking) else found
    draft, faults = replace(draft, dataset=chosen), forms.split_faults(draft)
    sound = report is not None and not report.errors and not faults
    forecast = await _split_forecast(backend, draft) if sound else None
    drawn = forecast is not None and not any(remark.field == "dataset" for remark in forecast.obstacles)
    context = {
        "step": 1,
        "checking": found if isinstance(found, Checking) else None,
        "draft": draft,
        "datasets": rows,
        "report": report,
        "classes": class_rows(report) if report else [],
        "groups": group_findings(report) if report else [],
        "samples": report.stems[:SAMPLES] if report else [],
        "split": await _split(backend, draft) if drawn else None,
        "forecast": forecast,
        "sides": {row.name: row for row in forecast.classes} if forecast else {},
        "fault": fault,
        "faults": faults,
    }
    return page(request, "wizard_dataset.html", context, REFUSED if fault or refused else 200)


async def _settings_step(request: Request, backend: Backend, choice: Choice, faults: dict[str, str] | None = None) -> HTMLResponse:
    draft, advice, order = choice.draft, choice.advice, request.query_params.get("order", "")
    best = find(choice.networks, advice.network) if advice else None
    context: dict[str, Any] = {
        "step": 2,
        "draft": draft,
        "choice": choice,
        "network": choice.network,
        "best": best,
        "groups": network_groups(choice, order),
        "orders": ORDERS,
        "order": order,
        "machine": choice.machine,
        "weights": choice.weights,
        "weight_titles": WEIGHT_TITLES,
        "chosen_weights": draft.weights or "from_scratch",
        "split": await _split(backend, draft),
        "faults": {**choice.troubles, **choice.faults, **({"name": choice.name_fault} if choice.name_fault else {}), **(faults or {})},
    }
    return page(request, "wizard_settings.html", context, 200 if faults is None else REFUSED)


def _hyperparameters_step(request: Request, choice: Choice, refused: bool) -> HTMLResponse:
    assert choice.network is not None
    rows, complete, preset = setting_rows(choice.network), choice.complete, choice.preset
    shown = {row["name"] for row in rows}
    context = {
        "step": 3,
        "draft": choice.draft,
        "choice": choice,
        "network": choice.network,
        "rows": rows,
        "values": {name: choice.draft.settings.get(name, value) for name, value in preset.items()},
        "recommended": {name: row for name, row in choice.recommended.items() if name in shown},
        "faults": {**choice.troubles, **forms.read_settings(choice.draft, preset)[1]},
        "complete": complete,
        "shown_by": sheet_settings(complete) if complete else [],
    }
    return page(request, "wizard_hyperparameters.html", context, REFUSED if refused else 200)


async def _review_step(request: Request, backend: Backend, choice: Choice, problem: Problem | None = None) -> HTMLResponse:
    network, complete, draft = choice.network, choice.complete, choice.draft
    assert network is not None
    assert complete is not None
    values = complete.model_dump()
    asked = forms.as_request(replace(draft, name="name" if choice.name_fault else choice.name), network, complete)
    obstacles = choice.forecast.obstacles if choice.forecast else []
    context = {
        "step": 4,
        "draft": draft,
        "sent": replace(draft, settings={name: setting(value) for name, value in values.items()}),
        "choice": choice,
        "network": network,
        "weight_titles": WEIGHT_TITLES,
        "split": await _split(backend, draft),
        "complete": values,
        "asked": asked,
        "obstacles": [(remark, STEP_OF.get(remark.field, 3)) for remark in obstacles],
        "command": command_for(asked),
        "call": call_for(asked, request.app.state.settings.shown_url),
        "faults": {"name": choice.name_fault} if choice.name_fault else {},
        "problem": problem,
    }
    refused = choice.name_fault or obstacles
    return page(request, "wizard_review.html", context, problem.status if problem else REFUSED if refused else 200)


async def _split(backend: Backend, draft: Draft) -> dict[str, list[str]] | None:
    """Which pictures teach and which score; None where the first step's fields do not say."""
    if forms.split_faults(draft):
        return None
    return await backend.split(draft.dataset, float(draft.validation) / 100, int(draft.seed))


async def _split_forecast(backend: Backend, draft: Draft) -> Forecast:
    """What can be said of a dataset and its split before a network is chosen."""
    none = {"engine": "majority", "network": "majority", "backbone": "none"}
    shares = {"validation_share": float(draft.validation) / 100, "seed": int(draft.seed)}
    found = await backend.forecast(JobRequest(name="name", dataset=draft.dataset, **none, **shares))
    return found.model_copy(update={"obstacles": [remark for remark in found.obstacles if STEP_OF.get(remark.field) == 1]})


def sheet_settings(complete: Hyperparameters) -> list[tuple[str, str]]:
    """What the contact sheet of crops is drawn with; it stays as it is while other settings change."""
    return [("count", str(SHEET)), ("seed", "0"), *((name, setting(getattr(complete, name))) for name in SHOWN_BY_CROPS)]
