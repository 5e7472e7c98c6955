"""inference_api's own routes through the front door: every answer belongs to its picture, and is what was asked for."""

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from annotations.run_lengths import mask_of_counts, unpack_counts
from inference_api.answers import Answer, Wish
from tests.conftest import ROOT, run_job
from tests.served import serve_brightness, served

BRIGHT, DARK, GREY = 250, 5, 128


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    serve_brightness(checkpoints)
    with served(checkpoints, most_pictures=3) as client:
        yield client


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A grey picture with a bright ring around a dark disc and a bright speck; and its true mask."""
    mask = np.zeros((90, 120), np.uint8)
    cv2.circle(mask, (40, 40), 30, 2, cv2.FILLED)
    cv2.circle(mask, (40, 40), 15, 0, cv2.FILLED)
    cv2.circle(mask, (40, 40), 8, 1, cv2.FILLED)
    mask[80:83, 100:103] = 2
    return np.array([GREY, DARK, BRIGHT], np.uint8)[mask][..., None].repeat(3, axis=2), mask


def file_of(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def ask(inference: TestClient, pixels: np.ndarray, model: str = "brightness", accept: str = "*/*", **wish: object):
    files = {"picture": ("p.png", file_of(pixels))}
    return inference.post(f"/v1/models/{model}/predict", params=wish, files=files, headers={"Accept": accept})


def opened(answer) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(answer.content))


def ids(answer) -> np.ndarray:
    return np.asarray(opened(answer))


def test_a_mask_holds_class_ids_at_exactly_the_pictures_size_and_the_colours_as_palette(inference: TestClient):
    pixels, truth = scene()
    answer = opened(ask(inference, pixels))
    assert (answer.mode, answer.size) == ("P", (120, 90))
    assert (np.asarray(answer) == truth).all()
    colours = inference.get("/v1/models/brightness").json()["palette"]
    assert answer.getpalette()[:9] == [channel for colour in colours for channel in colour]


def test_an_overlay_shows_the_classes_over_the_picture_and_leaves_the_background_bare(inference: TestClient):
    pixels, truth = scene()
    seen = ids(ask(inference, pixels, answer="overlay"))
    assert seen.shape == pixels.shape
    assert (seen[truth == 0] == pixels[truth == 0]).all()
    assert (seen[truth != 0] != pixels[truth != 0]).any(axis=1).all()


def test_a_confidence_map_is_the_probability_of_the_class_in_255ths(inference: TestClient):
    pixels, truth = scene()
    sure = ids(ask(inference, pixels, answer="confidence"))
    scores = np.array([5.0, -3 * 3 * (BRIGHT / 255 - 0.5) / 0.25, 3 * 3 * (BRIGHT / 255 - 0.5) / 0.25])
    expected = np.exp(scores).max() / np.exp(scores).sum()
    assert np.abs(sure[truth == 2] - 255 * expected).max() <= 0.5 + 1e-3
    assert opened(ask(inference, pixels, answer="confidence")).mode == "L"


def test_segments_have_outlines_and_holes_that_draw_exactly_the_mask(inference: TestClient):
    pixels, truth = scene()
    answer = ask(inference, pixels, answer="segments", min_area=1).json()
    assert [row["class_name"] for row in answer["segments"]] == ["bright", "dark", "bright"]
    assert [len(row["holes"]) for row in answer["segments"]] == [1, 0, 0]
    drawn = np.zeros_like(truth)
    for row in answer["segments"]:
        rings = [np.array(ring) for ring in (row["polygon"], *row["holes"])]
        part = np.zeros_like(truth)
        cv2.drawContours(part, rings, -1, 1, cv2.FILLED)
        assert part.sum() == row["area"]
        drawn[part == 1] = row["class_id"]
    assert (drawn == truth).all()


def test_segments_say_box_area_and_true_confidence(inference: TestClient):
    pixels, _ = scene()
    pixels[80:90, 90:110] = 180  # bright, but less certainly so
    (ring, less, disc) = ask(inference, pixels, answer="segments").json()["segments"]
    assert (less["class_name"], less["box"], less["area"]) == ("bright", [90, 80, 110, 90], 200)
    assert sorted(less["polygon"]) == [[90, 80], [90, 89], [109, 80], [109, 89]]
    grey = (180 / 255 - 0.5) / 0.25
    scores = np.array([5.0, -9 * grey, 9 * grey])
    assert less["confidence"] == pytest.approx(np.exp(scores).max() / np.exp(scores).sum(), abs=1e-4)
    assert min(ring["confidence"], disc["confidence"]) > 0.99 > less["confidence"]


def test_shares_add_up_and_absent_classes_have_no_confidence(inference: TestClient):
    answer = ask(inference, np.full((20, 30, 3), GREY, np.uint8), answer="shares").json()
    assert (answer["width"], answer["height"]) == (30, 20)
    assert [row["share"] for row in answer["classes"]] == [1.0, 0.0, 0.0]
    assert [row["confidence"] is None for row in answer["classes"]] == [False, True, True]
    assert "segments" not in answer


def test_coco_run_lengths_are_the_mask(inference: TestClient):
    pixels, truth = scene()
    answer = ask(inference, pixels, answer="coco", min_area=1).json()
    drawn = np.zeros_like(truth)
    for row in answer["annotations"]:
        part = mask_of_counts(unpack_counts(row["segmentation"]["counts"]), tuple(row["segmentation"]["size"]))
        assert part.sum() == row["area"]
        rows, columns = np.nonzero(part)
        left, top, width, height = row["bbox"]
        assert (left, top, left + width, top + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        drawn[part] = row["category_id"]
    assert (drawn == truth).all()
    assert answer["categories"] == [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}]


@pytest.mark.parametrize("answer", ["mask", "coco"])
def test_only_wanted_classes_are_answered_by_name_or_id(inference: TestClient, answer: str):
    pixels, truth = scene()
    for wanted in ("dark", "1"):
        seen = ask(inference, pixels, answer=answer, classes=[wanted])
        if answer == "mask":
            assert (ids(seen) == np.where(truth == 1, 1, 0)).all()
        else:
            assert {row["category_id"] for row in seen.json()["annotations"]} == {1}


def test_an_unknown_class_gets_the_known_ones(inference: TestClient):
    answer = ask(inference, scene()[0], classes=["cat"])
    assert answer.status_code == 400
    assert "dark, bright" in answer.json()["cure"]


def test_pixels_below_the_minimum_confidence_become_background(inference: TestClient):
    pixels, truth = scene()
    pixels[80:90, 90:110] = 180
    assert (ids(ask(inference, pixels))[80:90, 90:110] == 2).all()
    assert (ids(ask(inference, pixels, min_confidence=0.99))[:80] == truth[:80]).all()
    assert (ids(ask(inference, pixels, min_confidence=0.99))[80:90, 90:110] == 0).all()
    assert (ids(ask(inference, pixels, min_confidence=0.99, answer="confidence"))[80:90, 90:110] == 0).all()


def test_regions_below_the_minimum_area_become_background_in_every_answer(inference: TestClient):
    pixels, truth = scene()
    without = truth.copy()
    without[80:83, 100:103] = 0
    assert (ids(ask(inference, pixels, min_area=10)) == without).all()
    shares = ask(inference, pixels, min_area=10, answer="shares").json()["classes"]
    assert [row["pixels"] for row in shares] == np.bincount(without.ravel()).tolist()
    assert (ids(ask(inference, pixels, min_area=9)) == truth).all()


def test_a_simplified_outline_has_fewer_corners(inference: TestClient):
    pixels, _ = scene()
    whole = ask(inference, pixels, answer="segments").json()["segments"][0]["polygon"]
    simple = ask(inference, pixels, answer="segments", simplify=2).json()["segments"][0]["polygon"]
    assert 4 <= len(simple) < len(whole) / 2


def test_what_a_client_accepts_chooses_the_answer_and_the_parameter_wins(inference: TestClient):
    pixels, _ = scene()
    assert "segments" in ask(inference, pixels, accept="application/json").json()
    assert opened(ask(inference, pixels, accept="image/png, application/json;q=0.5")).mode == "P"
    assert opened(ask(inference, pixels, accept="application/json", answer="overlay")).mode == "RGB"


def test_many_pictures_are_answered_in_their_order_and_a_bad_one_keeps_back_none(inference: TestClient):
    pixels, truth = scene()
    sent = [("picture", ("a/p.png", file_of(pixels))), ("picture", ("p.png", file_of(pixels[:50]))), ("picture", ("no.png", b"no"))]
    rows = inference.post("/v1/models/brightness/predict/batch?answer=segments", files=sent).json()
    assert [row["file"] for row in rows] == ["a/p.png", "p.png", "no.png"]
    assert [row.get("height") for row in rows] == [90, 50, None]
    assert "cannot be read" in rows[2]["cause"]
    with zipfile.ZipFile(io.BytesIO(inference.post("/v1/models/brightness/predict/batch", files=sent).content)) as archive:
        assert archive.namelist() == ["p.png", "p-2.png", "problems.json"]
        assert (np.asarray(Image.open(io.BytesIO(archive.read("p-2.png")))) == truth[:50]).all()
        assert "no.png" in json.loads(archive.read("problems.json"))
    sent = [("picture", (name, file_of(pixels[:height]))) for name, height in (("p.png", 90), ("p-3.png", 50), ("p.png", 60))]
    with zipfile.ZipFile(io.BytesIO(inference.post("/v1/models/brightness/predict/batch", files=sent).content)) as archive:
        masks = {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))).shape[0] for name in archive.namelist()}
        assert masks == {"p.png": 90, "p-3.png": 50, "p-2.png": 60}
    sent = [("picture", ("b/no.png", b"no"))] * 2
    with zipfile.ZipFile(io.BytesIO(inference.post("/v1/models/brightness/predict/batch", files=sent).content)) as archive:
        assert list(json.loads(archive.read("problems.json"))) == ["b/no.png", "b/no-2.png"]


def test_more_pictures_than_are_taken_get_a_sentence(inference: TestClient):
    answer = inference.post("/v1/models/brightness/predict/batch", files=[("picture", (f"{i}.png", b"x")) for i in range(4)])
    assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge")
    assert "up to 3" in answer.json()["cure"]


def test_an_unknown_model_gets_the_known_ones(inference: TestClient):
    for name in ("nobody", "..", "%00", "x" * 300, "a%2Fb"):
        answer = ask(inference, scene()[0], model=name)
        assert answer.status_code == 404, name
    assert "brightness" in ask(inference, scene()[0], model="nobody").json()["cure"]


def test_an_upload_without_a_picture_gets_a_sentence_with_the_field(inference: TestClient):
    for answer in (inference.post("/v1/models/brightness/predict"), inference.post("/v1/models/brightness/predict", data={"picture": "x"})):
        assert answer.status_code == 400
        assert "curl -F picture=@" in answer.json()["cure"]


@pytest.mark.parametrize("wish", [{"answer": "poem"}, {"min_confidence": 2}, {"min_area": -1}, {"short_side": 1}, {"colour": "red"}])
def test_a_wish_that_there_is_not_gets_a_sentence(inference: TestClient, wish: dict):
    answer = ask(inference, scene()[0], **wish)
    assert answer.status_code == 400
    assert answer.json()["cause"].startswith(next(iter(wish)))


def test_models_are_listed_and_say_what_they_run_on_once_they_are_loaded(inference: TestClient):
    assert [row["name"] for row in inference.get("/v1/models").json()] == ["brightness"]
    ask(inference, scene()[0])
    model = inference.get("/v1/models/brightness").json()
    assert model["classes"] == ["background", "dark", "bright"]
    assert "runtime" in model


def test_a_damaged_model_hides_no_other(tmp_path: Path):
    serve_brightness(tmp_path)
    (tmp_path / "broken" / "model").mkdir(parents=True)
    (tmp_path / "broken" / "model" / "model.json").write_text("{")
    (tmp_path / "README.md").write_text("a file")
    with served(tmp_path) as client:
        assert [row["name"] for row in client.get("/v1/models").json()] == ["brightness"]
        answer = client.get("/v1/models/broken")
        assert (answer.status_code, "train or import it again" in answer.json()["cure"]) == (500, True)


def test_what_a_training_published_is_served(api: TestClient, inference_api: TestClient, dataset: Path):
    run_job(api, name="common", dataset="plates")
    answer = ask(inference_api, scene()[0], model="common", answer="segments").json()
    assert [row["share"] for row in answer["classes"]] == [1.0, 0.0, 0.0]
    assert answer["classes"][0]["confidence"] == pytest.approx(0.9, abs=0.1)


def test_the_schema_says_every_answer_and_every_refusal(inference: TestClient):
    paths = inference.get("/openapi.json").json()["paths"]
    for path in ("/v1/models/{name}/predict", "/v1/models/{name}/predict/batch"):
        responses = paths[path]["post"]["responses"]
        assert {"200", "400", "404", "413", "503"} <= responses.keys()
        assert "422" not in responses
        assert responses["200"]["content"]["application/json"]["example"]
    assert "/models/{name}/predict_image" in paths
    assert "/models/{name}/predict_image/" not in paths


def test_every_answer_and_every_wish_is_in_its_page():
    page = (ROOT / "docs" / "inference.md").read_text()
    assert all(f"| `{name}` |" in page for name in [*get_args(Answer), *Wish.model_fields] if name != "answer")


def test_callers_at_once_each_receive_their_own_answer(inference: TestClient):
    numbers = np.random.default_rng(3)
    truths = [numbers.integers(0, 3, (30 + index, 40), np.uint8) for index in range(24)]
    pictures = [np.array([GREY, DARK, BRIGHT], np.uint8)[truth][..., None].repeat(3, axis=2) for truth in truths]
    with ThreadPoolExecutor(12) as callers:
        seen = list(callers.map(lambda pixels: ids(ask(inference, pixels)), pictures))
    assert all((one == truth).all() for one, truth in zip(seen, truths, strict=True))
