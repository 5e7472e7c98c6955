"""What every answer with a status of 400 and more looks like, for the OpenAPI documents of the two APIs."""

from typing import Any

from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """What went wrong, and what to do about it."""

    error: str = Field(examples=["Invalid"])
    cause: str = Field(examples=["photo.jpg cannot be read as a picture (image file is truncated)."])
    cure: str = Field(examples=["Send a JPEG, PNG, WebP, BMP, TIFF or GIF file; if it is one, save it anew."])
    detail: str = Field(description="Both sentences.")


REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "The service asks for a token, and none that it knows was sent."},
    403: {"model": Refusal, "description": "The token's scope does not go as far, or another server's page asks."},
    421: {"model": Refusal, "description": "The service is not known under the name that it was asked for (HOSTS)."},
    "4XX": {"model": Refusal, "description": "What was asked cannot be done; the cure says what can."},
    "5XX": {"model": Refusal, "description": "It cannot be done now; the cure says when, or what to look at."},
}
