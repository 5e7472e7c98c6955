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
from contracts.hyperparameters import Hyperparameters, describe_hyperparameters
from contracts.job import JobRequest
from gui import forms
from gui.answers import Checking, DatasetReport, NetworkChoice
from gui.backend import Asks, Backend
from gui.datasets import class_rows
from gui.estimate import training_seconds
from gui.figures import setting
from gui.findings import group_findings
from gui.forms import Draft, read_draft
from gui.pages import page, path_to

router = APIRouter(prefix="/train", include_in_schema=False)
SAMPLES = 6
SHEET = 12
SHOWN_BY_CROPS = ("short_side", "crop", "augment", "rare_class_share", "turns")
"""Settings that change what a crop looks like."""
REFUSED = 422


@router.get("", name="train")
async def choose_dataset(request: Request, backend: Asks) -> HTMLResponse:
    return await _dataset_step(request, backend, read_draft(request.query_params.multi_items()))


@router.get("/settings", name="train_settings")
async def choose_settings(request: Request, backend: Asks) -> HTMLResponse:
    draft = read_draft(request.query_params.multi_items())
    report = await _sound_dataset(backend, draft)
    if report is None:
        return await _dataset_step(
            request, backend, draft, "Choose a dataset that can be trained on." if draft.dataset else "Choose a dataset."
        )
    return await _settings_step(request, backend, draft, report)


@router.get("/hyperparameters", name="train_hyperparameters")
async def choose_hyperparameters(request: Request, backend: Asks) -> HTMLResponse:
    draft = read_draft(request.query_params.multi_items())
    report = await _sound_dataset(backend, draft)
    if report is None:
        return await _dataset_step(request, backend, draft, "Choose a dataset.")
    network = find(await backend.networks(), draft.network)
    faults = forms.settings_faults(draft, network)
    if faults or network is None:
        return await _settings_step(request, backend, draft, report, faults)
    return await _hyperparameters_step(request, backend, draft, network)


@router.get("/review", name="train_review")
async def review(request: Request, backend: Asks) -> HTMLResponse:
    return await _review_step(request, backend, read_draft(request.query_params.multi_items()))


@router.post("", name="train_start")
async def start(request: Request, backend: Asks) -> Response:
    form = await request.form()
    draft = read_draft((name, value) for name, value in form.multi_items() if isinstance(value, str))
    network = find(await backend.networks(), draft.network)
    complete = forms.read_settings(draft, network.defaults)[0] if network else None
    fault = forms.name_fault(draft.name, {view.job.name for view in await backend.jobs()})
    if network is None or complete is None or fault or forms.settings_faults(draft, network):
        return await _review_step(request, backend, draft, fault=fault)
    try:
        view = await backend.start_job(forms.as_request(draft, network, complete))
    except Unavailable:
        raise
    except Problem as problem:
        return await _review_step(request, backend, draft, problem=problem)
    return RedirectResponse(path_to(request, "job", name=view.job.name), status_code=303)


def find(networks: list[NetworkChoice], key: str) -> NetworkChoice | None:
    return next((row for row in networks if row.key == key), None)


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


async def _settings_step(
    request: Request, backend: Backend, draft: Draft, report: DatasetReport, faults: dict[str, str] | None = None
) -> HTMLResponse:
    networks = await backend.networks()
    network = find(networks, draft.network) or next((row for row in networks if row.available), None)
    chosen = replace(draft, network=network.key if network else "")
    sound = not forms.settings_faults(chosen, network)
    context: dict[str, Any] = {
        "step": 2,
        "draft": chosen,
        "networks": networks,
        "network": network,
        "machine": await backend.machine(),
        "report": report,
        "split": await backend.split(draft.dataset, float(draft.validation) / 100, int(draft.seed)) if sound else None,
        "faults": faults or {},
    }
    complete = forms.read_settings(chosen, network.defaults)[0] if network else None
    context["seconds"] = _estimate(network, complete, chosen, report) if sound and complete else None
    return page(request, "wizard_settings.html", context, REFUSED if faults else 200)


async def _hyperparameters_step(
    request: Request, backend: Backend, draft: Draft, network: NetworkChoice, faults: dict[str, str] | None = None
) -> HTMLResponse:
    rows = describe_hyperparameters()
    report = await backend.dataset(draft.dataset)
    complete, found = forms.read_settings(draft, network.defaults)
    context = {
        "step": 3,
        "draft": draft,
        "network": network,
        "rows": rows,
        "values": {row["name"]: draft.settings.get(row["name"], network.defaults[row["name"]]) for row in rows},
        "faults": found,
        "allowed": {row["name"]: forms.allowed(row["name"]) for row in rows},
        "report": report,
        "complete": complete,
        "shown_by": sheet_settings(complete) if complete else [],
        "seconds": _estimate(network, complete, draft, report) if complete else None,
    }
    return page(request, "wizard_hyperparameters.html", context, REFUSED if faults else 200)


async def _review_step(request: Request, backend: Backend, draft: Draft, fault: str = "", problem: Problem | None = None) -> HTMLResponse:
    report = await _sound_dataset(backend, draft)
    if report is None:
        return await _dataset_step(request, backend, draft, "Choose a dataset.")
    network = find(await backend.networks(), draft.network)
    faults = forms.settings_faults(draft, network)
    if faults or network is None:
        return await _settings_step(request, backend, draft, report, faults)
    draft = draft.without_defaults(network.defaults)
    complete, faults = forms.read_settings(draft, network.defaults)
    if complete is None:
        return await _hyperparameters_step(request, backend, draft, network, faults)
    taken = {view.job.name for view in await backend.jobs()}
    named = draft if draft.name else replace(draft, name=forms.propose_name(draft.dataset, taken))
    fault = fault or forms.name_fault(named.name, taken)
    asked = forms.as_request(replace(named, name="name") if fault else named, network, complete)
    context = {
        "step": 4,
        "draft": named,
        "network": network,
        "report": report,
        "split": await backend.split(named.dataset, float(named.validation) / 100, int(named.seed)),
        "complete": complete.model_dump(),
        "seconds": _estimate(network, complete, named, report),
        "command": command_for(asked),
        "call": call_for(asked, request.app.state.settings.docker_sdk_api_url),
        "fault": fault,
        "problem": problem,
    }
    return page(request, "wizard_review.html", context, problem.status if problem else REFUSED if fault else 200)


def sheet_settings(complete: Hyperparameters) -> list[tuple[str, str]]:
    """What the contact sheet of crops is drawn with; it stays as it is while other settings change."""
    return [("count", str(SHEET)), ("seed", "0"), *((name, setting(getattr(complete, name))) for name in SHOWN_BY_CROPS)]


def _estimate(network: NetworkChoice | None, complete: Hyperparameters, draft: Draft, report: DatasetReport) -> float | None:
    if network is None or draft.gpus:
        return None
    kept = min(max(round(report.pictures * float(draft.validation) / 100), 1), max(1, report.pictures - 1))
    return training_seconds(network, complete, report.pictures - kept, kept)


def command_for(asked: JobRequest) -> str:
    """The same training from a terminal."""
    words = ["maskwright", "train", f"datasets/{asked.dataset}", "--name", asked.name]
    words += ["--engine", asked.engine, "--network", asked.network, "--backbone", asked.backbone]
    words += ["--validation-share", f"{asked.validation_share:g}", "--seed", str(asked.seed)]
    for gpu in asked.gpus:
        words += ["--gpu", str(gpu)]
    for name, value in asked.hyperparameters.items():
        words += ["--set", f"{name}={setting(value)}"]
    return shlex.join(words)


def call_for(asked: JobRequest, url: str) -> str:
    """The same training over REST, with curl."""
    body = json.dumps(asked.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return f"curl -X POST {url}/v1/jobs \\\n  -H 'content-type: application/json' \\\n  -d {shlex.quote(body)}"
