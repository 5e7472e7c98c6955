"""Every runtime and precision of this machine answers like float32, and only what was compared is used without being asked for."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from annotations.dataset import open_dataset, read_picture
from annotations.whole_picture import IMAGENET
from contracts.errors import Unavailable
from contracts.model import Comparison, read_model
from inference_api.app import create_app
from inference_api.settings import Settings
from inference_api.store import load_model
from runtimes import Machine, choose, look_around, open_graph
from tests.conftest import ROOT, draw_dataset
from tests.test_training import run, write_job
from training_api import precisions

HERE = look_around()
PAIRS = [(runtime, precision) for runtime, possible in HERE.precisions.items() for precision in possible]
FULL = Machine({"openvino": ("float32", "bfloat16", "int8"), "onnxruntime": ("float32", "int8")})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with datasets/plates, and checkpoints/small with a model that was really trained on it."""
    home = tmp_path_factory.mktemp("home")
    dataset = draw_dataset(home / "datasets" / "plates", pictures=12, size=(96, 64))
    settings = {"epochs": 4, "crop": 64, "batch_size": 4, "crops_per_picture": 2, "short_side": 64, "workers": 1, "learning_rate": 0.005}
    result = run(write_job(home / "checkpoints" / "small", dataset, "pytorch", **settings))
    assert result.returncode == 0, result.stdout + result.stderr
    return home


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    return home / "checkpoints" / "small" / "model"


@pytest.fixture(scope="module")
def pictures(home: Path) -> list[np.ndarray]:
    """Of several sizes: the graph takes any."""
    pairs = open_dataset(home / "datasets" / "plates").pairs
    return [read_picture(pair.picture)[: 64 - 3 * index] for index, pair in enumerate(pairs)]


def test_every_precision_is_compared_when_a_model_is_published(folder: Path):
    model = read_model(folder)
    assert [row.precision for row in model.comparisons] == ["float32", "bfloat16", "int8"]
    for row in model.comparisons:
        possible = row.precision in HERE.precisions[row.runtime]
        assert bool(row.pictures) == possible, row.note
        assert bool(row.note) != possible
        assert f"| {row.precision} |" in (folder / "README.md").read_text()
    assert model.comparisons[0].equal_pixels >= 0.999
    assert (folder / "model.int8.onnx").stat().st_size < (folder / "model.onnx").stat().st_size / 2


@pytest.mark.parametrize(("runtime", "precision"), PAIRS)
def test_every_runtime_in_every_precision_sees_what_float32_sees(folder: Path, pictures: list[np.ndarray], runtime: str, precision: str):
    reference, other = load_model(folder, "onnxruntime", "float32"), load_model(folder, runtime, precision)
    assert runtime in other.runtime
    assert precision in other.runtime
    equal = [float((reference.read(picture).mask == other.read(picture).mask).mean()) for picture in pictures]
    assert np.mean(equal) >= (0.999 if precision == "float32" else 0.97)


@pytest.mark.parametrize("runtime", HERE.precisions)
def test_callers_at_the_same_time_get_their_own_answers(folder: Path, pictures: list[np.ndarray], runtime: str):
    graph = open_graph(folder, runtime, "float32")
    batches = [IMAGENET.apply(picture[:32, : 32 + 32 * (index % 2)])[None] for index, picture in enumerate(pictures)] * 4
    alone = [graph.predict(batch) for batch in batches]
    with ThreadPoolExecutor(6) as threads:
        for one, other in zip(alone, threads.map(graph.predict, batches), strict=True):
            np.testing.assert_array_equal(one, other)


SECONDS = {"float32": 0.4, "bfloat16": 0.2, "int8": 0.1}


def compared(
    precision: str, runtime: str = "openvino", drop: float | None = 0.0, equal: float = 1.0, seconds: float | None = None
) -> Comparison:
    seconds = seconds or SECONDS[precision]
    return Comparison(precision=precision, runtime=runtime, pictures=9, equal_pixels=equal, mean_iou=0.8, drop=drop, seconds=seconds)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([], "float32"),
        ([compared("float32"), compared("bfloat16"), compared("int8")], "int8"),
        ([compared("float32"), compared("bfloat16"), compared("int8", seconds=0.3)], "bfloat16"),
        ([compared("float32"), compared("int8", seconds=0.5)], "float32"),
        ([compared("int8", drop=0.0051), compared("bfloat16", drop=0.005)], "bfloat16"),
        ([compared("int8", drop=0.02), compared("bfloat16", drop=0.02)], "float32"),
        ([compared("int8", drop=None)], "float32"),
        ([compared("int8", drop=-0.01)], "int8"),
        ([compared("int8", runtime="onnxruntime")], "float32"),
    ],
)
def test_a_lower_precision_is_used_only_if_it_was_compared_with_this_runtime_and_found_as_good(found: list[Comparison], chosen: str):
    assert choose("auto", "auto", found, FULL) == ("openvino", chosen)


def test_a_precision_that_this_processor_lacks_is_not_used():
    old = Machine({"openvino": ("float32",), "onnxruntime": ("float32",)})
    assert choose("auto", "auto", [compared("int8"), compared("bfloat16")], old) == ("openvino", "float32")


def test_the_runtime_is_the_quickest_that_sees_the_same():
    alone = Machine({"onnxruntime": ("float32", "int8")})
    gpu = Machine(FULL.precisions, gpu=True)
    assert choose("auto", "auto", [], FULL)[0] == "openvino"
    assert choose("auto", "auto", [], alone)[0] == "onnxruntime"
    assert choose("auto", "auto", [compared("int8", "onnxruntime")], gpu) == ("onnxruntime", "float32")
    assert choose("auto", "auto", [compared("float32", equal=0.99)], FULL)[0] == "onnxruntime"
    assert choose("onnxruntime", "int8", [], FULL) == ("onnxruntime", "int8")


@pytest.mark.parametrize(
    ("runtime", "precision", "word"),
    [("openvino", "auto", "is not installed here"), ("onnxruntime", "bfloat16", "cannot compute in bfloat16")],
)
def test_what_cannot_be_had_is_refused_with_what_can(runtime: str, precision: str, word: str):
    with pytest.raises(Unavailable, match=word) as refused:
        choose(runtime, precision, [compared(precision if precision != "auto" else "int8")], Machine({"onnxruntime": ("float32", "int8")}))
    assert "auto" in refused.value.cure


def ask(client: TestClient, home: Path):
    picture = (home / "datasets" / "plates" / "images" / "p0.png").read_bytes()
    return client.post("/v1/models/small/predict", files={"picture": ("p0.png", picture)})


def test_the_service_says_what_it_computes_with(home: Path):
    with TestClient(create_app(Settings(checkpoints=home / "checkpoints", runtime="onnxruntime", precision="float32"))) as client:
        assert ask(client, home).status_code == 200
        assert client.get("/v1/models/small").json()["runtime"].startswith("onnxruntime")


def test_a_service_that_is_to_compute_as_it_cannot_says_so(home: Path):
    with TestClient(create_app(Settings(checkpoints=home / "checkpoints", runtime="onnxruntime", precision="bfloat16"))) as client:
        answer = ask(client, home)
    assert answer.status_code == 503
    assert "onnxruntime cannot compute in bfloat16" in answer.json()["cause"]
    assert "PRECISION" in answer.json()["cure"]


def test_a_model_without_an_int8_graph_says_so(folder: Path, tmp_path: Path):
    shutil.copy(folder / "model.onnx", tmp_path)
    with pytest.raises(Unavailable, match="has no int8 graph"):
        open_graph(tmp_path, "onnxruntime", "int8")


def compare_again(home: Path, graph: bytes, place: Path, calibrated: int = 4) -> list[Comparison]:
    (place / "model.onnx").write_bytes(graph)
    pairs = open_dataset(home / "datasets" / "plates").pairs
    engine = SimpleNamespace(geometry=read_model(home / "checkpoints" / "small" / "model").geometry, normalisation=IMAGENET)
    return precisions.compare_precisions(place, engine, 3, pairs[:calibrated], pairs[4:], 0)


def test_a_comparison_that_would_take_too_long_is_left_out(home: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precisions, "ALWAYS", 0)
    found = compare_again(home, (folder / "model.onnx").read_bytes(), tmp_path)
    assert [row.precision for row in found] == ["bfloat16", "int8"]
    assert all(row.note and not row.pictures for row in found)
    assert not (tmp_path / "model.int8.onnx").exists()
    assert choose("auto", "auto", found, FULL) == ("openvino", "float32")


def test_a_quantiser_that_fails_costs_no_training_its_model(home: Path, folder: Path, tmp_path: Path):
    found = compare_again(home, (folder / "model.onnx").read_bytes(), tmp_path, calibrated=0)
    assert found[0].equal_pixels >= 0.999
    assert found[-1].note.startswith("No int8 graph could be made: ")
    assert not (tmp_path / "model.int8.onnx").exists()


def test_an_int8_graph_is_calibrated_by_a_tile_of_every_picture(tmp_path: Path):
    for number in range(3):
        keep = precisions.keep_tile(tmp_path, number, classes=2)
        for tile in range(2):
            assert keep(np.full((1, 3, 4, 4), 10 * number + tile, np.float32)).shape == (1, 2, 4, 4)
    assert [np.load(file).max() for file in sorted(tmp_path.iterdir())] == [0, 11, 21]


def test_answering_loads_nothing_that_reports_its_use():
    program = "import sys, runtimes.openvino; print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
