"""/v1/recommendation: which network to take for a dataset on this machine, and with which settings, each with its reason."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request

from annotations.doctor.findings import Report
from contracts.answers import Recommendation, WaggleStart
from contracts.errors import Invalid
from contracts.networks import CATALOGUE, find_network
from contracts.waggle import has_waggle_config, read_waggle_config
from docker_sdk_api.datasets import Datasets
from docker_sdk_api.machine import describe_machine
from docker_sdk_api.recommend import place_of, read_fingerprint, recommend, recommend_network

routes = APIRouter(prefix="/v1", tags=["machine"])


@routes.get("/recommendation")
def recommendation(
    request: Request,
    dataset: str,
    network: Annotated[str, Query(description="engine/network/backbone; without it, for the network that is recommended.")] = "",
    validation_share: Annotated[float, Query(gt=0, lt=1)] = 0.2,
    gpus: Annotated[list[int], Query(description="Ids of the GPUs to train on; none: the processor.")] = [],  # noqa: B006  # FastAPI copies it
) -> Recommendation:
    """The network to take and why, and the settings for `network`: value, the network's own default, and the reason.

    `waggle`: the network and settings that come nearest to a config.list of the Waggle FCN plugin that lies with the dataset, else null.
    """
    datasets: Datasets = request.app.state.datasets
    machine = describe_machine(request.app.state.settings, request.app.state.jobs.launcher)
    folder = datasets.path(dataset)
    report, place = datasets.check(folder), place_of(machine, gpus)
    ready = {state.engine for state in machine.engines if state.available}
    choices = [row for row in CATALOGUE if row.engine in ready]
    if not choices:
        raise Invalid("No network can be trained on this machine.", "The machine page says what each engine needs.")
    best, why = recommend_network(report, place, choices, validation_share)
    row = find_network(*_three(network)) if network else best
    settings, waggle = recommend(report, place, row, validation_share), _waggle(folder, report, validation_share)
    return Recommendation(network=best.key, reason=why, settings=settings, waggle=waggle)


def _waggle(folder: Path, report: Report, validation_share: float) -> WaggleStart | None:
    if not has_waggle_config(folder) or not report.sizes:
        return None
    try:
        config = read_waggle_config(folder)
    except Invalid:
        return None  # the wizard then starts as for any other dataset; `maskwright waggle` says what is wrong with it
    width, height = map(int, next(iter(report.sizes)).split(" × "))
    settings = config.proposal(read_fingerprint(report, validation_share).training, width * height)
    return WaggleStart(network="/".join(("pytorch", *config.network)), settings=settings)


def _three(key: str) -> tuple[str, str, str]:
    parts = key.split("/")
    if len(parts) != 3:
        raise Invalid(f"“{key}” is not a network's name.", "Write it as engine/network/backbone, such as pytorch/unet/resnet18.")
    return parts[0], parts[1], parts[2]
