"""The start page: from an empty workplace to what runs, what ended, and what came of it."""

from pathlib import Path

from fastapi.testclient import TestClient

from tests.conftest import draw_dataset, run_job, text_of, wait_for
from tests.test_model_pages import bring

MAJORITY = {"engine": "majority", "network": "majority", "backbone": "none", "dataset": "plates"}


def test_an_empty_workplace_shows_three_steps_and_offers_the_first(gui: TestClient, tmp_path: Path):
    empty = gui.get("/")
    assert text_of(empty).index("Bring a dataset") < text_of(empty).index("Train a model") < text_of(empty).index("Try it On pictures")
    assert 'class="button primary" href="/datasets/new"' in empty.text
    draw_dataset(tmp_path / "datasets" / "plates")
    begun = gui.get("/")
    assert 'class="button primary" href="/train"' in begun.text
    assert "Datasets are here" in text_of(begun)
    assert "Look at it or bring your own" in text_of(begun), "a dummy dataset comes with the product"
    assert "6 pictures background, pad, circle" in text_of(begun)


def test_what_runs_is_shown_with_its_curve_and_what_ended_with_its_score(gui: TestClient, api: TestClient, dataset: Path):
    run_job(api, name="short", **{key: value for key, value in MAJORITY.items() if key != "name"})
    assert api.post("/v1/jobs", json={**MAJORITY, "name": "long", "hyperparameters": {"epochs": 10_000}}).status_code == 201
    page = wait_for(lambda: (answer := gui.get("/")) and 'points="' in answer.text.split("Ended lately")[0] and answer)
    running, ended = text_of(page).split("Ended lately")
    assert "long majority on plates epoch" in running
    assert "Nothing is training" not in running
    assert "short majority on plates finished mIoU" in ended
    assert 'src="/models/short/example"' in page.text
    assert gui.get("/models/short/example").headers["content-type"] == "image/jpeg"
    assert 'data-refresh="3"' in page.text


def test_only_the_newest_models_are_shown_with_the_way_to_the_others(gui: TestClient, api: TestClient, tmp_path: Path):
    for number in range(7):
        bring(api, tmp_path, f"m{number}")
    page = gui.get("/").text
    assert page.count('class="card"') == 6
    assert ">All models<" in page
