"""/v1/datasets: what is there, what is wrong with it and how that is cured, how it is split, and what it looks like."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from annotations.doctor.check import PairView
from annotations.doctor.cures import Change
from annotations.split import Split
from contracts.errors import Unavailable
from docker_sdk_api.datasets import Datasets

routes = APIRouter(prefix="/v1/datasets", tags=["datasets"])


def _datasets(request: Request) -> Datasets:
    datasets: Datasets = request.app.state.datasets
    return datasets


@routes.get("")
def list_datasets(request: Request) -> list[dict[str, Any]]:
    """Every dataset at a glance."""
    datasets = _datasets(request)
    return datasets.summaries()


@routes.get("/{name}", response_model=None)
def check(request: Request, name: str) -> dict[str, Any] | JSONResponse:
    """The full check: every file that is wrong, what is wrong with it, and the cure.

    Where it takes longer than two seconds it goes on, and the answer is 202 with how far it is: ask again.
    """
    report = _datasets(request).report(name)
    return report or JSONResponse({"checking": _datasets(request).progress(name)}, 202)


@routes.get("/{name}/report.json", response_model=None)
def download_report(request: Request, name: str) -> JSONResponse:
    """The full check as a file, once it is done."""
    report = _datasets(request).report(name)
    if report is None:
        raise Unavailable(f"The check of “{name}” still goes on.", "Its page shows how far it is: take the report when it is done.")
    return JSONResponse(report, headers={"Content-Disposition": f'attachment; filename="{quote(name)}-report.json"'})


@routes.get("/{name}/pictures")
def pictures(request: Request, name: str) -> list[PairView]:
    """Every pair: its size, the classes that it shows, what is wrong with it, and whom it looks like."""
    return _datasets(request).pictures(name)


@routes.get("/{name}/pictures/{stem}/file", response_class=FileResponse)
def picture(request: Request, name: str, stem: str) -> FileResponse:
    """A picture's own file, as it was brought."""
    return FileResponse(_datasets(request).picture(name, stem))


@routes.get("/{name}/cures/{code}")
def preview_cure(request: Request, name: str, code: str) -> list[Change]:
    """What a cure would change, file by file. Nothing is changed."""
    return _datasets(request).preview_cure(name, code)


@routes.post("/{name}/cures/{code}")
def cure(request: Request, name: str, code: str) -> dict[str, str]:
    """Cure, wholly or not at all; `undo` is the id under which it can be taken back."""
    return {"undo": _datasets(request).cure(name, code)}


@routes.post("/{name}/undo/{id}")
def undo(request: Request, name: str, id: str) -> list[Change]:
    """Take the latest cure back; what came back is answered."""
    return _datasets(request).undo(name, id)


Share = Annotated[float, Query(gt=0, lt=1)]
TestShare = Annotated[float, Query(ge=0, lt=1)]
Seed = Annotated[int, Query(ge=0)]


@routes.get("/{name}/split")
def split(request: Request, name: str, validation_share: Share = 0.2, seed: Seed = 0, test_share: TestShare = 0.0) -> Split:
    """The split that a job has: the one stored with the dataset, or the one that share and seed draw."""
    return _datasets(request).split(name, validation_share, seed, test_share)


@routes.put("/{name}/split")
def store_split(request: Request, name: str, validation_share: Share = 0.2, seed: Seed = 0, test_share: TestShare = 0.0) -> Split:
    """Draw a split and store it with the dataset; every job that starts from now on has it."""
    return _datasets(request).store_split(name, validation_share, seed, test_share)


@routes.delete("/{name}/split", status_code=204)
def forget_split(request: Request, name: str) -> Response:
    """Remove the stored split: jobs draw by their own share and seed again."""
    _datasets(request).forget_split(name)
    return Response(status_code=204)


@routes.get("/{name}/overlays/{stem}", response_class=Response)
def overlay(
    request: Request,
    name: str,
    stem: str,
    width: Annotated[int, Query(ge=16, le=4096)] = 320,
    opacity: Annotated[float, Query(ge=0, le=1)] = 0.55,
) -> Response:
    """A JPEG of a picture with its mask over it; opacity 0: the bare picture."""
    image = _datasets(request).overlay(name, stem, width, opacity)
    return Response(image, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})
