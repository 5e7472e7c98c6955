"""inference_api through its front door: every answer belongs to its picture, bad uploads get a sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from annotations.whole_picture import Reading
from contracts.model import Model, read_model
from inference_api.regions import list_segments
from tests.conftest import run_job


@pytest.fixture
def model(api: TestClient, dataset: Path, settings) -> Model:
    run_job(api, name="common", dataset="plates")
    return read_model(settings.checkpoints / "common" / "model")


def picture_bytes(size: tuple[int, int] = (30, 20), kind: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def ask(inference_api: TestClient, content: bytes, answer: str = "mask", model: str = "common"):
    return inference_api.post(f"/v1/models/{model}/predict?answer={answer}", files={"picture": ("p.png", content)})


def test_a_mask_has_exactly_the_size_of_the_picture(inference_api: TestClient, model: Model):
    for size in ((1, 1), (31, 77), (640, 480)):
        mask = Image.open(io.BytesIO(ask(inference_api, picture_bytes(size)).content))
        assert (mask.size, mask.mode) == (size, "P")


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "RGBA"), ("BMP", "L"), ("TIFF", "RGB"), ("WEBP", "RGB"), ("PNG", "I;16")]
)
def test_any_kind_of_picture_is_read(inference_api: TestClient, model: Model, kind: str, mode: str):
    answer = ask(inference_api, picture_bytes(kind=kind, mode=mode), "overlay")
    assert Image.open(io.BytesIO(answer.content)).size == (30, 20)


def test_segments_say_shares_and_confidence(inference_api: TestClient, model: Model):
    answer = ask(inference_api, picture_bytes(), "segments").json()
    assert (answer["width"], answer["height"]) == (30, 20)
    assert [row["share"] for row in answer["classes"]] == [1.0, 0.0, 0.0]
    assert answer["classes"][0]["confidence"] == pytest.approx(0.9, abs=0.1)
    assert answer["classes"][1]["confidence"] is None
    assert answer["segments"] == []


def test_regions_are_listed_with_box_outline_and_true_confidence(model: Model):
    mask = np.zeros((40, 50), np.uint8)
    confidence = np.full((40, 50), 0.9, np.float32)
    mask[5:15, 10:30] = 2
    confidence[5:15, 10:30] = 0.7
    mask[20:22, 40:43] = 1  # too small to list
    (segment,) = list_segments(Reading(mask, confidence), model)["segments"]
    assert segment["class_name"] == "circle"
    assert segment["box"] == [10, 5, 30, 15]
    assert segment["area"] == 200
    assert segment["confidence"] == pytest.approx(0.7)
    assert sorted(segment["polygon"]) == [[10, 5], [10, 14], [29, 5], [29, 14]]


@pytest.mark.parametrize("content", [b"", b"hello", picture_bytes()[:40]])
def test_what_is_no_picture_gets_a_sentence(inference_api: TestClient, model: Model, content: bytes):
    answer = ask(inference_api, content)
    assert answer.status_code == 400
    assert "cannot be read as a picture" in answer.json()["cause"]


def test_an_unknown_model_gets_the_known_ones(inference_api: TestClient, model: Model):
    answer = ask(inference_api, picture_bytes(), model="nobody")
    assert answer.status_code == 404
    assert "common" in answer.json()["cure"]


def test_an_upload_without_a_picture_gets_a_sentence(inference_api: TestClient, model: Model):
    answer = inference_api.post("/v1/models/common/predict")
    assert answer.status_code == 400
    assert "picture" in answer.json()["cause"]


def test_models_are_listed(inference_api: TestClient, model: Model):
    assert [row["name"] for row in inference_api.get("/v1/models").json()] == ["common"]
    assert inference_api.get("/v1/models/common").json()["classes"] == ["background", "pad", "circle"]
