"""An old client's requests to the inference API, route by route, in its own order: answers have the shapes that it reads."""

import io
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from annotations.colours import voc_palette
from tests.served import CLASSES, serve_brightness, served

SLASHES = pytest.mark.parametrize("slash", ["", "/"], ids=["without slash", "with slash"])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    serve_brightness(folder)
    serve_brightness(folder, "second model")
    return folder


@pytest.fixture(scope="module")
def inference(checkpoints: Path) -> Iterator[TestClient]:
    with served(checkpoints) as client:
        yield client


def plate(left: int = 10, value: int = 250) -> bytes:
    """A grey picture of 60 × 40 with a bright pad of 20 × 10 at (left, 5)."""
    pixels = np.full((40, 60, 3), 128, np.uint8)
    pixels[5:15, left : left + 20] = value
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def send(content: bytes, field: str = "input_data") -> dict:
    return {field: ("photo.png", content, "image/png")}


def holds_the_pad(segments: list[dict], left: int = 10) -> bool:
    """The one segment has exactly the keys, types and values that the reference names."""
    (segment,) = segments
    assert set(segment) == {"class_name", "ObjectClassId", "bbox", "segment", "confidence"}
    assert (segment["class_name"], segment["ObjectClassId"]) == ("bright", 2)
    assert segment["bbox"] == [left, 5, left + 20, 15]
    flat = segment["segment"]
    corners = sorted(zip(flat[::2], flat[1::2], strict=True))
    assert corners == [(left, 5), (left, 14), (left + 19, 5), (left + 19, 14)]
    assert isinstance(segment["confidence"], float)
    return True


@SLASHES
def test_load_answers_ids_that_are_uuids(inference: TestClient, slash: str):
    ids = inference.get(f"/load{slash}").json()
    assert ids.keys() == {"brightness", "second model"}
    assert len({uuid.UUID(id) for id in ids.values()}) == 2


def test_ids_survive_a_restart(inference: TestClient, checkpoints: Path):
    with served(checkpoints) as later:
        assert later.get("/load").json() == inference.get("/load").json()


@SLASHES
def test_detect_takes_a_name_or_an_id_and_answers_a_list_of_segments(inference: TestClient, slash: str):
    for model in ("brightness", "second model", inference.get("/load").json()["second model"]):
        answer = inference.post(f"/detect{slash}", data={"model": model}, files=send(plate(), "image"))
        assert answer.status_code == 200
        assert holds_the_pad(answer.json())


@SLASHES
def test_get_labels_answers_labels_with_their_ids(inference: TestClient, slash: str):
    for model in ("brightness", inference.get("/load").json()["brightness"]):
        assert inference.post(f"/get_labels{slash}", data={"model": model}).json() == {"background": 0, "dark": 1, "bright": 2}


@SLASHES
def test_models_are_listed(inference: TestClient, slash: str):
    answer = inference.get(f"/models{slash}").json()
    assert answer.keys() == {"success", "data", "error"}
    assert (answer["success"], set(answer["data"]["models"])) == (True, {"brightness", "second model"})


@SLASHES
@pytest.mark.parametrize("force", ["", "?force=true", "?force=False"])
def test_a_model_is_loaded_and_loaded_again_by_force(inference: TestClient, slash: str, force: str):
    answer = inference.get(f"/models/brightness/load{slash}{force}").json()
    assert (answer["success"], answer["error"]) == (True, "")
    assert inference.get("/v1/models/brightness").status_code == 200


@SLASHES
def test_predict_answers_segments_in_the_envelope(inference: TestClient, slash: str):
    answer = inference.post(f"/models/brightness/predict{slash}", files=send(plate())).json()
    assert answer.keys() == {"success", "data", "error"}
    assert answer["success"]
    assert holds_the_pad(answer["data"])


@SLASHES
def test_predict_batch_answers_a_list_for_every_picture(inference: TestClient, slash: str):
    files = [("input_data", (f"{left}.png", plate(left), "image/png")) for left in (0, 10, 30)]
    answer = inference.post(f"/models/brightness/predict_batch{slash}", files=files).json()
    assert answer["success"]
    assert all(holds_the_pad(segments, left) for segments, left in zip(answer["data"], (0, 10, 30), strict=True))


@SLASHES
def test_predict_image_answers_the_picture_with_the_segments_over_it(inference: TestClient, slash: str):
    answer = inference.post(f"/models/brightness/predict_image{slash}", files=send(plate()))
    assert answer.headers["content-type"].startswith("image/")
    seen = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    assert seen.shape == (40, 60, 3)
    assert np.abs(seen[30, 50] - 128).max() <= 2
    assert np.abs(seen[10, 20] - 250).max() > 50


@SLASHES
def test_inference_answers_the_segments_alone_in_the_colours_of_the_palette(inference: TestClient, slash: str):
    answer = inference.post(f"/models/brightness/inference{slash}", files=send(plate()))
    assert answer.headers["content-type"] == "image/png"
    mask = Image.open(io.BytesIO(answer.content))
    assert (mask.mode, mask.size) == ("P", (60, 40))
    palette = inference.get("/models/brightness/palette").json()["data"]
    assert mask.getpalette() == palette
    assert mask.convert("RGB").getpixel((20, 10)) == tuple(palette[6:9])
    assert set(np.unique(np.asarray(mask))) == {0, 2}


@SLASHES
def test_labels_config_and_palette_are_in_the_envelope(inference: TestClient, slash: str):
    answers = {what: inference.get(f"/models/brightness/{what}{slash}").json() for what in ("labels", "config", "palette")}
    assert all(answer.keys() == {"success", "data", "error"} and answer["success"] for answer in answers.values())
    assert answers["labels"]["data"] == CLASSES
    assert answers["config"]["data"]["classes_names"] == CLASSES
    assert answers["palette"]["data"] == voc_palette().ravel().tolist()


def test_a_confidence_is_the_mean_probability_of_the_segments_pixels(inference: TestClient):
    def confidence(value: int) -> float:
        return inference.post("/models/brightness/predict", files=send(plate(value=value))).json()["data"][0]["confidence"]

    def softmax(value: int) -> float:
        grey = (value / 255 - 0.5) / 0.25
        scores = np.array([5.0, -9 * grey, 9 * grey])
        return float(np.exp(scores).max() / np.exp(scores).sum())

    assert confidence(180) == pytest.approx(softmax(180), abs=1e-4)
    assert confidence(200) == pytest.approx(softmax(200), abs=1e-4)


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/models/nobody/labels", {}, 404),
        ("GET", "/models/nobody/load", {}, 404),
        ("POST", "/models/nobody/predict", {"files": send(plate())}, 404),
        ("POST", "/models/brightness/predict", {"files": send(b"no picture")}, 400),
        ("POST", "/models/brightness/predict", {"files": send(plate(), "picture")}, 400),
        ("POST", "/models/brightness/predict_image", {"files": send(plate()[:60])}, 400),
        ("POST", "/models/brightness/predict_batch", {"files": [("input_data", ("a", plate())), ("input_data", ("b", b""))]}, 400),
        ("POST", "/detect", {"data": {"model": "nobody"}, "files": send(plate(), "image")}, 404),
        ("POST", "/detect", {"data": {"model": "brightness"}}, 400),
        ("POST", "/get_labels", {}, 400),
        ("GET", "/models/brightness/predict", {}, 405),
        ("GET", "/models/brightness/nothing", {}, 404),
    ],
)
def test_what_goes_wrong_is_said_in_the_envelope(inference: TestClient, method: str, path: str, sent: dict, status: int):
    answer = inference.request(method, path, **sent)
    assert answer.status_code == status
    body = answer.json()
    assert body.keys() == {"success", "data", "error"}
    assert (body["success"], body["data"]) == (False, None)
    assert body["error"].endswith(".")


def test_callers_at_once_each_receive_their_own_drawing(inference: TestClient):
    """Of 12 simultaneous callers of the original, 2 came back right."""

    def drawn(left: int) -> int:
        answer = inference.post("/models/brightness/inference", files=send(plate(left)))
        return int(np.nonzero(np.asarray(Image.open(io.BytesIO(answer.content))))[1].min())

    with ThreadPoolExecutor(12) as callers:
        assert list(callers.map(drawn, range(1, 37))) == list(range(1, 37))
