"""Models as pages: their card, retiring, deleting with undo, downloads, and bringing one in."""

import io
import json
import zipfile
from pathlib import Path

import httpx
import onnx
import pytest
from fastapi.testclient import TestClient

from docker_sdk_api.settings import Settings
from tests.conftest import run_job, text_of, wait_for
from tests.served import serve_brightness
from tests.test_gui_pages import picture


@pytest.fixture
def model(api: TestClient, tmp_path: Path) -> str:
    """A model with a graph, brought in as a zip."""
    return bring(api, tmp_path, "bright")


def bring(api: TestClient, tmp_path: Path, name: str) -> str:
    answer = api.post("/v1/models/import", files={"file": (f"{name}.zip", packed(tmp_path / "aside", name))})
    assert (answer.status_code, answer.json()) == (201, {"model": name})
    return name


def packed(aside: Path, name: str) -> bytes:
    """A model's zip, as it is downloaded."""
    serve_brightness(aside, name)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in (aside / name / "model").iterdir():
            archive.write(path, path.name)
    return file.getvalue()


def served_names(inference_api: TestClient) -> list[str]:
    return [row["name"] for row in inference_api.get("/v1/models").json()]


def press(gui: TestClient, path: str) -> httpx.Response:
    return gui.post(path, follow_redirects=True)


def test_a_models_card_says_what_it_is_and_where_it_comes_from(gui: TestClient, api: TestClient, dataset: Path):
    job = "common"
    fingerprint = run_job(api, name=job, dataset="plates")["job"]["dataset_fingerprint"]
    card = text_of(gui.get(f"/models/{job}"))
    for words in ("mIoU", "background", "plates", fingerprint[:12], "as it is now", "random weights", "Taught by", "Download zip"):
        assert words in card, words
    assert fingerprint[:8] in text_of(gui.get("/models"))
    (dataset / "objectclasses.json").write_text('{"classes": 3, "classesname": ["background", "pad", "disc"]}')
    assert "has changed since this model learnt from it" in text_of(gui.get(f"/models/{job}"))
    dataset.rename(dataset.with_name(".away"))
    assert "it is not here any more" in text_of(gui.get(f"/models/{job}"))
    assert "has no model.onnx" in text_of(gui.get(f"/models/{job}/model.onnx")), "the engine majority has no graph"
    assert "model.onnx" not in gui.get(f"/models/{job}").text


def test_a_card_shows_what_each_precision_costs(gui: TestClient, settings: Settings, model: str):
    file = settings.checkpoints / model / "model" / "model.json"
    content = json.loads(file.read_text())
    whole = {"precision": "float32", "runtime": "onnxruntime", "pictures": 4, "equal_pixels": 1, "mean_iou": 0.9, "drop": 0, "seconds": 0.2}
    eighth = {"precision": "int8", "runtime": "openvino", "equal_pixels": 0.9995, "mean_iou": 0.899, "drop": 0.001, "seconds": 0.05}
    none = {"precision": "bfloat16", "runtime": "openvino", "note": "This processor has none."}
    content["comparisons"] = [whole, whole | eighth, none]
    file.write_text(json.dumps(content))
    card = text_of(gui.get(f"/models/{model}"))
    assert "int8 OpenVINO 50 ms 0.899 99.95 % quickest that loses nothing" in card
    assert "This processor has none." in card
    assert "50 ms a picture" in text_of(gui.get("/models"))


def test_a_retired_model_is_not_served_until_it_is_published_again(gui: TestClient, inference_api: TestClient, model: str):
    ask = {"url": f"/v1/models/{model}/predict", "files": {"picture": ("mine.png", picture())}}
    assert inference_api.post(**ask).status_code == 200, "it is loaded now"
    assert "retired" in text_of(press(gui, f"/models/{model}/retire"))
    refused = inference_api.post(**ask)
    assert (refused.status_code, refused.json()["cause"]) == (404, f"The model “{model}” was retired.")
    assert served_names(inference_api) == []
    assert f"/models/{model}/try" not in gui.get("/models").text, "nobody is sent where it would be refused"
    press(gui, f"/models/{model}/publish")
    assert inference_api.post(**ask).status_code == 200
    assert served_names(inference_api) == [model]


def test_a_deleted_model_can_be_brought_back_and_its_job_stays(gui: TestClient, inference_api: TestClient, model: str):
    listed = press(gui, f"/models/{model}/delete")
    assert f"The model {model} is deleted" in text_of(listed)
    assert gui.get(f"/models/{model}").status_code == 404
    assert served_names(inference_api) == []
    assert gui.get(f"/jobs/{model}").status_code == 200
    undo = listed.text.split('action="')[-2].split('"')[0]
    assert undo.endswith("/undo")
    assert press(gui, undo).url.path == f"/models/{model}"
    assert served_names(inference_api) == [model]


def test_a_deleted_model_is_gone_for_good_once_its_space_is_freed(gui: TestClient, settings: Settings, api: TestClient, model: str):
    press(gui, f"/models/{model}/delete")
    row = api.get("/v1/deleted-models").json()[0]
    assert "deleted" not in text_of(press(gui, f"/models/deleted/{row['id']}/remove"))
    assert not list((settings.checkpoints / ".deleted-model").iterdir())
    gone = gui.post(f"/models/deleted/{row['id']}/undo")
    assert "This model is gone for good." in text_of(gone)


def test_a_model_of_a_job_that_was_deleted_too_says_what_comes_first(gui: TestClient, api: TestClient, model: str):
    press(gui, f"/models/{model}/delete")
    wait_for(lambda: api.delete(f"/v1/jobs/{model}").status_code == 200)
    id = api.get("/v1/deleted-models").json()[0]["id"]
    assert "Bring that job back first." in text_of(gui.post(f"/models/deleted/{id}/undo"))


def test_zip_and_graph_can_be_saved(gui: TestClient, model: str):
    archive = zipfile.ZipFile(io.BytesIO(gui.get(f"/models/{model}/download").content))
    assert {"model.json", "model.onnx"} <= set(archive.namelist())
    graph = gui.get(f"/models/{model}/model.onnx")
    assert f'filename="{model}.onnx"' in graph.headers["content-disposition"]
    onnx.checker.check_model(onnx.load_from_string(graph.content))


def test_a_downloaded_model_is_imported_again(gui: TestClient, inference_api: TestClient, model: str):
    content = gui.get(f"/models/{model}/download").content
    press(gui, f"/models/{model}/delete")
    refused = gui.post("/models/import", files={"file": ("nothing.zip", b"no zip")})
    assert refused.status_code == 400
    assert 'class="cure"' in refused.text
    taken = gui.post("/models/import", files={"file": ("mine.zip", content)})
    assert taken.status_code == 409, "the job that it came from still has its name"
    answer = gui.post("/models/import", files={"file": ("mine.zip", content)}, data={"name": "again"})
    assert answer.url.path == "/models/again"
    assert "imported" in text_of(answer)
    assert served_names(inference_api) == ["again"]


def test_a_damaged_model_does_not_hide_the_others(gui: TestClient, api: TestClient, settings: Settings, tmp_path: Path, model: str):
    bring(api, tmp_path, "second")
    (settings.checkpoints / "second" / "model" / "model.json").write_text("{")
    assert gui.get("/models").text.count('class="row model-row') == 1
    assert gui.get("/").status_code == 200
