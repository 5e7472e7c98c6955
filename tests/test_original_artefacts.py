"""Models that were trained elsewhere are brought in and served: the GluonCV training GUI's three files, and the product's own zip."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from annotations.colours import voc_palette
from contracts.tokens import OWN_FOLDER
from docker_sdk_api.artefacts import UNKNOWN
from tests.conftest import ROOT, ended, wait_for
from tests.served import serve_brightness

PYTHON = ROOT / ".venv-gluon" / "bin" / "python"
needs_gluon = pytest.mark.skipif(not PYTHON.exists(), reason=f"no Python with MXNet at {PYTHON}")
CLASSES = ["background", "pad", "circle"]
SIDE = 64

# GluonCV's own class, as the original builds it, its weights, and what it sees in a picture.
TRAINED = f"""
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import mxnet as mx, numpy as np
from gluoncv.model_zoo.fcn import FCN
from PIL import Image

folder = Path(sys.argv[1])
mx.random.seed(3)
network = FCN({len(CLASSES)}, backbone="resnet50", aux=True, pretrained_base=False, crop_size={SIDE}, base_size={SIDE})
network.initialize(mx.init.Xavier())
picture = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
picture = Image.fromarray(picture).resize(({SIDE}, {SIDE}), Image.Resampling.BILINEAR)
picture.save(folder / "picture.png")
pixels = (np.asarray(picture, np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
scores = network(mx.nd.array(pixels.transpose(2, 0, 1)[None]))[0].asnumpy()[0]
offsets = mx.nd.array(-scores.mean(axis=(1, 2)))  # no class is everywhere
network.head.block[4].bias.set_data(offsets)
scores = network(mx.nd.array(pixels.transpose(2, 0, 1)[None]))[0].asnumpy()[0]
Image.fromarray(scores.argmax(0).astype(np.uint8)).save(folder / "seen.png")
network.save_parameters(str(folder / "model_best.params"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the original leaves it, and beside it a picture and what GluonCV sees in it."""
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([str(PYTHON), "-c", TRAINED, str(folder)], check=True, timeout=120)
    (folder / "palette.txt").write_text("\n".join(map(str, voc_palette().ravel())) + "\n")
    write_configuration(folder)
    return folder


def write_configuration(folder: Path, **changes: object) -> None:
    content = {"inference_engine_name": "gluonsegmentation", "type": "semantic", "network": "fcn", "backbone": "resnet50"}
    content |= {"num_classes": len(CLASSES), "classes_names": CLASSES, "checkpoint_name": "old plates", "batch_size": 1, "epochs": 15}
    (folder / "configuration.json").write_text(json.dumps({**content, "lr": 0.001, "crop_size": SIDE, **changes}))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The original's three files, the weights of them worthless."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_best.params").write_bytes(b"worthless")
    (folder / "palette.txt").write_text("0\n" * 768)
    write_configuration(folder)
    return folder


def packed(folder: Path, inside: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{inside}{path.name}")
    return file.getvalue()


def send(api: TestClient, content: bytes, file: str = "model.zip", **form: str):
    return api.post("/v1/models/import", files={"file": (file, content, "application/zip")}, data=form)


@needs_gluon
def test_an_artefact_of_the_original_is_converted_and_sees_what_gluoncv_sees(
    api: TestClient, inference_api: TestClient, gui: TestClient, trained: Path
):
    answer = send(api, packed(trained, inside="plates/"))
    assert (answer.status_code, answer.json()) == (202, {"job": "old-plates"})
    assert api.get("/v1/jobs/old-plates").json()["job"]["dataset"] == UNKNOWN
    view = wait_for(lambda: ended(api, "old-plates"), 120)
    assert view["status"]["state"] == "finished", (view["status"], api.get("/v1/jobs/old-plates/log").text)

    (model,) = api.get("/v1/models").json()
    assert (model["classes"], model["scores"]["mean_iou"]) == (CLASSES, None)
    assert model["parity"]["equal_pixels"] > 0.999
    picture = (trained / "picture.png").read_bytes()
    answer = inference_api.post("/v1/models/old-plates/predict", files={"picture": ("a.png", picture, "image/png")})
    seen, expected = (np.asarray(Image.open(file)) for file in (io.BytesIO(answer.content), trained / "seen.png"))
    assert set(np.unique(expected)) == {0, 1, 2}
    assert (seen == expected).mean() > 0.999
    assert inference_api.get("/load").json().keys() == {"old-plates"}
    assert inference_api.get("/models/old-plates/palette").json()["data"] == voc_palette().ravel().tolist()

    assert all(gui.get(path).status_code == 200 for path in ("/jobs/old-plates", "/models/old-plates", "/models/old-plates/try"))

    again = send(api, packed(trained))
    assert (again.status_code, again.json()["error"]) == (409, "Taken")


@needs_gluon
def test_weights_that_do_not_fit_end_the_job_with_the_reason(api: TestClient, trained: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    write_configuration(other, num_classes=4, classes_names=[*CLASSES, "bolt"])
    assert send(api, packed(other), name="four").json() == {"job": "four"}
    write_configuration(other, network="fastscnn", backbone="fastscnn")
    assert send(api, packed(other), name="another").json() == {"job": "another"}
    (other / "model_best.params").write_bytes(b"no weights at all")
    assert send(api, packed(other), name="damaged").json() == {"job": "damaged"}

    causes = {}
    for name in ("four", "another", "damaged"):
        status = wait_for(lambda name=name: ended(api, name), 120)["status"]
        assert (status["state"], bool(status["cure"])) == ("failed", True)
        causes[name] = status["cause"]
    assert causes["four"] == "model_best.params is of 3 classes, and configuration.json says 4."
    assert causes["another"].startswith("model_best.params does not fit fastscnn on fastscnn")
    assert "cannot be read" in causes["damaged"]
    assert api.get("/v1/models").json() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "unet"}, "There is no network gluon/unet"),
        ({"num_classes": 7}, "num_classes is 7, and classes_names names 3"),
        ({"classes_names": ["pad", "pad", "hole"]}, "names a class twice"),
        ({"num_classes": "many"}, "num_classes: "),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(api: TestClient, files: Path, changes: dict, words: str):
    write_configuration(files, **changes)
    refused(api, send(api, packed(files)), words)


def refused(api: TestClient, answer, words: str) -> None:
    """With the cause and a cure, and nothing is left behind."""
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["cause"]
    assert answer.json()["cure"].endswith(".")
    assert [path.name for path in api.app.state.settings.checkpoints.iterdir()] == [OWN_FOLDER]


@pytest.mark.parametrize("name", ["model_best.params", "palette.txt", "configuration.json"])
def test_a_missing_file_is_named(api: TestClient, files: Path, name: str):
    (files / name).unlink()
    refused(api, send(api, packed(files)), f"There is no {name} in it.")


def test_what_is_no_model_is_refused(api: TestClient, files: Path, tmp_path: Path):
    (files / "palette.txt").write_text("red green blue\n")
    refused(api, send(api, packed(files)), "palette.txt does not hold")
    (files / "configuration.json").write_text("no JSON")
    refused(api, send(api, packed(files)), "configuration.json: ")
    holidays = tmp_path / "holidays"
    holidays.mkdir()
    (holidays / "beach.jpg").write_bytes(b"sand")
    refused(api, send(api, packed(holidays)), "No model is in")
    refused(api, send(api, b"no zip"), "neither a zip nor a tar")
    refused(api, send(api, packed(files), name="../up"), "cannot be named")
    assert api.post("/v1/models/import").status_code == 400


def test_the_products_own_zip_is_published_at_once(api: TestClient, inference_api: TestClient, gui: TestClient, tmp_path: Path):
    serve_brightness(tmp_path / "elsewhere")
    content = packed(tmp_path / "elsewhere" / "brightness" / "model")
    answer = send(api, content)
    assert (answer.status_code, answer.json()) == (201, {"model": "brightness"})
    assert send(api, content).status_code == 409
    assert send(api, content, name="twin").json() == {"model": "twin"}
    assert {model["name"] for model in api.get("/v1/models").json()} == {"brightness", "twin"}
    assert api.get("/v1/jobs/twin").json()["status"]["state"] == "finished"

    file = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(file, "PNG")
    mask = inference_api.post("/v1/models/twin/predict", files={"picture": ("a.png", file.getvalue(), "image/png")})
    assert np.unique(np.asarray(Image.open(io.BytesIO(mask.content)))) == [2]
    for path in ("/jobs", "/jobs/twin", "/models", "/models/twin", "/models/twin/try"):
        page = gui.get(path)
        assert (page.status_code, "twin" in page.text) == (200, True), path
    assert api.delete("/v1/jobs/twin").status_code in (200, 204)
    assert {model["name"] for model in api.get("/v1/models").json()} == {"brightness"}


def test_a_zip_of_the_product_that_lacks_its_graph_is_refused(api: TestClient, tmp_path: Path):
    serve_brightness(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere" / "brightness" / "model"
    (folder / "model.onnx").unlink()
    refused(api, send(api, packed(folder)), "There is no model.onnx in it.")
    (folder / "model.json").write_text("{}")
    refused(api, send(api, packed(folder)), "model.json cannot be read")


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        ("palette.txt", "0 0 0 1", "palette.txt does not hold red, green and blue of 3 classes."),
        ("palette.txt", "0 0 0 " * 256 + "0", "palette.txt does not hold"),
        ("palette.txt", "red", "palette.txt does not hold"),
        ("configuration.json", "[1]", "configuration.json holds no JSON object."),
        ("configuration.json", " " * 2**25 + "{}", "configuration.json is no plain file of at most 16 MB."),
        ("configuration.json", "{", "configuration.json holds no JSON object."),
        ("configuration.json", "[" * 100_000, "configuration.json holds no JSON object."),
        ("model.json", {"classes": [f"c{n}" for n in range(256)], "palette": [(0, 0, 0)] * 256}, "names 256 classes and 256 colours"),
        ("model.json", {"palette": [(0, 0, 0), (0, 0, 256), (0, 0, 0)]}, "A colour in model.json is none."),
    ],
)
def test_a_zip_of_the_product_whose_files_make_no_sense_is_refused(
    file: str, content: str | dict[str, object], cause: str, api: TestClient, tmp_path: Path
):
    serve_brightness(tmp_path / "elsewhere")
    place = tmp_path / "elsewhere" / "brightness" / "model" / file
    place.write_text(content if isinstance(content, str) else json.dumps({**json.loads(place.read_bytes()), **content}))
    refused(api, send(api, packed(place.parent)), cause)


def test_the_command_line_brings_in_a_folder_and_says_what_is_wrong(api: TestClient, files: Path, tmp_path: Path):
    serve_brightness(tmp_path / "elsewhere")

    def maskwright(*arguments: object) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "CHECKPOINTS": str(api.app.state.settings.checkpoints), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "cli", "import-model", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    done = maskwright(tmp_path / "elsewhere" / "brightness" / "model", "--name", "mine")
    assert (done.returncode, done.stdout) == (0, "mine: the model is there\n"), done.stderr
    (files / "palette.txt").unlink()
    done = maskwright(files)
    assert done.returncode == 2
    assert "There is no palette.txt in it." in " ".join(done.stderr.split())
    assert [model["name"] for model in api.get("/v1/models").json()] == ["mine"]
