"""The whole product in containers: built, started, asked for a training, asked for a mask, and ended."""

import io
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.clicks import chromium, needs_chromium, press, start, watched_page
from tests.conftest import wait_for
from tests.engine import BASE_IMAGE, compose, engine, image
from tests.test_waggle import draw_clouds

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "datasets" / "dummy_dataset" / "images" / "plate_00.png"
BUILD_DEADLINE = 1200.0
DEADLINE = 120.0
MEGABYTE = 2**20
SOMEBODY = (1234, 1235)
"""User and group of the checkpoints folder where the tests run as root, and could make files of anybody."""
SMALL = {"epochs": 1, "batch_size": 2, "crop": 64, "short_side": 64, "crops_per_picture": 1, "workers": 0}
WISHES = {
    "majority": {"network": "majority", "backbone": "none"},
    "pytorch": {"network": "unet", "backbone": "resnet18", "hyperparameters": SMALL},
    "gluon": {"network": "fastscnn", "backbone": "fastscnn", "hyperparameters": SMALL},
}
BUDGETS = {
    "maskwright_docker_sdk_api": 150,
    "maskwright_gui": 150,
    "maskwright_inference_api": 450,
    "pytorch_semantic_segmentation_training_api_cpu": 1300,
    "gluoncv_semantic_segmentation_training_api_cpu": 800,
}
"""Megabytes beyond the base image."""

pytestmark = pytest.mark.slow


@dataclass
class Running:
    """The product, up on ports of its own, with a checkpoints folder of its own."""

    gui: httpx.Client
    sdk: httpx.Client
    inference: httpx.Client
    checkpoints: Path
    client: "docker.DockerClient"


def run(*command: str, seconds: float = DEADLINE, **environment: str) -> str:
    """What a command printed. Fails with it where the command fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("arch", ["cpu", "cpu_mkl"])
def test_the_compose_files_are_valid_and_agree_on_the_images(arch: str) -> None:
    services = run(*compose(), "-f", f"run/run_{arch}.yml", "config")
    builds = run(*compose(), "-f", f"build/build_{arch}.yml", "config")
    for line in services.splitlines():
        if "image:" in line:
            assert line.strip() in builds


@pytest.fixture(scope="module")
def images() -> Iterator["docker.DockerClient"]:
    """The images of the services and of both engines, built from the tree as it is."""
    command = compose()
    with engine() as client:
        image(client)
        run(*command, "-f", "build/build_cpu.yml", "build", seconds=BUILD_DEADLINE)
        yield client


@pytest.fixture(scope="module")
def running(images: "docker.DockerClient", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    if os.getuid() == 0:
        os.chown(checkpoints, *SOMEBODY)
    ports = {"GUI_PORT": str(free_port()), "SDK_PORT": str(free_port()), "INFERENCE_PORT": str(free_port())}
    environment = {**ports, "CHECKPOINTS": str(checkpoints), "DATASETS": str(ROOT / "datasets")}
    command = [*compose(), "-p", f"maskwright-test-{uuid.uuid4().hex[:8]}", "-f", "run/run_cpu.yml"]
    clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) for port in ports.values()]
    try:
        run(*command, "up", "-d", **environment)
        wait_for(lambda: all(map(answers, clients, ("/", "/v1/health", "/v1/health"))), DEADLINE)
        yield Running(*clients, checkpoints, images)
    finally:
        print(logs(command, environment))
        run(*command, "down", "-v", **environment)
        for client in clients:
            client.close()


def logs(command: list[str], environment: dict[str, str]) -> str:
    return run(*command, "logs", "--no-color", **environment)


@pytest.mark.timeout(BUILD_DEADLINE)
def test_the_images_are_as_small_as_promised(images: "docker.DockerClient") -> None:
    base = images.images.get(BASE_IMAGE).attrs["Size"]
    for name, most in BUDGETS.items():
        beyond = (images.images.get(name).attrs["Size"] - base) / MEGABYTE
        print(f"{name}: {beyond:.0f} MB beyond {BASE_IMAGE}")
        assert beyond <= most, name


@pytest.mark.timeout(BUILD_DEADLINE)
@pytest.mark.parametrize("trainer", WISHES)
def test_from_start_to_mask_in_containers(running: Running, trainer: str) -> None:
    name = f"docker-{uuid.uuid4().hex[:8]}"
    started = running.sdk.post("/v1/jobs", json={"name": name, "dataset": "dummy_dataset", "engine": trainer, **WISHES[trainer]})
    assert started.status_code == 201, started.text
    container = running.client.containers.get(f"maskwright-{name}")
    try:
        assert container.attrs["HostConfig"]["NetworkMode"] == "none"

        with running.sdk.stream("GET", f"/v1/jobs/{name}/events") as events:
            assert "event: end" in list(events.iter_lines())
        job = running.sdk.get(f"/v1/jobs/{name}").json()
        assert job["status"]["state"] == "finished", (job, running.sdk.get(f"/v1/jobs/{name}/log").text)

        log = running.sdk.get(f"/v1/jobs/{name}/log").text
        assert (running.checkpoints / name / "train.log").read_text().splitlines() == log.splitlines()
        owner = running.checkpoints.stat()
        assert {(path.stat().st_uid, path.stat().st_gid) for path in (running.checkpoints / name).rglob("*")} == {
            (owner.st_uid, owner.st_gid)
        }
        assert running.gui.get(f"/jobs/{name}").is_success

        mask = running.inference.post(f"/v1/models/{name}/predict", files={"picture": ("plate.png", PICTURE.read_bytes())})
        assert mask.is_success, mask.text
        with Image.open(io.BytesIO(mask.content)) as answer, Image.open(PICTURE) as picture:
            assert answer.size == picture.size
            assert max(value for _, value in answer.getcolors() or []) < len(classes(running))

        wait_for(lambda: running.sdk.delete(f"/v1/jobs/{name}").status_code == 204)  # once its container is gone
        assert running.client.containers.list(all=True, filters={"label": f"maskwright.job={name}"}) == []
    finally:
        for left in running.client.containers.list(all=True, filters={"label": f"maskwright.job={name}"}):
            left.remove(force=True)


@needs_chromium
@pytest.mark.timeout(BUILD_DEADLINE)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Playwright's driver
def test_the_wizard_starts_a_container_and_its_page_follows_it(running: Running) -> None:
    name = f"docker-{uuid.uuid4().hex[:8]}"
    with chromium() as browser, watched_page(browser, str(running.gui.base_url)) as page:
        start(page, "dummy_dataset", "pytorch/unet/resnet18", name, **SMALL)
        assert running.client.containers.get(f"maskwright-{name}")
        expect(page.get_by_text("finished: the model is published")).to_be_visible(timeout=180_000)  # its log, as it streams
        page.goto(f"/models/{name}/try")
        page.locator("input[type=file]").set_input_files(PICTURE)
        press(page, "See what it finds")
        overlay = page.locator("#answer img.over").first
        expect(overlay).to_be_visible(timeout=60_000)
        assert overlay.evaluate("image => image.naturalWidth") == 256
    wait_for(lambda: running.sdk.delete(f"/v1/jobs/{name}").status_code == 204)


def classes(running: Running) -> list[str]:
    names: list[str] = running.sdk.get("/v1/datasets/dummy_dataset").json()["classes"]
    return names


@pytest.mark.timeout(BUILD_DEADLINE)
def test_the_services_hold_no_more_rights_than_they_need(running: Running) -> None:
    for service in ("docker_sdk_api", "gui", "inference_api"):
        (container,) = running.client.containers.list(
            filters={"label": f"com.docker.compose.service={service}", "ancestor": f"maskwright_{service}"}
        )
        sources = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
        assert ("/var/run/docker.sock" in sources) == (service == "docker_sdk_api")
        assert sources.get("/checkpoints", False) == (service == "docker_sdk_api")
        assert container.exec_run(["cat", "/proc/1/status"]).output.decode().split("CapEff:")[1].split()[0] in (
            "0" * 16,
            "00000000000000c0",
        )


@pytest.mark.timeout(BUILD_DEADLINE)
@pytest.mark.parametrize("mount", ["/storage", "/data"])
def test_the_waggle_plugins_container_command_works(images: "docker.DockerClient", tmp_path: Path, mount: str) -> None:
    run("docker", "build", "-t", "maskwright_waggle", "-f", "build/waggle.dockerfile", ".", seconds=BUILD_DEADLINE)
    folder = draw_clouds(tmp_path / "clouds", pictures=4, size=(32, 32), max_iteration=2, interval_validate=2, batch_size=1)
    user = ("--user", f"{os.getuid()}:{os.getgid()}")
    command = ("maskwright_waggle", "--config", "config.list", "--image_type", "waggle_cloud")
    printed = run("docker", "run", "--rm", "--network", "none", *user, "-v", f"{folder}:{mount}", *command, seconds=DEADLINE * 4)
    assert "finished: the model is published" in printed
    assert (folder / "MODEL-first" / "visualization_viz" / "iter000000000002.jpg").is_file()
    assert (folder / "checkpoints" / f"{mount[1:]}-first" / "model" / "model.onnx").is_file()
