"""The loop, the scores, the crops: trainings end as they should, and the figures are right."""

import csv
import json
import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from annotations.augment import SCALES, read_sample
from annotations.dataset import IGNORE, open_dataset, read_picture
from contracts.events import now
from contracts.hyperparameters import Hyperparameters, read_hyperparameters
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.model import read_model
from contracts.networks import find_network
from tests.conftest import ROOT, draw_dataset
from training_api.data import Crops
from training_api.engines import Plan, create_engine
from training_api.engines.pytorch_losses import cross_entropy, known_weight
from training_api.metrics import ConfusionMatrix
from training_api.schedule import learning_rate

SMALL = {"crop": 32, "batch_size": 4, "crops_per_picture": 1, "short_side": 48, "workers": 1, "learning_rate": 0.005}


def write_job(folder: Path, dataset: Path, engine: str, **settings: object) -> JobFolder:
    names = {"majority": ("majority", "none"), "pytorch": ("unet", "resnet18")}[engine]
    row = find_network(engine, *names)
    folder.mkdir(parents=True)
    job = Job(
        name=folder.name,
        dataset=dataset.name,
        engine=engine,
        network=names[0],
        backbone=names[1],
        dataset_folder=dataset,
        created=now(),
        hyperparameters=read_hyperparameters(settings, row.defaults),
    )
    JobFolder(folder).write_job(job)
    return JobFolder(folder)


def run(folder: JobFolder) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training_api", str(folder.path)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


def states(folder: JobFolder) -> list[str]:
    return [event.event for event in folder.events()]


def test_a_training_leaves_a_model_figures_previews_and_its_split(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=2)
    result = run(folder)
    assert result.returncode == 0, result.stderr
    assert states(folder)[-1] == "finished"
    assert {path.name for path in folder.model.iterdir()} >= {"model.json", "palette.txt", "configuration.json", "README.md", "example.jpg"}
    split = json.loads(folder.split_file.read_text())
    assert sorted(split["training"] + split["validation"]) == [f"p{index}" for index in range(6)]
    rows = list(csv.DictReader(folder.figures_file.read_text().splitlines()))
    assert [row["epoch"] for row in rows if row["mean_iou"]] == ["1", "2"]
    assert read_picture(folder.previews / "epoch-0002.jpg").shape[1] == 4 * 320 + 24


def test_majority_scores_what_the_commonest_class_scores(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority")
    run(folder)
    model = read_model(folder.model)
    # One validation picture of 64 × 48 with a thing of 18 × 18: the background is right where there is none of it.
    share = 1 - 18 * 18 / (64 * 48)
    assert model.scores.pixel_accuracy == pytest.approx(share)
    known = [iou for iou in model.scores.iou_per_class.values() if iou is not None]
    assert model.scores.mean_iou == pytest.approx(share / len(known))
    assert "everywhere" in " ".join(event.message for event in folder.events() if event.event == "warning")


def test_a_last_epoch_that_answers_one_class_only_is_not_taken_for_the_model(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=1)
    assert run(folder).returncode == 0
    scored = folder.confusion()
    scored.best.counts = [[1] * 3] * 3  # as of an epoch that knew more
    folder.confusion_file.write_text(scored.model_dump_json())
    job = folder.job()
    folder.write_job(job.model_copy(update={"hyperparameters": job.hyperparameters.model_copy(update={"epochs": 2})}))
    assert run(folder).returncode == 0
    warned = [event.message for event in folder.events() if event.event == "warning"]
    assert warned[-1].startswith("Its last epochs answered “background” only; the model is that of epoch 1.")


def test_the_same_seed_gives_the_same_training_and_another_one_another(tmp_path: Path, dataset: Path):
    settings = read_hyperparameters({**SMALL, "epochs": 2}, {})
    pairs = open_dataset(dataset).pairs
    first, again, other = ([batch.pixels for batch in Crops(pairs, settings, seed).epoch(1)] for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("workers", [0, 3])
def test_crops_come_in_the_same_order_however_many_threads_prepare_them(dataset: Path, workers: int):
    pairs = open_dataset(dataset).pairs
    settings = read_hyperparameters({**SMALL, "workers": workers, "batch_size": 2}, {})
    alone = read_hyperparameters({**SMALL, "workers": 1, "batch_size": 2}, {})
    for one, other in zip(Crops(pairs, settings, 0).epoch(2), Crops(pairs, alone, 0).epoch(2), strict=True):
        assert (one.pixels == other.pixels).all()
        assert (one.masks == other.masks).all()


def test_crops_show_rare_classes_as_often_as_asked(tmp_path: Path):
    folder = tmp_path / "d"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((200, 200), np.uint8)
    mask[100:104, 100:104] = 1
    Image.fromarray(mask).save(folder / "labels" / "a.png")
    Image.new("RGB", (200, 200)).save(folder / "images" / "a.png")
    (folder / "objectclasses.json").write_text('{"classesname": ["background", "dot"]}')
    pairs = open_dataset(folder).pairs
    for share in (0.0, 1.0):
        settings = Hyperparameters(crop=32, batch_size=50, crops_per_picture=200, rare_class_share=share, short_side=200)
        seen = np.mean([(mask == 1).any() for batch in Crops(pairs, settings, 0).epoch(1) for mask in batch.masks])
        assert seen == 1.0 if share else seen < 0.2


def test_beyond_the_edge_of_a_small_picture_nothing_is_taught(tmp_path: Path, dataset: Path):
    settings = Hyperparameters(crop=96, batch_size=6, crops_per_picture=1)
    (batch,) = Crops(open_dataset(dataset).pairs, settings, 0).epoch(1)
    assert batch.masks.shape == (6, 96, 96)
    assert (batch.masks == IGNORE).mean() > 1 - (64 * 48 / 96**2) * SCALES**2 - 0.05


def test_the_confusion_matrix_counts_right():
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([[0, 0, 1, 1, IGNORE]], np.uint8), np.array([[0, 1, 1, 2, 2]], np.uint8))
    assert matrix.iou() == [0.5, pytest.approx(1 / 3), None, None]
    assert matrix.mean_iou() == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert matrix.pixel_accuracy() == 0.5
    assert matrix.predicted_classes() == [0, 1, 2]


def test_the_learning_rate_rises_and_then_falls_to_nothing():
    for schedule in ("one_cycle", "poly"):
        settings = Hyperparameters(schedule=schedule, learning_rate=1.0, warm_up=0.2)
        rates = [learning_rate(settings, step, 100) for step in range(100)]
        top = int(np.argmax(rates))
        assert top in (19, 20, 21)
        assert sorted(rates[:top]) == rates[:top]
        assert sorted(rates[top:], reverse=True) == rates[top:]
        assert rates[-1] < 0.05


def test_a_dataset_that_is_broken_ends_the_job_with_file_and_cure(tmp_path: Path, dataset: Path):
    (dataset / "labels" / "p1.png").unlink()
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority")
    assert run(folder).returncode == 1
    last = folder.events()[-1]
    assert last.event == "failed"
    assert "images/p1.png" in last.cause
    assert last.cure


def test_an_error_nobody_foresaw_is_told_too(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority")
    folder.previews.write_text("in the way")
    result = run(folder)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert folder.events()[-1].event == "failed"
    assert "FileExistsError" in folder.events()[-1].cause


def test_somebody_who_stops_gets_no_model_or_the_best_so_far_as_they_wish(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=5)
    folder.ask_to_stop(keep_best=False)
    run(folder)
    assert states(folder)[-1] == "stopped"
    assert not folder.model.exists()


def test_pytorch_learns_resumes_to_the_bit_and_exports_what_it_trained(tmp_path: Path, dataset: Path):
    """One training of four epochs against the same one broken off after two and resumed."""
    whole = write_job(tmp_path / "ck" / "whole", dataset, "pytorch", **SMALL, epochs=4)
    result = run(whole)
    assert result.returncode == 0, result.stderr
    broken = write_job(tmp_path / "ck" / "broken", dataset, "pytorch", **SMALL, epochs=4)
    script = (
        "import sys; from pathlib import Path; from contracts.job_folder import JobFolder; from training_api import train as t\n"
        "original = t.Training._end_epoch\n"
        "def end(self, scores):\n    original(self, scores)\n    scores.epoch == 2 and sys.exit(9)\n"
        "t.Training._end_epoch = end\n"
        "from training_api.figures import Events; f = JobFolder(Path(sys.argv[1])); t.train(f, Events(f))"
    )
    first = subprocess.run([sys.executable, "-c", script, str(broken.path)], cwd=ROOT, timeout=200, check=False)
    assert first.returncode == 9
    assert run(broken).returncode == 0
    histories = [[e.scores for e in f.events() if e.event == "epoch"] for f in (whole, broken)]
    keys = ("epoch", "loss", "learning_rate", "mean_iou", "iou_per_class", "best")
    assert [[getattr(s, key) for key in keys] for s in histories[0]] == [[getattr(s, key) for key in keys] for s in histories[1]]
    model = read_model(whole.model)
    assert model.parity.pictures == 1
    assert model.parity.equal_pixels >= 0.999
    assert {"model.onnx", "weights.safetensors"} <= {path.name for path in whole.model.iterdir()}


def test_a_training_that_runs_away_fails_and_says_so_in_events_that_can_be_read(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
):
    """Weights that are multiplied by -9 in every step are no numbers any more after some thirty of them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads wait for each other longer than layers this small take
    away = {**SMALL, "batch_size": 1, "crops_per_picture": 8, "learning_rate": 10, "weight_decay": 1, "clip": 0, "warm_up": 0}
    folder = write_job(tmp_path / "ck" / "m", dataset, "pytorch", **away, epochs=3)
    assert run(folder).returncode == 1
    told = [json.loads(line) for line in folder.events_file.read_text().splitlines()]
    assert all(math.isfinite(event["loss"]) for event in told if event["event"] == "progress")
    assert all(math.isfinite(event["scores"]["loss"]) for event in told if event["event"] == "epoch")
    assert told[-1]["event"] == "failed"
    assert "no number any more: the training has run away" in told[-1]["cause"]
    assert "smaller learning rate" in told[-1]["cure"]
    assert "nan" not in folder.figures_file.read_text()


def test_a_network_that_ran_away_in_its_last_step_is_found_out_where_it_is_scored(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority")
    script = (
        "import sys; from training_api import __main__ as job; from training_api.engines.majority import MajorityEngine as Engine\n"
        "sound = Engine.predict\n"
        "Engine.predict = lambda engine, batch: sound(engine, batch) * float('nan')\n"
        "sys.exit(job.main())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder.path)], cwd=ROOT, timeout=120, check=False, capture_output=True)
    assert done.returncode == 1
    assert "the training has run away" in folder.events()[-1].cause
    assert not folder.best.exists()


def test_pictures_much_taller_than_wide_are_shown_and_published(tmp_path: Path):
    """At a column's width they are taller than a JPEG can be, together and each by itself."""
    folder = write_job(tmp_path / "ck" / "m", draw_dataset(tmp_path / "strips", pictures=5, size=(21, 66_000)), "majority", epochs=1)
    folder.write_job(folder.job().model_copy(update={"validation_share": 0.8}))
    assert run(folder).returncode == 0, folder.events()[-1]
    assert read_picture(folder.previews / "epoch-0001.jpg").shape[1] == 4 * 320 + 24
    assert max(read_picture(folder.model / "example.jpg").shape) <= 4 * 320


def test_a_job_whose_pictures_or_classes_are_not_there_any_more_does_not_go_on(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=1)
    assert run(folder).returncode == 0
    classes = dataset / "objectclasses.json"
    classes.write_text(classes.read_text().replace("circle", "ring"))
    assert run(folder).returncode == 1
    last = folder.events()[-1]
    assert last.cause == "The dataset's classes have changed since this job began: they were background, pad, circle."
    for name in ("images", "labels"):
        (dataset / name / "p2.png").rename(tmp_path / f"{name}-p2.png")
    assert run(folder).returncode == 1
    last = folder.events()[-1]
    assert last.cause == "The dataset has changed since this job began: p2 is not there any more."
    assert last.cure == "Put it back with its mask, or start a new job."


def test_a_model_says_how_long_it_learnt_not_how_long_its_job_waited(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=2)
    folder.write_job(folder.job().model_copy(update={"created": now() - timedelta(days=3)}))
    assert run(folder).returncode == 0
    assert read_model(folder.model).seconds == sum(event.scores.seconds for event in folder.events() if event.event == "epoch")


def test_of_a_picture_no_more_is_kept_in_memory_than_is_counted(dataset: Path):
    sample = read_sample(open_dataset(dataset).pairs[0], short_side=48)
    assert sample.places
    assert all(places.base is None for places in sample.places)
    assert sample.nbytes == 64 * 48 * 4 + sum(places.nbytes for places in sample.places)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_class_that_weighs_much_is_not_taught_where_it_is_not(smoothing: float):
    numbers = torch.Generator().manual_seed(5)
    scores, weights = torch.randn(2, 3, 8, 8, generator=numbers), torch.tensor([0.2, 0.3, 9.0])
    masks = torch.randint(0, 2, (2, 8, 8), generator=numbers)
    masks[0, :2] = IGNORE
    loss = cross_entropy(scores, masks, weights, known_weight(masks, weights), smoothing=smoothing)
    pixels = functional.cross_entropy(scores, masks, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing)
    counts = weights[masks.where(masks != IGNORE, 0)] * (masks != IGNORE)
    torch.testing.assert_close(loss, (pixels * counts).sum() / counts.sum())
    if not smoothing:
        torch.testing.assert_close(loss, functional.cross_entropy(scores, masks, weights, ignore_index=IGNORE))


def test_a_training_goes_on_in_float16_from_where_it_was_left_in_wider_numbers(tmp_path: Path, dataset: Path):
    settings = Hyperparameters(crop=32, batch_size=2, short_side=48, workers=0)
    row = find_network("pytorch", "unet", "resnet18")
    engine = create_engine(Plan(row, settings, 3, [0.8, 0.1, 0.1], Crops(open_dataset(dataset).pairs[:2], settings, 0), [], 0))
    engine.save(tmp_path)
    engine.scaler = torch.amp.GradScaler("cpu", enabled=True)  # as on a GPU that has no bfloat16
    engine.load(tmp_path)
    assert engine.scaler.get_scale() == 2**16
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=True)
    engine.save(tmp_path)
    engine.scaler = torch.amp.GradScaler("cpu", enabled=True)
    engine.load(tmp_path)
    assert engine.scaler.get_scale() == 2
