"""/v1/weights: what a network can start from here and now."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from contracts.errors import Invalid
from contracts.networks import find_network
from contracts.weights import WeightsChoice
from docker_sdk_api.weights import list_weights

routes = APIRouter(prefix="/v1/weights", tags=["weights"])


@routes.get("")
def weights(
    request: Request, network: Annotated[str, Query(description="As /v1/networks calls it: engine/network/backbone.")]
) -> list[WeightsChoice]:
    """Each type of weights: whether it can be had, if not why and what helps, its licence, and what there is to choose from."""
    parts = network.split("/")
    if len(parts) != 3:
        raise Invalid(f"“{network}” names no network.", "Write it as engine/network/backbone, such as pytorch/unet/resnet18.")
    return list_weights(find_network(*parts), request.app.state.settings)
