"""/v1/retention: what old jobs keep that may go by such rules, and let go of it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from contracts.answers import Kept
from docker_sdk_api.retention import Retention, Rules

routes = APIRouter(prefix="/v1/retention", tags=["machine"])


def _retention(request: Request) -> Retention:
    retention: Retention = request.app.state.retention
    return retention


@routes.get("")
def preview(request: Request, rules: Annotated[Rules, Query()]) -> Kept:
    """What would go now. Nothing is touched."""
    return _retention(request).preview(rules)


@routes.get("/rules")
def rules(request: Request) -> Rules:
    """Those that are set (KEEP_FAILED_DAYS, KEEP_CHECKPOINTS_DAYS) and applied every hour."""
    return _retention(request).rules


@routes.post("")
def apply(request: Request, rules: Rules) -> Kept:
    """Let go of it now. Whole jobs can be brought back for a while: /v1/deleted."""
    return _retention(request).apply(rules)
