"""The training API of the GluonCV training GUI: what its clients say becomes a job like any other, or is refused in a sentence."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from contracts.errors import Problem
from contracts.events import now
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.original import Config, Wish, job_of
from tests.conftest import ROOT, ended, wait_for
from tests.waits import free_port

PYTHON = ROOT / ".venv-gluon" / "bin" / "python"
needs_gluon = pytest.mark.skipif(not PYTHON.exists(), reason=f"no Python with MXNet at {PYTHON}")
INFO = {"dataset_name": "plates", "num_classes": 3, "classes": ["background", "pad", "circle"], "train_ratio": 80}
SAID = {"weight_type": "from_scratch", "network": "fcn", "backbone": "resnet50", "model_name": "old", "api_port": 5300}
SAID |= {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.001, "num_workers": 0, "batch_size": 2, "validation_batch_size": 3}
SAID |= {"epochs": 1, "augment_data": False, "crop_size": 64, "base_size": 96, "gpus": [-1]}


@pytest.fixture
def waiting(tmp_path: Path) -> Job:
    """A job that was started with two GPUs and waits, beside an earlier one with weights, and a classifier."""
    job = Job(
        name="old",
        dataset="plates",
        engine="gluon",
        network="fcn",
        backbone="resnet50",
        gpus=[1, 2],
        dataset_folder=tmp_path / "plates",
        created=now(),
        api_port=5300,
        waiting=True,
        hyperparameters=Hyperparameters(),
    )
    earlier = JobFolder(tmp_path / "checkpoints" / "earlier")
    earlier.model.mkdir(parents=True)
    earlier.write_job(job.model_copy(update={"name": "earlier", "network": "fastscnn", "backbone": "fastscnn"}))
    (earlier.model / "model_best.params").write_bytes(b"")
    classifier = tmp_path / "classifiers" / "birds"
    classifier.mkdir(parents=True)
    (classifier / "config.json").write_text('{"network": "resnet50_v1s"}')
    return job


def told(waiting: Job, tmp_path: Path, info: dict | None = None, **said: object) -> Job:
    wish = Wish.model_validate({"dataset_info": info or INFO, "config": said})
    return job_of(wish, waiting, tmp_path / "checkpoints", tmp_path / "classifiers")


def test_every_hyperparameter_that_an_old_client_knows_is_heeded(waiting: Job, tmp_path: Path):
    job = told(waiting, tmp_path, **SAID)
    assert (job.name, job.network, job.backbone, job.weights, job.gpus) == ("old", "fcn", "resnet50", "from_scratch", [])
    assert (job.validation_share, job.waiting, job.api_port) == (0.2, False, 5300)
    settings = job.hyperparameters
    assert (settings.learning_rate, settings.momentum, settings.weight_decay, settings.workers) == (0.01, 0.8, 0.001, 0)
    assert (settings.batch_size, settings.epochs, settings.augment) == (2, 1, False)
    assert (settings.crop, settings.short_side) == (64, 96)


def test_what_it_does_not_say_has_the_defaults_that_it_knows(waiting: Job, tmp_path: Path):
    settings = told(waiting, tmp_path, weight_type="from_scratch", network="fcn", backbone="resnet50").hyperparameters
    assert (settings.learning_rate, settings.momentum, settings.weight_decay, settings.workers) == (0.001, 0.9, 0.0001, 1)
    assert (settings.batch_size, settings.epochs, settings.crop, settings.short_side) == (1, 15, 480, 520)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"weight_type": "pre_trained"}, "deeplab_resnet101_voc"),
        ({"weight_type": "pre_trained", "network": "psp", "backbone": "resnet50", "pretrained_dataset": "ade"}, "psp_resnet50_ade"),
        ({"weight_type": "pre_trained", "network": "fcn", "backbone": "resnet50", "pretrained_dataset": "ade"}, "fcn_resnet50_ade"),
        ({"weight_type": "pre_trained", "base_weight_name": "fcn_resnet50", "pretrained_dataset": "ade"}, "fcn_resnet50_ade"),
        ({"weight_type": "PRE_TRAINED_OFFLINE", "base_weight_name": "fcn_resnet50_ade"}, "fcn_resnet50_ade"),
    ],
)
def test_pre_trained_weights_are_found_by_the_names_of_these_clients(waiting: Job, tmp_path: Path, said: dict, expected: str):
    job = told(waiting, tmp_path, **said)
    assert f"{job.network}_{job.backbone}" == expected.rpartition("_")[0]
    assert (job.weights, job.weights_from) == (said["weight_type"].lower(), expected)


@pytest.mark.parametrize("kind", ["from_checkpoint", "pre_trained_offline"])
def test_an_earlier_model_brings_its_own_network(waiting: Job, tmp_path: Path, kind: str):
    job = told(waiting, tmp_path, weight_type=kind, base_model_name="earlier", base_weight_name="fastscnn_fastscnn")
    assert (job.network, job.weights, job.weights_from) == ("fastscnn", "from_checkpoint", "earlier")
    assert job.weights_folder == tmp_path / "checkpoints" / "earlier"


def test_a_classifier_brings_its_backbone(waiting: Job, tmp_path: Path):
    job = told(waiting, tmp_path, weight_type="pre_trained_classifier", network="fcn", backbone="resnet50_v1s", base_model_name="birds")
    assert (job.network, job.backbone, job.weights) == ("fcn", "resnet50", "pre_trained_classifier")
    assert job.weights_folder == tmp_path / "classifiers" / "birds"


def test_gpus_are_those_that_the_job_was_started_with(waiting: Job, tmp_path: Path):
    assert told(waiting, tmp_path, **{**SAID, "gpus": [2]}).gpus == [2]
    assert told(waiting, tmp_path, **{key: value for key, value in SAID.items() if key != "gpus"}).gpus == [1, 2]


@pytest.mark.parametrize(("ratio", "share"), [(80, 0.2), (0.75, 0.25), (50, 0.5)])
def test_a_train_ratio_is_a_fraction_or_a_percentage(waiting: Job, tmp_path: Path, ratio: float, share: float):
    assert told(waiting, tmp_path, {"train_ratio": ratio}, **SAID).validation_share == share


def test_a_crop_in_between_is_rounded_up(waiting: Job, tmp_path: Path):
    assert told(waiting, tmp_path, **{**SAID, "crop_size": 500}).hyperparameters.crop == 512


@pytest.mark.parametrize(
    ("said", "cause", "cure"),
    [
        ({"network": "unet"}, "There is no network “unet” on “resnet50”", "fcn on resnet50"),
        ({"weight_type": "magic"}, "There is no weight_type “magic”", "from_checkpoint"),
        ({"weight_type": "pre_trained", "pretrained_dataset": "moon"}, "“fcn_resnet50_moon”", "fcn_resnet50_ade"),
        ({"weight_type": "from_checkpoint", "base_model_name": "gone"}, "There is no checkpoint “gone”", "/models/checkpoints"),
        ({"weight_type": "from_checkpoint", "base_model_name": "../x"}, "There is no checkpoint", "/models/checkpoints"),
        ({"weight_type": "pre_trained_classifier"}, "There is no classifier “”", "/models/classifiers"),
        ({"gpus": [1, 7]}, "not with GPU 7", "same GPUs"),
        ({"lr": -1}, "learning_rate cannot be -1.0", "greater than 0"),
        ({"epochs": 0}, "epochs cannot be 0", "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused_with_cause_and_cure(waiting: Job, tmp_path: Path, said: dict, cause: str, cure: str):
    with pytest.raises(Problem) as problem:
        told(waiting, tmp_path, **{**SAID, **said})
    assert cause in problem.value.cause
    assert cure in problem.value.cure
    assert problem.value.status in (400, 404)


@pytest.fixture
def training(api: TestClient, dataset: Path) -> Iterator[httpx.Client]:
    """The training API of the job “old”, which an old client has just started."""
    port = free_port()
    wish = {"name": "old", "dataset_name": "plates", "gpus": [-1], "api_port": port}
    answer = api.post("/jobs/start", content=json.dumps(wish), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"] is True
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        yield client


def stage(api: TestClient) -> str:
    return api.get("/v1/jobs/old").json()["status"]["stage"]


@needs_gluon
def test_a_job_waits_for_its_client_and_stops_when_told(api: TestClient, training: httpx.Client):
    assert stage(api).startswith("waiting for its client")
    assert all(training.get(f"/health{slash}").status_code == 200 for slash in ("", "/"))
    for slash in ("", "/"):
        default = training.post(f"/configuration/default{slash}").json()
        assert (default["lr"], default["epochs"], default["crop_size"], default["gpus"]) == (0.001, 15, 480, [-1])
        assert default.keys() == Config.model_fields.keys()
    assert str(training.base_url.port) in api.get("/infrastructure/used/ports").json()

    taken = {"name": "other", "dataset_name": "plates", "gpus": [-1], "api_port": training.base_url.port}
    assert api.post("/jobs/start", json=taken).status_code == 409
    assert api.get("/jobs").json() == ["old"]

    assert api.post("/jobs/stop/", content='{"name": "old"}').json()["success"] is True
    assert ended(api, "old")["status"]["state"] == "stopped"
    assert api.get("/jobs/").json() == []
    wait_for(lambda: str(training.base_url.port) not in api.get("/infrastructure/used/ports").json())

    assert api.post("/v1/jobs/old/resume").status_code == 200
    wait_for(lambda: stage(api).startswith("waiting"))
    assert training.get("/health").status_code == 200


@needs_gluon
def test_the_training_that_a_client_asks_for_runs_as_every_other_and_stops_as_every_other(api: TestClient, training: httpx.Client):
    wish = {"dataset_info": INFO, "config": {**SAID, "epochs": 500}}
    for body, words in (
        ("no JSON", "Invalid JSON"),
        ('{"dataset_info": {}}', "config: Field required"),
        (json.dumps({**wish, "config": {**SAID, "network": "unet"}}), "There is no network “unet”"),
        (json.dumps({**wish, "dataset_info": {**INFO, "num_classes": 9}}), "num_classes is 9, and the dataset has 3 classes"),
        (json.dumps({**wish, "dataset_info": {**INFO, "classes": ["a", "b", "c"]}}), "classes are a, b, c"),
    ):
        for path in ("/data_preparation", "/training/"):
            answer = training.post(path, content=body, headers={"Content-Type": "text/plain"})
            assert (answer.status_code, words in answer.json()["detail"]) == (400, True), answer.text
    assert stage(api).startswith("waiting for its client")

    prepared = training.post("/data_preparation/", content=json.dumps(wish)).json()
    assert (prepared["success"], prepared["data"]) == (True, "5 pictures teach, 1 score.")
    assert training.post("/training", json=wish).json()["success"] is True
    again = training.post("/training", json=wish)
    assert (again.status_code, again.json()["error"]) == (409, "Taken")
    assert training.get("/health/").status_code == 200

    wait_for(lambda: api.get("/v1/jobs/old").json()["status"]["state"] == "training", 90)
    job = api.get("/v1/jobs/old").json()["job"]
    assert (job["waiting"], job["hyperparameters"]["epochs"], job["hyperparameters"]["learning_rate"]) == (False, 500, 0.01)
    assert any("fcn on resnet50" in line for line in api.post("/jobs/container/logs", content='{"name": "old"}').json())
    assert api.post("/jobs/stop", content='{"name": "old"}').status_code == 200
    assert wait_for(lambda: ended(api, "old"))["status"]["state"] == "stopped"


@needs_gluon
def test_the_pages_show_a_job_that_waits(gui: TestClient, training: httpx.Client):
    assert "waiting for its client to say what to train" in gui.get("/jobs/old").text
    assert ">old<" in gui.get("/jobs").text
