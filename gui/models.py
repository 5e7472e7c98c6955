"""Models: what has been published, its card, its downloads; imported, retired, deleted and brought back."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.errors import Problem
from contracts.model import Comparison, PublishedModel
from gui.backend import Asks, Backend, model_path
from gui.pages import page, path_to
from gui.start import last_sheets
from runtimes import is_as_good

router = APIRouter(prefix="/models", include_in_schema=False)


@router.get("", name="models")
async def models(request: Request, backend: Asks) -> HTMLResponse:
    return await _list(request, backend)


@router.post("/import", name="import_model")
async def import_model(request: Request, backend: Asks) -> Response:
    """To the model, or to the job that converts it; a zip that is refused is answered beside the form."""
    try:
        name, ready = await backend.import_model(request)
    except Problem as problem:
        return await _list(request, backend, problem)
    return RedirectResponse(path_to(request, "model" if ready else "job", name=name), status_code=303)


@router.post("/deleted/{id}/undo", name="undo_delete_model")
async def undo_delete(request: Request, backend: Asks, id: str) -> Response:
    found = await backend.undo_delete_model(id)
    return RedirectResponse(path_to(request, "model", name=found.name), status_code=303)


@router.post("/deleted/{id}/remove", name="delete_model_for_good")
async def delete_for_good(request: Request, backend: Asks, id: str) -> Response:
    await backend.delete_model_for_good(id)
    return RedirectResponse(path_to(request, "models"), status_code=303)


@router.get("/{name}", name="model")
async def model(request: Request, backend: Asks, name: str) -> HTMLResponse:
    found = await backend.model(name)
    views, runtime = await asyncio.gather(backend.jobs([found.job]), _runtime(backend, found))
    context = {
        "model": found,
        "runtime": runtime,
        "quickest": quickest(found),
        "sheet": last_sheets(views).get(found.job, ""),
        "url": str(request.url_for("predict", name=name)),
    }
    return page(request, "model.html", context)


@router.post("/{name}/retire", name="retire_model")
async def retire(request: Request, backend: Asks, name: str) -> Response:
    await backend.change_model(name, "retire")
    return RedirectResponse(path_to(request, "model", name=name), status_code=303)


@router.post("/{name}/publish", name="publish_model")
async def publish(request: Request, backend: Asks, name: str) -> Response:
    await backend.change_model(name, "publish")
    return RedirectResponse(path_to(request, "model", name=name), status_code=303)


@router.post("/{name}/delete", name="delete_model")
async def delete(request: Request, backend: Asks, name: str) -> Response:
    """To the list, which says until when it can be brought back."""
    await backend.delete_model(name)
    return RedirectResponse(path_to(request, "models"), status_code=303)


@router.get("/{name}/download", name="download")
async def download(backend: Asks, name: str) -> Response:
    return await backend.pass_on(model_path(name, "download"))


@router.get("/{name}/model.onnx", name="download_onnx")
async def download_onnx(backend: Asks, name: str) -> Response:
    return await backend.pass_on(model_path(name, "model.onnx"))


@router.get("/{name}/example", name="example")
async def example(backend: Asks, name: str) -> Response:
    """A validation picture as the model sees it."""
    return await backend.pass_on(model_path(name, "example"))


def quickest(model: PublishedModel) -> Comparison | None:
    """The quickest kind of numbers that a model is served in by itself, as measured when it was published."""
    measured = [row for row in model.comparisons if row.seconds and is_as_good(row)]
    return min(measured, key=lambda row: row.seconds or 0, default=None)


async def _runtime(backend: Backend, model: PublishedModel) -> str:
    """What answers for a model now; empty where it was not loaded yet or is not served."""
    try:
        return (await backend.served_model(model.name)).runtime or ""
    except Problem:
        return ""


async def _list(request: Request, backend: Backend, problem: Problem | None = None) -> HTMLResponse:
    found, deleted = await asyncio.gather(backend.models(), backend.deleted_models())
    context: dict[str, Any] = {
        "models": found,
        "speeds": {model.name: quickest(model) for model in found},
        "deleted": deleted,
        "problem": problem,
    }
    return page(request, "models.html", context, problem.status if problem else 200)
