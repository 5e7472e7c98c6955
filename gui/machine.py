"""The machine: what is installed and reachable on it, and the self-test that goes through all of it."""

import time

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contracts.answers import Machine, Step
from contracts.errors import Invalid, Problem
from gui.backend import Asks, Backend
from gui.pages import page, path_to

router = APIRouter(prefix="/machine", include_in_schema=False)


@router.get("", name="machine")
async def machine(request: Request, backend: Asks) -> HTMLResponse:
    """Answers whatever is not reachable, and says so."""
    return await _machine_page(request, backend)


@router.get("/disk", name="disk")
async def disk(request: Request, backend: Asks) -> HTMLResponse:
    """What old jobs keep that may go: shown first, by rules that the address names, or by those that are set."""
    rules = await backend.retention_rules()
    asked = {name: value for name in rules if (value := request.query_params.get(name))}
    days = {name: asked.get(name, "0") if asked else f"{value or 30:g}" for name, value in rules.items()}
    deleted = await backend.deleted_jobs()
    context: dict[str, object] = {"rules": rules, "days": days, "deleted": deleted, "kept": None, "problem": None}
    try:
        context["kept"] = await backend.kept(asked) if asked else None
    except Invalid as problem:
        return page(request, "disk.html", context | {"problem": problem}, problem.status)
    return page(request, "disk.html", context)


@router.post("/disk", name="let_go")
async def let_go(request: Request, backend: Asks) -> Response:
    form = await request.form()
    await backend.let_go({name: str(value) for name, value in form.items()})
    return RedirectResponse(path_to(request, "disk"), status_code=303)


@router.get("/diagnostics", name="diagnostics")
async def diagnostics(backend: Asks) -> Response:
    """A zip for a report of a fault."""
    return await backend.pass_on("/v1/diagnostics")


@router.post("/self-test", name="start_self_test")
async def start_self_test(request: Request, backend: Asks) -> Response:
    form = await request.form()
    try:
        job = await backend.start_self_test(str(form.get("engine", "")))
    except Problem as problem:
        return await _machine_page(request, backend, problem)
    return RedirectResponse(path_to(request, "self_test", job=job), status_code=303)


@router.get("/self-test/{job}", name="self_test")
async def self_test(request: Request, backend: Asks, job: str) -> HTMLResponse:
    """Each step's result so far; once there is a model, it is asked for a mask."""
    view, steps = await backend.job(job), await backend.self_test(job)
    ready = all(step.state == "good" for step in steps)
    steps.append(await _served(backend, job) if ready else Step(title="Serving"))
    failed = next((step for step in steps if step.state == "failed"), None)
    context = {"job": view.job, "steps": steps, "failed": failed, "done": bool(failed) or steps[-1].state == "good"}
    return page(request, "self_test.html", context)


@router.post("/self-test/{job}/remove", name="remove_self_test")
async def remove_self_test(request: Request, backend: Asks, job: str) -> Response:
    """Its job and its model, for good: it was made to be looked at once."""
    await backend.self_test(job)
    await backend.delete_for_good((await backend.delete_job(job)).id)
    return RedirectResponse(path_to(request, "machine"), status_code=303)


async def _served(backend: Backend, job: str) -> Step:
    """What the inference API makes of a picture that the model has not learnt from."""
    title = "Serving"
    try:
        model = await backend.model(job)
        stems = await backend.scored_pictures(job)
        content, kind = await backend.picture_file(model.dataset, stems[0] if stems else "plate_00")
        before = time.perf_counter()
        seen = await backend.see(job, content, f"picture.{kind.partition('/')[2]}")
        seconds = time.perf_counter() - before
        served = await backend.served_model(job)
    except Problem as problem:
        return Step(title=title, state="failed", said=problem.cause, cure=problem.cure)
    size, by = f"{seen.segments.width} × {seen.segments.height}", f", by {served.runtime}" if served.runtime else ""
    return Step(title=title, state="good", said=f"A mask of {size} pixels after {seconds:.2f} s{by}.")


async def _machine_page(request: Request, backend: Backend, problem: Problem | None = None) -> HTMLResponse:
    found: Machine | Problem
    try:
        found = await backend.machine()
    except Problem as unreachable:
        found = unreachable
    inference: Problem | None = None
    try:
        await backend.inference_ready()
    except Problem as unreachable:
        inference = unreachable
    context = {
        "machine": found if isinstance(found, Machine) else None,
        "training_problem": found if isinstance(found, Problem) else None,
        "inference_problem": inference,
        "problem": problem,
    }
    return page(request, "machine.html", context, problem.status if problem else 200)
