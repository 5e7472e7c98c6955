"""/v1/forecast, /v1/speeds: what would come of a training, and how fast every network is here, before anything is started."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from contracts.answers import Forecast, Speed
from contracts.job import JobRequest
from contracts.networks import CATALOGUE
from docker_sdk_api.forecast import forecast
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import place_of
from docker_sdk_api.speed import Speeds

routes = APIRouter(prefix="/v1", tags=["jobs"])


@routes.post("/forecast")
def foresee(request: Request, wish: JobRequest) -> Forecast:
    """Time, memory, classes on both sides of the split, obstacles and cautions of a request for a job. Nothing is started.

    The name is not looked at.
    """
    return forecast(wish, request.app.state.datasets.path(wish.dataset), request.app.state.jobs, request.app.state.speeds)


@routes.get("/speeds")
def speeds(
    request: Request,
    gpus: Annotated[list[int], Query(description="Ids of the GPUs to train on; none: the processor.")] = [],  # noqa: B006  # FastAPI copies it
) -> dict[str, Speed]:
    """By network: the seconds of a training step on one crop of 256 × 256 pixels here (null: nothing says), and what they come from."""
    jobs: Jobs = request.app.state.jobs
    machine = describe_machine(request.app.state.settings, jobs.launcher)
    place, known = place_of(machine, gpus), request.app.state.speeds
    assert isinstance(known, Speeds)
    return {row.key: known.of(row, place, bool(place.gpu or machine.bfloat16)) for row in CATALOGUE}
