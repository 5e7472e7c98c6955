"""What would come of a training: its time from what ran here or a probe, its memory, its classes on both sides, its obstacles."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contracts.events import now
from contracts.hyperparameters import Hyperparameters
from contracts.job import EpochScores, Job, JobStatus
from contracts.networks import CATALOGUE, find_network
from docker_sdk_api.recommend import Place, step_bytes
from docker_sdk_api.self_test import lightest
from docker_sdk_api.speed import Ran, probe, read_ran, speed_of, training_seconds

UNET, LARGE = find_network("pytorch", "unet", "resnet18"), find_network("pytorch", "unet", "resnet34")
CPU, GPU = Place(cores=2, memory=10**10), Place(cores=2, memory=10**10, gpu="A GPU")
SETTINGS = Hyperparameters(crop=256, crops_per_picture=2, short_side=256, epochs=10)


def finished(seconds: list[float], device: str = "CPU, 2 threads, float32", **asked: object) -> tuple[Job, JobStatus]:
    """A job with epochs of so many seconds."""
    job = Job(name="done", dataset="plates", dataset_folder=Path("plates"), created=now(), hyperparameters=SETTINGS, **asked)
    history = [EpochScores(epoch=index, loss=1, learning_rate=0.1, seconds=value) for index, value in enumerate(seconds, 1)]
    return job, JobStatus(state="finished", device=device, history=history)


def foresee(api: TestClient, **wish: object) -> dict:
    answer = api.post("/v1/forecast", json={"name": "any", "dataset": "plates", **wish})
    assert answer.status_code == 200, answer.text
    return answer.json()


def obstacles(api: TestClient, **wish: object) -> dict[str, str]:
    return {row["field"]: row["cause"] for row in foresee(api, **wish)["obstacles"]}


def test_a_network_that_was_trained_here_is_as_fast_as_it_was():
    ran = read_ran(*finished([90, 30, 30, 31]), (40, 10))
    assert ran is not None, "the first epoch, which also warms up, does not count"
    speed = speed_of(UNET, [ran], CPU, narrow=True)
    assert speed.seconds is not None
    assert training_seconds(speed.seconds, SETTINGS, 40, 10) == pytest.approx(300)
    assert "As the last training of this network on this machine took." in speed.basis


def test_another_network_is_scaled_by_what_ran_here_and_says_so():
    own = read_ran(*finished([30, 30, 30]), (40, 10))
    assert own is not None
    speed = speed_of(LARGE, [own], CPU, narrow=False)
    assert speed.seconds == pytest.approx(LARGE.seconds * own.ratio)
    assert "other trainings on this machine" in speed.basis


def test_what_ran_on_a_gpu_tells_nothing_of_the_processor_and_nobody_guesses_a_gpu():
    ran = read_ran(*finished([30, 2, 2], device="A GPU, bfloat16", gpus=[0]), (40, 10))
    assert ran is not None
    assert ran.place == "A GPU"
    assert speed_of(UNET, [ran], GPU, narrow=True).seconds == pytest.approx(UNET.seconds * ran.ratio)
    assert "probe" in speed_of(UNET, [ran], CPU, narrow=False).basis
    other = speed_of(UNET, [ran], Place(2, 10**9, "Another GPU"), narrow=True)
    assert (other.seconds, "Another GPU yet" in other.basis) == (None, True)


def test_epochs_that_are_over_in_a_moment_tell_nothing_of_a_network():
    assert read_ran(*finished([0.4, 0.2, 0.2]), (40, 10)) is None
    assert read_ran(*finished([30.0]), (40, 10)) is None
    assert read_ran(*finished([30, 30, 30], processes=2), (40, 10)) is None


def test_without_any_training_a_probe_scales_the_catalogue():
    assert probe() == probe() > 1e8, "it is measured once"
    plain, narrow = (speed_of(UNET, [], CPU, narrow=narrow).seconds for narrow in (False, True))
    assert plain is not None
    assert narrow == pytest.approx(plain / 2)
    many = speed_of(UNET, [], Place(16, 10**10), narrow=False).seconds
    assert many is not None
    assert plain / 8 < many < plain / 3, "eight times the cores are not eight times as fast"
    assert speed_of(find_network("majority", "majority", "none"), [], CPU, narrow=False).seconds == 0


def test_the_newest_jobs_of_a_network_count_and_a_slow_one_among_them_does_not():
    rows = [Ran(UNET.key, "pytorch", "", ratio) for ratio in (2, 2, 9, 2, 2, 50, 50, 50)]
    assert speed_of(UNET, rows, CPU, narrow=False).seconds == pytest.approx(UNET.seconds * 2)


def test_every_network_says_how_fast_it_is_here(api: TestClient):
    rows = api.get("/v1/speeds").json()
    assert set(rows) == {row.key for row in CATALOGUE}
    assert all(row["basis"].endswith(".") for row in rows.values())
    unmeasured = {row.key for row in CATALOGUE if not row.seconds and row.engine != "majority"}
    assert {key for key, row in rows.items() if row["seconds"] is None} == unmeasured, "no figure is not quick"
    assert lightest("gluon").key == "gluon/fastscnn/fastscnn"


def test_memory_goes_with_the_crops_at_once_and_halves_do_with_half():
    half, whole = (step_bytes(UNET, 256, crops) - step_bytes(UNET, 256, 0) for crops in (4, 8))
    assert whole == pytest.approx(2 * half)
    assert step_bytes(UNET, 256, 8, narrow=True) < step_bytes(UNET, 256, 8)
    assert step_bytes(LARGE, 256, 8) > step_bytes(UNET, 256, 8)
    assert all(row.kept for row in CATALOGUE if row.engine == "pytorch")


def test_a_sound_wish_has_a_time_a_memory_its_classes_and_no_obstacle(api: TestClient, dataset: Path):
    found = foresee(api, validation_share=0.34)
    assert found["obstacles"] == []
    assert found["seconds"] == pytest.approx(found["epoch_seconds"] * 20)
    assert 0 < found["memory"] < found["memory_free"]
    assert {row["name"]: (row["training"], row["validation"]) for row in found["classes"]} == {
        "background": (4, 2),
        "pad": (2, 1),
        "circle": (2, 1),
    }
    assert "One picture alone scores pad, circle" in found["cautions"][0]["cause"]


def test_crops_that_cannot_fit_are_an_obstacle_until_they_may_be_taken_in_parts(api: TestClient, dataset: Path):
    many = {"crop": 2048, "batch_size": 512}
    assert "are free on this machine" in obstacles(api, hyperparameters=many)["batch_size"]
    assert "batch_size" not in obstacles(api, hyperparameters={**many, "fit_memory": True})


def test_each_obstacle_is_at_its_field(api: TestClient, dataset: Path):
    assert "deepest feature map" in obstacles(api, backbone="resnet34", hyperparameters={"crop": 32})["crop"]
    assert "needs the name of a job" in obstacles(api, weights="from_checkpoint")["weights"]
    assert "9 processes" in obstacles(api, processes=9)["processes"]
    assert "no GPU 77" in obstacles(api, gpus=[77])["gpus"]
    (dataset / "labels" / "p0.png").unlink()
    assert "cannot be trained on" in obstacles(api)["dataset"]


def test_what_there_is_not_is_refused_with_what_there_is(api: TestClient, dataset: Path):
    for wish, status in (({"network": "unett"}, 400), ({"hyperparameters": {"crop": 33}}, 400), ({"dataset": "none"}, 404)):
        answer = api.post("/v1/forecast", json={"name": "any", "dataset": "plates", **wish})
        assert answer.status_code == status
        assert answer.json()["cure"]
