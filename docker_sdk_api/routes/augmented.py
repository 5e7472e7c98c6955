"""/v1/datasets/{name}/augmented: what the settings of a training would do to the pictures."""

import io
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from PIL import Image

from annotations.contact_sheet import augmented_sheet
from annotations.dataset import open_dataset
from contracts.errors import Invalid
from contracts.hyperparameters import Hyperparameters, read_hyperparameters

routes = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@routes.get("/{name}/augmented", response_class=Response)
def augmented(
    request: Request, name: str, count: Annotated[int, Query(ge=1, le=48)] = 12, seed: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """A JPEG sheet of crops as they would be taught. Any hyper-parameter may be given as a parameter beside these."""
    dataset = open_dataset(request.app.state.datasets.path(name))
    if not dataset.pairs:
        raise Invalid(f"The dataset {name} has no pairs of picture and mask.", "See the dataset's findings.")
    given = {key: value for key, value in request.query_params.items() if key in Hyperparameters.model_fields}
    try:
        sheet = augmented_sheet(dataset.pairs, read_hyperparameters(given, {}), count, seed, len(dataset.classes))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Invalid(f"A picture of {name} cannot be read ({error}).", "See the dataset's findings.") from error
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=88)
    return Response(file.getvalue(), media_type="image/jpeg")
