"""What users of the predecessor stumbled over, provoked on purpose: what they see now, and that docs/troubleshooting.md has it."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from docker_sdk_api.app import create_app
from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.container import ContainerLauncher
from docker_sdk_api.settings import Settings
from tests.conftest import ROOT, draw_dataset
from tests.deployed import Deployment, deployed
from tests.engine import engine, image

MAJORITY = {"name": "first", "dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    draw_dataset(tmp_path / "datasets" / "plates")
    return Settings(launcher="container", datasets=tmp_path / "datasets", checkpoints=tmp_path / "checkpoints")


def in_the_page(sentence: str) -> bool:
    """Whether docs/troubleshooting.md has a sentence; what is in <angles> there stands for anything."""
    pattern = re.sub(r"<[^>]+>", "\0", (ROOT / "docs" / "troubleshooting.md").read_text())
    return any(re.fullmatch(re.escape(said).replace("\0", ".+"), sentence) for said in re.findall(r"^> (.+)$", pattern, re.MULTILINE))


def refused(answer: dict) -> str:
    """Cause and cure, which the page must have word for word."""
    said = f"{answer['cause']} {answer['cure']}"
    assert in_the_page(said), said
    return said


def test_containers_whose_image_has_no_tag_are_no_problem_and_are_left_alone(tmp_path: Path) -> None:
    """“no RepoTag”: the predecessor's list of jobs failed with an IndexError while any such container ran."""
    with engine() as client:
        tag = f"maskwright-test-{uuid.uuid4().hex[:8]}"
        made = client.containers.create(image(client), ["sleep", "600"])
        foreign_image = made.commit(tag)
        foreign = client.containers.run(foreign_image.id, ["sleep", "600"], detach=True, init=True)
        try:
            client.api.remove_image(tag, noprune=True, force=True)  # the container goes on; its image has no name any more
            foreign.reload()
            launcher = ContainerLauncher(tmp_path, {"python": image(client)}, lambda: client)
            (tmp_path / "job").mkdir()
            launcher.launch(Task("job", "python", ["-c", "import time; time.sleep(600)"], tmp_path / "job"))
            assert launcher.running() == {"job"}
            assert isinstance(launcher.used_ports(), set)
            launcher.stop("job", grace=0)
            launcher.remove("job")
            foreign.reload()
            assert foreign.status == "running"
        finally:
            for left in (foreign, made):
                left.remove(force=True)


def test_an_image_that_was_never_built_is_named_before_anything_is_started(settings: Settings) -> None:
    """“404 pull access denied”: the predecessor asked the engine for an image of another name than the one built."""
    with engine():
        wanted = settings.model_copy(update={"images_arch": "gpu_mkl"})
        wish = {**MAJORITY, "engine": "gluon", "network": "fastscnn", "backbone": "fastscnn"}
        app = create_app(wanted)
        app.state.jobs.launcher.images["gluon"] = "gluoncv_never_built_gpu_mkl"
        with TestClient(app) as api:
            answer = api.post("/v1/jobs", json=wish)
            assert answer.status_code == 400
            assert "docker-compose -f build/build_gpu_mkl.yml build" in refused(answer.json())
            assert api.get("/v1/jobs").json() in ([], {"jobs": [], "more": False}) or "first" not in api.get("/v1/jobs").text
        app.state.jobs.launcher.client.close()


def test_a_dataset_that_is_not_valid_is_refused_with_the_file_the_reason_and_the_cure(settings: Settings) -> None:
    """“Dataset Not Valid”: the predecessor said no more than that."""
    (settings.datasets / "plates" / "labels" / "p0.png").unlink()
    local = settings.model_copy(update={"launcher": "process"})
    with TestClient(create_app(local)) as api:
        answer = api.post("/v1/jobs", json=MAJORITY)
        assert answer.status_code == 400
        assert "p0" in refused(answer.json())


def test_an_engine_that_does_not_answer_is_said_when_a_job_is_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """“job not started after general settings”, first cause: nothing is left behind, and the message is not “unknown error”."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with TestClient(create_app(settings)) as api:
        answer = api.post("/v1/jobs", json=MAJORITY)
        assert answer.status_code == 400
        assert "systemctl start docker" in refused(answer.json())
        assert not (settings.checkpoints / "first").exists()


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Deployment]:
    """Up, with a folder of datasets that only the service's container sees."""
    override = tmp_path / "override.yml"
    tmpfs = "    environment: {DATASETS: /pictures}\n    tmpfs: /pictures\n"
    override.write_text(f"services:\n  docker_sdk_api:\n{tmpfs}")
    (tmp_path / "checkpoints").mkdir()
    with engine() as client, deployed(client, tmp_path / "checkpoints", override) as product:
        yield product


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_folder_that_no_job_could_see_is_said_with_the_line_to_add(product: Deployment) -> None:
    """“job not started after general settings”, second cause: the predecessor's base_dir was typed, and wrong."""
    copied = product.service("docker_sdk_api").exec_run(["cp", "-r", "/datasets/dummy_dataset", "/pictures/plates"], user="0:0")
    assert copied.exit_code == 0, copied.output
    answer = product.sdk.post("/v1/jobs", json=MAJORITY)
    assert answer.status_code == 400
    assert "volumes of docker_sdk_api" in refused(answer.json())
    assert not (product.checkpoints / "first").exists()
