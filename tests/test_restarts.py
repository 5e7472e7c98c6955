"""Down and up, and the machine going away, in the middle of a training in a container: it goes on or can go on, and the page says which."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.deployed import BUILD_DEADLINE, DEADLINE, SMALL, Deployment, deployed
from tests.engine import engine

ENGINE_UP = os.environ.get("MASKWRIGHT_DOCKER_UP", "")
"""A command that starts this machine's engine; `down` beside it ends it. Only where it is given may tests end the engine."""
LONG = {"engine": "pytorch", "network": "unet", "backbone": "resnet18", "hyperparameters": {**SMALL, "epochs": 4000}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_DEADLINE)]


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Deployment]:
    with engine() as client, deployed(client, tmp_path) as product:
        yield product


def ends_well(product: Deployment, name: str) -> None:
    """Stopped with its best weights, a job becomes a model."""
    assert product.sdk.post(f"/v1/jobs/{name}/stop", json={"keep_best": True}).is_success
    product.wait_for_state(name, "finished", "stopped", "failed")
    assert product.status(name)["state"] != "failed"
    assert [model["name"] for model in product.inference.get("/v1/models").json()] == [name]


def test_a_training_goes_on_while_all_services_are_taken_down_and_started_anew(product: Deployment) -> None:
    product.start("long", **LONG)
    before = product.wait_for_epoch("long", 2)
    container = product.container("long")
    product.compose("down")
    container.reload()
    assert container.status == "running"
    product.up()
    now = product.wait_for_epoch("long", len(before["history"]) + 1)
    assert now["state"] == "training"
    assert [row["epoch"] for row in now["history"]] == list(range(1, len(now["history"]) + 1))
    assert "long" in product.gui.get("/jobs").text
    assert product.sdk.post("/v1/jobs/long/stop", json={"keep_best": False}).is_success
    assert product.wait_for_state("long", "stopped", "failed")["state"] == "stopped"


@pytest.mark.skipif(not ENGINE_UP, reason="MASKWRIGHT_DOCKER_UP names no command that starts the engine again")
def test_after_a_power_cut_the_page_says_how_to_go_on_and_nothing_is_lost(product: Deployment) -> None:
    """The engine and all its containers end by SIGKILL, and the engine is started again."""
    product.start("long", **LONG)
    before = product.wait_for_epoch("long", 2)
    run_engine("down", "--kill")
    run_engine("up")
    product.client.ping()
    wait_for(product.ready, DEADLINE)  # by themselves: restart: unless-stopped
    status = product.status("long")
    assert status["state"] == "failed"
    assert "resume it" in status["cure"].lower()
    page = product.gui.get("/jobs/long").text
    assert status["cause"].split(",")[0] in page
    assert product.sdk.post("/v1/jobs/long/resume").is_success
    now = product.wait_for_epoch("long", len(before["history"]) + 1)
    assert [row["epoch"] for row in now["history"]] == list(range(1, len(now["history"]) + 1))
    ends_well(product, "long")


def run_engine(command: str, *words: str) -> None:
    subprocess.run([Path(ENGINE_UP).with_name(command), *words], check=True, timeout=DEADLINE, capture_output=True)
