"""The routes of the GluonCV training GUI's inference API, so that its clients need no change. Errors are in its form, too.

Unlike there, every caller is answered about its own picture, and a confidence is the mean probability of the segment's pixels.
"""

import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel

from annotations.colours import voc_palette
from contracts.errors import NotFound, Problem
from contracts.model import Model
from contracts.plain import read_plain
from contracts.refusals import Refusal
from inference_api.answers import Answer, Wish, see
from inference_api.pictures import is_large, name_of, opened
from inference_api.regions import confidence_of, find_regions
from inference_api.routes import TURN, store_of
from inference_api.routes.predict import look, one_at_a_time, respond
from inference_api.store import LoadedModel


class Envelope(BaseModel):
    """The form of the original's answers, refusals too."""

    success: bool
    data: Any = None
    error: str


ENVELOPES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": Envelope | Refusal,
        "description": "What was asked cannot be done; `error` says why, and what can. A name that leads to no route has the other form.",
    },
    "5XX": {"model": Envelope, "description": "It cannot be done now; `error` says why."},
}
routes = APIRouter(tags=["the original's"], responses=ENVELOPES)
LOG = logging.getLogger("maskwright.models")
ROOTS = ("/load", "/detect", "/get_labels", "/models")
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "maskwright:models")
Picture = Annotated[UploadFile, File(description="A picture.")]
Route = TypeVar("Route", bound=Callable[..., Any])


def id_of(name: str) -> str:
    """A model's id: a UUID made of its name, so that it survives restarts and machines."""
    return str(uuid.uuid5(NAMESPACE, name))


def envelope(data: Any = None, error: str = "") -> dict[str, Any]:
    """The form of the original's answers."""
    return {"success": not error, "data": data, "error": error}


def asked_the_original(path: str) -> bool:
    """Whether a path is one of these routes', or meant to be."""
    return any(path == root or path.startswith(f"{root}/") for root in ROOTS)


def _route(method: str, path: str, predicts: bool = False) -> Callable[[Route], Route]:
    """With and without a slash at the end, as clients call it."""

    def add(function: Route) -> Route:
        routes.add_api_route(path, function, methods=[method], dependencies=TURN if predicts else None)
        routes.add_api_route(f"{path}/", function, methods=[method], dependencies=TURN if predicts else None, include_in_schema=False)
        return function

    return add


@_route("GET", "/load")
def load(request: Request) -> dict[str, str]:
    """Load every model: its name and its id."""
    ids = {}
    for model in store_of(request).models():
        try:
            store_of(request).load(model.name)
        except Problem as problem:
            LOG.warning("The model %s is left out: %s", model.name, problem)
        else:
            ids[model.name] = id_of(model.name)
    return ids


@_route("POST", "/detect", predicts=True)
def detect(request: Request, model: Annotated[str, Form()], image: Picture) -> list[dict[str, Any]]:
    """The segments that a model, by name or id, sees in a picture."""
    return _segments(request, _load(request, model), image)


@_route("POST", "/get_labels")
def get_labels(request: Request, model: Annotated[str, Form()]) -> dict[str, int]:
    """The labels of a model, by name or id, and their ids."""
    return {label: index for index, label in enumerate(_model(request, model).classes)}


@_route("GET", "/models")
def list_models(request: Request) -> dict[str, Any]:
    return envelope({"models": [model.name for model in store_of(request).models()]})


@_route("GET", "/models/{name}/load")
def load_one(request: Request, name: str, force: Annotated[bool, Query(description="Even if it is loaded.")] = False) -> dict[str, Any]:
    model = _model(request, name)
    store_of(request).load(model.name, again=force)
    return envelope({"name": model.name, "id": id_of(model.name)})


@_route("POST", "/models/{name}/predict", predicts=True)
def predict(request: Request, name: str, input_data: Picture) -> dict[str, Any]:
    return envelope(_segments(request, _load(request, name), input_data))


@_route("POST", "/models/{name}/predict_batch", predicts=True)
def predict_batch(request: Request, name: str, input_data: Annotated[list[UploadFile], File(description="Pictures.")]) -> dict[str, Any]:
    """A list of segments for every picture."""
    loaded = _load(request, name)
    return envelope([_segments(request, loaded, upload) for upload in input_data])


@_route("POST", "/models/{name}/predict_image", predicts=True)
def predict_image(request: Request, name: str, input_data: Picture) -> Response:
    """The picture with the segments drawn over it, as a PNG."""
    return _drawn(request, name, input_data, "overlay")


@_route("POST", "/models/{name}/inference", predicts=True)
def inference(request: Request, name: str, input_data: Picture) -> Response:
    """The segments alone, as a PNG with the model's palette."""
    return _drawn(request, name, input_data, "mask")


@_route("GET", "/models/{name}/labels")
def labels(request: Request, name: str) -> dict[str, Any]:
    return envelope(_model(request, name).classes)


@_route("GET", "/models/{name}/config")
def config(request: Request, name: str) -> dict[str, Any]:
    """configuration.json as it was published."""
    model = _model(request, name)
    file = store_of(request).folder(model.name) / "configuration.json"
    try:
        return envelope(json.loads(read_plain(file)))
    except FileNotFoundError:
        cause = f"The model “{model.name}” has no {file.name}."
        raise NotFound(cause, "Train it again, or ask /v1/models for what is known of it.") from None


@_route("GET", "/models/{name}/palette")
def palette(request: Request, name: str) -> dict[str, Any]:
    """The 768 numbers of palette.txt: red, green and blue of 256 classes."""
    return envelope(_palette(request, _model(request, name)))


def _palette(request: Request, model: Model) -> list[int]:
    file = store_of(request).folder(model.name) / "palette.txt"
    try:
        return [int(number) for number in read_plain(file).split()]
    except FileNotFoundError:
        return voc_palette().ravel().tolist()


def _drawn(request: Request, name: str, upload: UploadFile, answer: Answer) -> Response:
    """In the colours of the model's palette.txt, which is what its clients know them by."""
    loaded = _load(request, name)
    numbers = iter(_palette(request, loaded.model))
    coloured = loaded.model.model_copy(update={"palette": list(zip(numbers, numbers, numbers, strict=True))})
    made = look(request, replace(loaded, model=coloured), upload, Wish(), answer)
    return respond(made.file, made.media_type)


def _model(request: Request, name: str) -> Model:
    """A model by its name or its id. Raises NotFound."""
    store = store_of(request)
    try:
        return store.model(name)
    except NotFound:
        for model in store.models():
            if id_of(model.name) == name.lower():
                return model
        raise


def _load(request: Request, name: str) -> LoadedModel:
    return store_of(request).load(_model(request, name).name)


def _segments(request: Request, loaded: LoadedModel, upload: UploadFile) -> list[dict[str, Any]]:
    """What the original says about every segment, largest first."""
    with opened(upload, request.app.state.settings) as picture, one_at_a_time(request, is_large(picture)):
        reading, _ = see(loaded, picture, name_of(upload), Wish())
        regions = sorted(find_regions(reading.mask, range(1, len(loaded.model.classes))), key=lambda region: -region.area)
        return [
            {
                "class_name": loaded.model.classes[region.class_id],
                "ObjectClassId": region.class_id,
                "bbox": list(region.box),
                "segment": region.rings[0].ravel().tolist(),
                "confidence": confidence_of(region, reading),
            }
            for region in regions
        ]
