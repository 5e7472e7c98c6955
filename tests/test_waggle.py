"""The Waggle way of working: a folder of the plugin's users, from its config.list to the results that they look for."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import nn

from annotations.dataset import open_dataset, read_mask
from annotations.formats import recognise_format
from annotations.waggle import import_run, open_run
from contracts.errors import Invalid
from contracts.hyperparameters import read_hyperparameters
from contracts.job_folder import JobFolder
from contracts.networks import find_network
from contracts.waggle import WaggleConfig, read_waggle_config
from docker_sdk_api.launchers.process import ProcessLauncher
from inference_api import app as inference
from inference_api.settings import Settings as InferenceSettings
from tests.conftest import ROOT, wait_for
from training_api.engines import Plan
from training_api.engines.pytorch_networks import build_network
from training_api.figures import Events, FiguresFile, StepLog
from training_api.metrics import ConfusionMatrix
from training_api.waggle.__main__ import main as container
from training_api.waggle.checkpoint import put_weights, read_checkpoint
from training_api.waggle.engine import WaggleEngine, WaggleStep
from training_api.waggle.pictures import WholePictures, stack
from training_api.waggle.results import COLUMNS, Results, scores_of
from training_api.waggle.tiles import Tile
from training_api.waggle.training import WaggleTraining

LEARNS = {"max_iteration": 52, "lr": 2e-6, "momentum": 0.9, "weight_decay": 0.0005, "interval_validate": 20}
"""The loss is summed over 96 × 96 pixels: of a mean, this rate would be 0.018."""
CONFIG = {
    **LEARNS,
    "batch_size": 4,
    "backbone": "resnet",
    "fcn": "50",
    "output_dir": "first",
    "pretrained_net": "",
    "n_workers": 1,
    "mode": "train",
}
DEADLINE = 600.0


def trains(test: Callable[..., None]) -> Callable[..., None]:
    """Of a test that trains an FCN on the processor, or waits for one that does."""
    return pytest.mark.slow(pytest.mark.timeout(2 * DEADLINE)(test))


def draw_clouds(folder: Path, pictures: int = 20, size: tuple[int, int] = (96, 96), **config: object) -> Path:
    """A Waggle folder: blue skies with white clouds, labels white where a cloud is, and a config.list."""
    numbers = np.random.default_rng(11)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(pictures):
        rough = Image.fromarray(numbers.integers(0, 256, (5, 5), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        thickness = np.asarray(rough, np.float64)[..., None] / 255
        low = np.linspace(0, 1, size[1])[:, None, None]
        sky = np.array([70, 120, 200]) + low * np.array([60, 50, 20])
        cloud = np.array([215, 215, 220]) - 60 * (1 - thickness)
        pixels = np.where(thickness > 0.55, cloud, sky) + numbers.normal(0, 6, (size[1], size[0], 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"img{index}.jpg", quality=95)
        Image.fromarray(np.where(thickness[..., 0] > 0.55, 255, 0).astype(np.uint8)).save(folder / "labels" / f"img{index}.png")
    (folder / "class_names.list").write_text("sky\ncloud\n")
    write_config(folder, **config)
    return folder


def write_config(folder: Path, **changes: object) -> None:
    (folder / "config.list").write_text(json.dumps({**CONFIG, **changes}))


class Commands:
    """`maskwright waggle` and its container's program, over a folder, with checkpoints and datasets of their own."""

    def __init__(self, place: Path) -> None:
        self.folder, self.checkpoints, self.datasets = place / "storage", place / "checkpoints", place / "datasets"
        own = {"CHECKPOINTS": self.checkpoints, "DATASETS": self.datasets, "TASK_PYTHON": sys.executable, "PYTHONPATH": ROOT}
        own["TMPDIR"] = place  # where the container's program lays the dataset
        self.environment = {**os.environ, **{name: str(value) for name, value in own.items()}, "LAUNCHER": "process"}

    def waggle(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self._run("cli", "waggle", str(self.folder), "--config", "config.list", "--image_type", "waggle_cloud", "--json", *more)

    def container(self, *more: str) -> subprocess.CompletedProcess[str]:
        places = ("--storage", str(self.folder), "--checkpoints", str(self.checkpoints))
        return self._run("training_api.waggle", "--config", "/data/config.list", "--image_type", "waggle_cloud", *places, *more)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def log(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "MODEL-first" / "log.csv")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The plugin's documented example, run to its end."""
    commands = Commands(tmp_path_factory.mktemp("waggle"))
    draw_clouds(commands.folder)
    try:
        done = commands.waggle()
        assert done.returncode == 0, done.stdout + done.stderr
        yield commands
    finally:
        launcher = ProcessLauncher(commands.checkpoints, {})
        for job in launcher.running():
            launcher.stop(job, grace=0)


@trains
def test_the_documented_example_ends_with_every_file_it_promises(example: Commands):
    output = example.folder / "MODEL-first"
    tiles = {f"visualization_viz/iter{iteration:012d}.jpg" for iteration in (20, 40, 52)}
    promised = {"config.list", "log.csv", "checkpoint.pth.tar", "model_best.pth.tar", "split.json", *tiles}
    assert {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()} == promised
    assert json.loads((output / "config.list").read_text()) == CONFIG
    with Image.open(output / "visualization_viz" / "iter000000000052.jpg") as tile:
        assert tile.size == (2 * 3 * 96, 2 * 2 * 96)  # four validation pictures, two by two, of six panels each


@trains
def test_its_log_has_a_row_an_iteration_and_a_row_a_validation(example: Commands):
    log = example.log()
    assert list(log.columns) == COLUMNS
    learnt, scored = log[log["train/loss"].notna()], log[log["valid/loss"].notna()]
    assert list(learnt["iteration"]) == list(range(52))
    assert list(learnt["epoch"]) == [iteration // 4 for iteration in range(52)]
    assert list(scored["iteration"]) == [20, 40, 52]
    assert learnt[["valid/loss", "valid/mean_iu"]].isna().all(axis=None)
    assert log["elapsed_time"].is_monotonic_increasing
    assert learnt["train/loss"].iloc[0] == pytest.approx(96 * 96 * np.log(2), rel=0.5)  # a sum over pixels, of a mean picture


@trains
def test_it_learns_both_classes(example: Commands):
    scored = example.log().dropna(subset=["valid/mean_iu"])
    truth = [read_mask(pair.mask) for pair in open_dataset(next(example.datasets.iterdir())).pairs]
    everywhere_sky = float(np.mean([(mask == 0).mean() for mask in truth])) / 2
    assert scored["valid/mean_iu"].max() > everywhere_sky + 0.15
    assert scored["valid/acc_cls"].max() > 0.65
    best = read_checkpoint(example.folder / "MODEL-first" / "model_best.pth.tar")
    assert best.best_mean_iu == pytest.approx(scored["valid/mean_iu"].max(), abs=1e-6)


@trains
def test_no_picture_is_on_both_sides_and_the_split_is_written_down(example: Commands):
    split = json.loads((example.folder / "MODEL-first" / "split.json").read_text())
    assert (len(split["training"]), len(split["validation"])) == (16, 4)
    assert not set(split["training"]) & set(split["validation"])


@trains
def test_its_result_is_a_model_of_the_product_that_is_served(example: Commands):
    with TestClient(inference.create_app(InferenceSettings(checkpoints=example.checkpoints))) as api:
        (model,) = api.get("/v1/models").json()
        assert (model["network"], model["backbone"], model["classes"]) == ("fcn", "resnet50", ["sky", "cloud"])
        picture = (example.folder / "images" / "img3.jpg").read_bytes()
        answer = api.post(f"/v1/models/{model['name']}/predict", files={"picture": ("img3.jpg", picture)})
        assert answer.is_success, answer.text


@trains
def test_its_checkpoint_goes_into_torchvisions_own_network(example: Commands):
    build_network("fcn", "resnet50", 2)
    from torchvision.models.segmentation import fcn_resnet50  # after build_network, which helps it where its operators are missing

    state = torch.load(example.folder / "MODEL-first" / "checkpoint.pth.tar", weights_only=True)
    assert set(state) == {"epoch", "iteration", "arch", "best_mean_iu", "model_state_dict", "optim_state_dict"}
    assert state["iteration"] == 52
    fcn_resnet50(weights=None, weights_backbone=None, num_classes=2, aux_loss=False).load_state_dict(state["model_state_dict"])


@trains
def test_a_longer_run_goes_on_from_the_checkpoint_and_survives_a_kill(example: Commands):
    before = example.log()
    write_config(example.folder, max_iteration=58, interval_validate=3)
    done = _killed_after(example, "iter000000000054.jpg")
    assert done != 0
    again = example.waggle()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Going on with the job storage-first-2" in again.stderr
    log = example.log()
    learnt = log[log["train/loss"].notna()]
    assert list(learnt["iteration"]) == list(range(58))
    pd.testing.assert_frame_equal(log.iloc[: len(before)], before)
    assert list(log.dropna(subset=["valid/loss"])["iteration"]) == [20, 40, 52, 54, 57, 58]
    finished = example.waggle()
    assert finished.returncode == 2
    assert "MODEL-first is finished" in finished.stderr


@trains
def test_the_containers_program_tests_a_checkpoint_and_leaves_it_as_it_is(example: Commands):
    write_config(example.folder, mode="test", output_dir="tested", pretrained_net="/storage/MODEL-first/model_best.pth.tar")
    done = example.container()
    assert done.returncode == 0, done.stdout + done.stderr
    output = example.folder / "MODEL-tested"
    log = pd.read_csv(output / "log.csv")
    assert len(log) == 1
    trained = read_checkpoint(example.folder / "MODEL-first" / "model_best.pth.tar")
    assert log["valid/mean_iu"][0] == pytest.approx(trained.best_mean_iu, abs=1e-6)
    assert [path.name for path in (output / "visualization_viz").iterdir()] == [f"iter{trained.iteration:012d}.jpg"]
    assert not list(output.glob("*.tar"))
    model = json.loads((example.checkpoints / "storage-tested" / "model" / "model.json").read_text())
    assert (model["weights"], model["weights_from"]) == ("from_checkpoint", "MODEL-first/model_best.pth.tar")
    assert "testing model_best.pth.tar" in (example.checkpoints / "storage-tested" / "train.log").read_text()


def _killed_after(example: Commands, tile: str) -> int:
    """Start the run, and end its job by force as soon as this tile is there. Gives the command's exit code."""
    arguments = ["waggle", str(example.folder), "--image_type", "waggle_cloud"]
    with subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments], env=example.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as command:
        file = example.folder / "MODEL-first" / "visualization_viz" / tile
        wait_for(file.exists, DEADLINE)
        record = json.loads((example.checkpoints / "storage-first-2" / "task.json").read_text())
        os.killpg(record["pid"], signal.SIGKILL)
        return command.wait(timeout=DEADLINE)


def test_a_run_that_is_loaded_again_goes_on_bit_by_bit(tmp_path: Path):
    dataset = _dataset(tmp_path, pictures=5, size=(40, 32))
    unbroken, broken = (_engine(dataset, max_iteration=4, interval_validate=2) for _ in range(2))
    losses = [float(step.loss) for epoch in (1, 2) for step in unbroken.train_epoch(epoch)]
    first = [float(step.loss) for step in broken.train_epoch(1)]
    broken.save(tmp_path)
    resumed = _engine(dataset, max_iteration=4, interval_validate=2)
    resumed.load(tmp_path)
    assert first + [float(step.loss) for step in resumed.train_epoch(2)] == losses
    straight, again = unbroken.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def _dataset(tmp_path: Path, **drawn: object) -> Path:
    folder = draw_clouds(tmp_path / "storage", **drawn)  # type: ignore[arg-type]
    import_run(open_run(folder, "config.list", "waggle_cloud"), tmp_path / "dataset", lambda _done, _total: None)
    return tmp_path / "dataset"


def _engine(dataset: Path, **changes: object) -> WaggleEngine:
    config = WaggleConfig.model_validate({**CONFIG, "batch_size": 2, **changes})
    network = find_network("pytorch", *config.network)
    settings = read_hyperparameters(config.hyperparameters(), network.defaults)
    pictures = WholePictures(open_dataset(dataset).pairs, config, seed=3, multiple_of=network.multiple_of)
    return WaggleEngine(Plan(network, settings, 2, [0.5, 0.5], pictures, gpus=[], seed=3), config)


def test_every_picture_teaches_once_in_a_pass_whatever_the_batch_size(tmp_path: Path):
    dataset = _dataset(tmp_path, pictures=5, size=(16, 16))
    config = WaggleConfig.model_validate({**CONFIG, "batch_size": 2, "n_workers": 2})
    pictures = WholePictures(open_dataset(dataset).pairs, config, seed=0, multiple_of=8)
    assert [len(batch.masks) for batch in pictures.batches(0, 6)] == [2, 2, 1, 2, 2, 1]
    seen = {batch.pixels[index].tobytes() for batch in pictures.batches(3, 6) for index in range(len(batch.masks))}
    assert len(seen) == 5


def test_pictures_of_different_sizes_share_a_batch_and_what_is_added_is_ignored():
    small, large = (np.ones((3, side, side), np.float32) for side in (8, 13))
    batch = stack([(small, np.ones((8, 8), np.uint8)), (large, np.ones((13, 13), np.uint8))], multiple_of=8)
    assert batch.pixels.shape == (2, 3, 16, 16)
    assert [(mask != 255).sum() for mask in batch.masks] == [64, 169]


def test_scores_are_those_of_the_fcn_paper():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 0, 0, 1, 255]], np.uint8), np.array([[0, 0, 1, 1, 2]], np.uint8))
    accuracy, per_class, mean_iu, weighted = scores_of(matrix)
    assert accuracy == 3 / 4
    assert per_class == pytest.approx((2 / 3 + 1) / 2)
    assert mean_iu == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert weighted == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 2)


def test_a_tile_holds_nine_pictures_and_no_more(tmp_path: Path):
    tile = Tile()
    for _ in range(11):
        tile.add(np.zeros((10, 14, 3), np.uint8), np.zeros((10, 14), np.uint8), np.ones((10, 14), np.uint8))
    tile.save(tmp_path / "tile.jpg")
    with Image.open(tmp_path / "tile.jpg") as drawn:
        assert drawn.size == (3 * 3 * 14, 3 * 2 * 10)


def test_a_label_belongs_to_its_picture_by_its_whole_name(tmp_path: Path):
    dataset = _dataset(tmp_path, pictures=12, size=(16, 16))
    for name in ("img1", "img10", "img11"):
        with Image.open(tmp_path / "storage" / "labels" / f"{name}.png") as label:
            assert (read_mask(dataset / "labels" / f"{name}.png") == (np.asarray(label) > 175)).all()


@pytest.mark.parametrize(("shade", "class_id"), [(0, 0), (175, 0), (176, 1), (255, 1)])
def test_a_cloud_begins_above_175(tmp_path: Path, shade: int, class_id: int):
    folder = draw_clouds(tmp_path / "storage", pictures=2, size=(16, 16))
    Image.new("L", (16, 16), shade).save(folder / "labels" / "img0.png")
    Image.new("L", (16, 16), shade).save(folder / "labels" / "img1.jpg")
    (folder / "labels" / "img1.png").unlink()
    import_run(open_run(folder, "config.list", "waggle_cloud"), tmp_path / "dataset", lambda _done, _total: None)
    for name in ("img0", "img1"):
        assert (read_mask(tmp_path / "dataset" / "labels" / f"{name}.png") == class_id).all()


@pytest.mark.parametrize("image_type", ["voc", "cityscape"])
def test_other_labels_hold_class_ids_and_the_older_folder_is_read_too(tmp_path: Path, image_type: str):
    folder = draw_clouds(tmp_path / "storage", pictures=2, size=(16, 16))
    ids = np.array([[0, 1, 2, 255]] * 4, np.uint8)
    for index in range(2):
        Image.fromarray(ids.repeat(4, axis=0).repeat(4, axis=1)).save(folder / "labels" / f"img{index}.png")
    (folder / "class_names.list").write_text("road\ntree\nhouse\n")
    (folder / "train").mkdir()
    for name in ("images", "labels"):
        (folder / name).rename(folder / "train" / name)
    found = import_run(open_run(folder, "config.list", image_type), tmp_path / "dataset", lambda _done, _total: None)  # type: ignore[arg-type]
    assert found.classes == ["road", "tree", "house"]
    assert np.unique(read_mask(tmp_path / "dataset" / "labels" / "img0.png")).tolist() == [0, 1, 2, 255]
    assert not (tmp_path / "dataset" / "split.json").exists()


def test_the_wizard_may_start_from_such_a_folder(tmp_path: Path):
    folder = draw_clouds(tmp_path / "storage", pictures=2, size=(16, 16))
    assert recognise_format(folder) == "waggle"
    dataset = _dataset(tmp_path / "more", pictures=2, size=(16, 16))
    proposal = read_waggle_config(dataset).proposal(pictures=16, pixels=96 * 96)
    assert proposal["epochs"] == 13
    assert proposal["learning_rate"] == pytest.approx(LEARNS["lr"] * 96 * 96)
    read_hyperparameters(proposal, {})


def test_older_files_are_understood(tmp_path: Path):
    older = {name: value for name, value in CONFIG.items() if name not in ("batch_size", "n_workers", "mode", "pretrained_net")}
    (tmp_path / "config.list").write_text(json.dumps({**older, "fcn": 101, "pretrained": "old.pth.tar"}))
    config = read_waggle_config(tmp_path)
    assert (config.batch_size, config.n_workers, config.mode, config.pretrained_net) == (1, 2, "train", "old.pth.tar")
    assert config.network == ("fcn", "resnet101")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"max_iteration": None}, "for max_iteration"),
        ({"fcn": "32s"}, "cannot say '32s' for fcn"),
        ({"backbone": "vgg"}, "for backbone"),
        ({"output_dir": "../elsewhere"}, "without a slash"),
        ({"pretrained_net": "nowhere.pth.tar"}, "There is no checkpoint nowhere.pth.tar"),
        ({"pretrained_net": "../outside.pth.tar"}, "lies outside"),
        ({"pretrained_net": "/etc/passwd"}, "lies outside"),
    ],
)
def test_a_wrong_key_is_named_before_anything_begins(tmp_path: Path, changes: dict[str, object], word: str):
    write_config(tmp_path, **changes)
    with pytest.raises(Invalid, match=word):
        open_run(tmp_path, "config.list", "voc")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"lr": 1e-10}'])
def test_a_config_list_that_is_none_is_refused_with_an_example(tmp_path: Path, text: str):
    (tmp_path / "config.list").write_text(text)
    with pytest.raises(Invalid) as refused:
        read_waggle_config(tmp_path)
    assert "interval_validate" in refused.value.cure


class Trap:
    """What a pickle of a stranger may hold: a call that is made while it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def test_of_the_plugins_pickled_model_only_the_weights_are_read_and_nothing_is_run(tmp_path: Path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)))
    file, sprung = tmp_path / "model_best.pth.tar", tmp_path / "sprung"
    content = {"model_state_dict": model, "best_mean_iu": np.float64(0.5), "iteration": 7, "arch": "FCN", "trap": Trap(sprung)}
    torch.save(content, file)
    checkpoint = read_checkpoint(file)
    assert not sprung.exists()
    assert (checkpoint.iteration, checkpoint.best_mean_iu) == (7, 0.5)
    state = model.state_dict()
    assert set(checkpoint.weights) == set(state)
    assert all(torch.equal(checkpoint.weights[name], state[name]) for name in state)
    torch.load(file, weights_only=False)
    assert sprung.exists()  # the trap was a real one


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes):
    (tmp_path / "checkpoint.pth.tar").write_bytes(content)
    with pytest.raises(Invalid, match=r"checkpoint\.pth\.tar"):
        read_checkpoint(tmp_path / "checkpoint.pth.tar")


def test_a_backbone_alone_is_a_start_and_another_network_is_refused(tmp_path: Path):
    network, file = build_network("fcn", "resnet50", 2), tmp_path / "resnet50.pth"
    from torchvision.models import resnet50  # after build_network, which helps it where its own operators are missing

    backbone = resnet50(weights=None).state_dict()
    torch.save(backbone, file)
    untrained = put_weights(network, read_checkpoint(file), file)
    assert untrained
    assert all(name.startswith("classifier.") for name in untrained)
    assert torch.equal(network.state_dict()["backbone.layer4.2.conv3.weight"], backbone["layer4.2.conv3.weight"])
    torch.save({name: value for name, value in backbone.items() if "layer4" not in name}, file)
    with pytest.raises(Invalid, match="of another network"):
        put_weights(network, read_checkpoint(file), file)


@pytest.mark.parametrize("loss", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_a_cure_before_it_is_told(tmp_path: Path, loss: float):
    folder = JobFolder(tmp_path)
    figures = FiguresFile(folder, ["sky", "cloud"])
    log = StepLog(figures, Events(folder), 1, 1, 1, WaggleTraining.calmer)
    log.add(WaggleStep(torch.tensor(loss), 1, 1e-3, iteration=40, counts=torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(Invalid, match="iteration 40 is no number") as refused:
        log.finish()
    assert "smaller lr" in refused.value.cure
    figures.close(published=False)
    assert not folder.events_file.exists()
    assert len(folder.figures_file.read_text().splitlines()) == 1


def test_pictures_that_are_read_in_tiles_have_no_part_in_the_validation_loss(tmp_path: Path):
    run = open_run(draw_clouds(tmp_path, pictures=2, size=(16, 16)), "config.list", "waggle_cloud")
    (tmp_path / "split.json").write_text("{}")
    training = WaggleTraining.__new__(WaggleTraining)  # no more of it than what it was last asked for
    training.engine = WaggleEngine.__new__(WaggleEngine)
    training.engine.seen = np.zeros((1, 2, 16, 16), np.float32)
    losses = [training._loss(np.ones((side, side), np.uint8)) for side in (16, 17)]
    assert losses == [pytest.approx(16 * 16 * np.log(2)), None]
    results, matrix = Results(run, 0, tmp_path / "split.json"), ConfusionMatrix(2)
    for training.losses in (losses, losses[1:]):
        tile = Tile()
        tile.add(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8))
        results.validated(0, 1, training._validation_loss(), matrix, tile)
    results.close()
    log = pd.read_csv(run.output / "log.csv")
    assert log["valid/loss"][0] == pytest.approx(losses[0])
    assert pd.isna(log["valid/loss"][1])
    Results(run, 1, tmp_path / "split.json").close()  # goes on after them
    assert len(pd.read_csv(run.output / "log.csv")) == 2


def test_a_seed_below_nothing_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["waggle", "--image_type", "voc", "--seed", "-1"])
    with pytest.raises(SystemExit):
        container()
    assert "from 0 to 2147483647, not -1" in capsys.readouterr().err
