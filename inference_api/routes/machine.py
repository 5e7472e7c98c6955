"""/v1/health, /v1/ready, /v1/metrics: for those who watch over a machine. They answer however many predictions wait."""

import os

from fastapi import APIRouter, Request, Response

from contracts.errors import Unavailable
from contracts.metrics import CONTENT_TYPE
from inference_api.routes import REFUSALS, store_of
from runtimes import look_around

routes = APIRouter(prefix="/v1", tags=["machine"])


@routes.get("/health")
async def health() -> dict[str, str]:
    """The service runs."""
    return {"status": "ok"}


@routes.get("/ready", responses=REFUSALS)
def ready(request: Request) -> dict[str, str]:
    """Predictions can be asked for: the folder of models can be read, and there is a runtime to answer with."""
    folder = store_of(request).checkpoints
    if not os.access(folder, os.R_OK | os.X_OK):
        raise Unavailable(f"The folder {folder.name} of the models cannot be read.", "Check that it is there and who may read it.")
    if not look_around().precisions:
        raise Unavailable("There is no runtime to answer with.", "Install one: pip install openvino, or pip install onnxruntime.")
    return {"status": "ready"}


@routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Requests, latencies, queue and models, as Prometheus reads them."""
    return Response(request.app.state.metrics.as_text(), media_type=CONTENT_TYPE)
