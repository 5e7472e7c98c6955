"""/v1/machine, /v1/networks, /v1/hyperparameters, /v1/health: what this machine can do."""

from typing import Any

from fastapi import APIRouter, Request

from contracts.hyperparameters import describe_hyperparameters, read_hyperparameters
from contracts.networks import CATALOGUE
from docker_sdk_api.machine import describe_machine, list_engines

routes = APIRouter(prefix="/v1", tags=["machine"])


@routes.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@routes.get("/machine")
def machine(request: Request) -> dict[str, Any]:
    """Cores, memory and disk (bytes), GPUs, and which engines can run."""
    return describe_machine(request.app.state.settings, request.app.state.jobs.launcher)


@routes.get("/networks")
def networks(request: Request) -> list[dict[str, Any]]:
    """The catalogue, with each network's complete default settings and whether its engine can run here."""
    states = {state.engine: state for state in list_engines(request.app.state.settings, request.app.state.jobs.launcher)}
    rows = []
    for row in CATALOGUE:
        state = states[row.engine]
        defaults = read_hyperparameters({}, row.defaults).model_dump()
        facts = {"key": row.key, "available": state.available, "cause": state.cause, "cure": state.cure, "defaults": defaults}
        rows.append({**row.model_dump(), **facts})
    return rows


@routes.get("/hyperparameters")
def hyperparameters() -> list[dict[str, Any]]:
    """Every setting: kind, default, range, unit, help."""
    return describe_hyperparameters()
