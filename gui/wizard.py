"""The wizard: dataset, settings, hyper-parameters, review. Each step is a page whose form asks for the next one.

A step that is reached with something missing or out of range shows the earlier step again, the fault at its field.
"""

import json
import shlex
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.errors import Problem, Unavailable
from contracts.hyperparameters import Hyperparameters
from contracts.job import JobRequest
from gui import forms
from gui.answers import Checking, DatasetReport
from gui.backend import Asks, Backend
from gui.choice import WEIGHT_TITLES, Choice, find, look, network_groups, network_rows, setting_rows
from gui.datasets import class_rows
from gui.figures import setting
from gui.findings import group_findings
from gui.forms import Draft, read_draft
from gui.pages import page, path_to

__all__ = ["find", "router"]
router = APIRouter(prefix="/train", include_in_schema=False)
SAMPLES = 6
SHEET = 12
SHOWN_BY_CROPS = ("short_side", "crop", "augment", "rare_class_share", "turns")
"""Settings that change what a crop looks like."""
REFUSED = 422


@router.get("", name="train")
async def choose_dataset(request: Request, backend: Asks) -> HTMLResponse:
    draft = read_draft(request.query_params.multi_items())
    if draft.settings and (report := await _sound_dataset(backend, draft)):
        draft = replace(draft, settings=(await look(backend, draft, report)).draft.settings)  # what is only recommended follows the dataset
    return await _dataset_step(request, backend, draft)


@router.get("/settings", name="train_settings")
async def choose_settings(request: Request, backend: Asks) -> HTMLResponse:
    return await _step(request, backend, 2)


@router.get("/hyperparameters", name="train_hyperparameters")
async def choose_hyperparameters(request: Request, backend: Asks) -> HTMLResponse:
    return await _step(request, backend, 3)


@router.get("/review", name="train_review")
async def review(request: Request, backend: Asks) -> HTMLResponse:
    return await _step(request, backend, 4)


@router.post("", name="train_start")
async def start(request: Request, backend: Asks) -> Response:
    form = await request.form()
    draft = read_draft((name, value) for name, value in form.multi_items() if isinstance(value, str))
    report = await _sound_dataset(backend, draft)
    choice = await look(backend, draft, report) if report else None
    if choice is None or choice.network is None or choice.complete is None or choice.faults:
        return await _go(request, backend, draft, report, choice, 4)
    fault = forms.name_fault(draft.name, {view.job.name for view in await backend.jobs()})
    if fault:
        return await _review_step(request, backend, choice, fault=fault)
    try:
        view = await backend.start_job(forms.as_request(choice.draft, choice.network, choice.complete))
    except Unavailable:
        raise
    except Problem as problem:
        return await _review_step(request, backend, choice, problem=problem)
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
    if step == 2:
        return await _settings_step(request, backend, choice)
    if choice.faults or choice.network is None:
        proposed = choice if choice.network else await look(backend, draft, report, propose=True)
        return await _settings_step(request, backend, proposed, choice.faults)
    if step == 3 or choice.complete is None:
        return _hyperparameters_step(request, choice, refused=step == 4)
    return await _review_step(request, backend, choice)


async def _sound_dataset(backend: Backend, draft: Draft) -> DatasetReport | None:
    if draft.dataset not in {row.name for row in await backend.datasets()}:
        return None
    report = await backend.checked(draft.dataset)
    return None if isinstance(report, Checking) or report.errors else report


async def _dataset_step(request: Request, backend: Backend, draft: Draft, fault: str = "") -> HTMLResponse:
    rows = await backend.datasets()
    chosen = draft.dataset or next((row.name for row in rows if not row.error), "")
    found = await backend.checked(chosen) if chosen in {row.name for row in rows} else None
    report = None if isinstance(found, Checking) else found
    context = {
        "step": 1,
        "checking": found if isinstance(found, Checking) else None,
        "draft": replace(draft, dataset=chosen),
        "datasets": rows,
        "report": report,
        "classes": class_rows(report) if report else [],
        "groups": group_findings(report) if report else [],
        "samples": report.stems[:SAMPLES] if report else [],
        "fault": fault,
    }
    return page(request, "wizard_dataset.html", context, REFUSED if fault else 200)


async def _settings_step(request: Request, backend: Backend, choice: Choice, faults: dict[str, str] | None = None) -> HTMLResponse:
    draft, network, advice = choice.draft, choice.network, choice.advice
    best = find(choice.networks, advice.network) if advice else None
    context: dict[str, Any] = {
        "step": 2,
        "draft": draft,
        "choice": choice,
        "network": network,
        "best": network_rows([best], choice.machine) if best else [],
        "groups": network_groups(choice),
        "machine": choice.machine,
        "weights": choice.weights,
        "weight_titles": WEIGHT_TITLES,
        "chosen_weights": draft.weights or "from_scratch",
        "split": await _split(backend, choice),
        "faults": faults or {},
    }
    return page(request, "wizard_settings.html", context, REFUSED if faults else 200)


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
        "faults": forms.read_settings(choice.draft, preset)[1],
        "complete": complete,
        "shown_by": sheet_settings(complete) if complete else [],
    }
    return page(request, "wizard_hyperparameters.html", context, REFUSED if refused else 200)


async def _review_step(request: Request, backend: Backend, choice: Choice, fault: str = "", problem: Problem | None = None) -> HTMLResponse:
    network, complete = choice.network, choice.complete
    assert network is not None
    assert complete is not None
    taken = {view.job.name for view in await backend.jobs()}
    draft = choice.draft if choice.draft.name else replace(choice.draft, name=forms.propose_name(choice.draft.dataset, taken))
    fault = fault or forms.name_fault(draft.name, taken)
    asked = forms.as_request(replace(draft, name="name") if fault else draft, network, complete)
    values = complete.model_dump()
    context = {
        "step": 4,
        "draft": draft,
        "sent": replace(draft, settings={name: setting(value) for name, value in values.items()}),
        "choice": choice,
        "network": network,
        "weight_titles": WEIGHT_TITLES,
        "split": await _split(backend, choice),
        "complete": values,
        "differing": asked.hyperparameters,
        "command": command_for(asked),
        "call": call_for(asked, request.app.state.settings.docker_sdk_api_url),
        "fault": fault,
        "problem": problem,
    }
    return page(request, "wizard_review.html", context, problem.status if problem else REFUSED if fault else 200)


async def _split(backend: Backend, choice: Choice) -> dict[str, list[str]] | None:
    draft = choice.draft
    if {"validation", "seed"} & set(choice.faults):
        return None
    return await backend.split(draft.dataset, float(draft.validation) / 100, int(draft.seed))


def sheet_settings(complete: Hyperparameters) -> list[tuple[str, str]]:
    """What the contact sheet of crops is drawn with; it stays as it is while other settings change."""
    return [("count", str(SHEET)), ("seed", "0"), *((name, setting(getattr(complete, name))) for name in SHOWN_BY_CROPS)]


def command_for(asked: JobRequest) -> str:
    """The same training from a terminal; what equals a default is left out."""
    words = ["maskwright", "train", f"datasets/{asked.dataset}", "--name", asked.name]
    words += ["--engine", asked.engine, "--network", asked.network, "--backbone", asked.backbone]
    changed = asked.model_dump(exclude_defaults=True)
    for name in ("weights", "weights_from", "validation_share", "seed"):
        if name in changed:
            words += [f"--{name.replace('_', '-')}", setting(changed[name])]
    for gpu in asked.gpus:
        words += ["--gpu", str(gpu)]
    for name, value in asked.hyperparameters.items():
        words += ["--set", f"{name}={setting(value)}"]
    return shlex.join(words)


def call_for(asked: JobRequest, url: str) -> str:
    """The same training over REST, with curl; what equals a default is left out."""
    named = asked.model_dump(include={"name", "dataset", "engine", "network", "backbone"})
    body = json.dumps(named | asked.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False)
    return f"curl -X POST {url}/v1/jobs \\\n  -H 'content-type: application/json' \\\n  -d {shlex.quote(body)}"
