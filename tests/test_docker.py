"""The whole product in containers: built, started, asked for a training, asked for a mask, and ended."""

import io
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from PIL import Image
from playwright.sync_api import expect

from docker_sdk_api.gpus import BUILDS
from docker_sdk_api.launchers import Limits, Task
from docker_sdk_api.launchers.container import IMAGES, ContainerLauncher
from tests.clicks import chromium, needs_chromium, press, start, watched_page
from tests.conftest import ROOT, wait_for
from tests.deployed import BUILD_DEADLINE, DEADLINE, SMALL, Deployment, build, deployed, run
from tests.engine import BASE_IMAGE, compose, engine, image
from tests.test_waggle import draw_clouds

PICTURE = ROOT / "datasets" / "dummy_dataset" / "images" / "plate_00.png"
MEGABYTE = 2**20
GPU_IMAGES = "MASKWRIGHT_TEST_GPU_IMAGES"
"""Set to 1, the images for GPUs are built and looked into too: 10 GB."""
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


@pytest.mark.parametrize("arch", ["cpu", "cpu_mkl", "gpu", "gpu_mkl"])
def test_the_compose_files_are_valid_and_agree_on_the_images(arch: str) -> None:
    services = run(*compose(), "-f", f"run/run_{arch}.yml", "config")
    builds = run(*compose(), "-f", f"build/build_{arch}.yml", "config")
    for line in services.splitlines():
        if "image:" in line:
            assert line.strip() in builds


@pytest.fixture(scope="module")
def images() -> Iterator["docker.DockerClient"]:
    with engine() as client:
        image(client)
        build()
        yield client


@pytest.fixture(scope="module")
def running(images: "docker.DockerClient", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(images, tmp_path_factory.mktemp("checkpoints")) as product:
        yield product


@pytest.mark.timeout(BUILD_DEADLINE)
def test_the_images_are_as_small_as_promised(images: "docker.DockerClient") -> None:
    base = images.images.get(BASE_IMAGE).attrs["Size"]
    for name, most in BUDGETS.items():
        beyond = (images.images.get(name).attrs["Size"] - base) / MEGABYTE
        print(f"{name}: {beyond:.0f} MB beyond {BASE_IMAGE}")
        assert beyond <= most, name


@pytest.mark.timeout(BUILD_DEADLINE)
@pytest.mark.parametrize("trainer", WISHES)
def test_from_start_to_mask_in_containers(running: Deployment, trainer: str) -> None:
    name = f"docker-{uuid.uuid4().hex[:8]}"
    limits = {"memory_limit": 3000, "cpus": 1.5}
    wish = {"name": name, "dataset": "dummy_dataset", "engine": trainer, **limits, **WISHES[trainer]}
    started = running.sdk.post("/v1/jobs", json=wish)
    assert started.status_code == 201, started.text
    container = running.container(name)
    try:
        asked = container.attrs["HostConfig"]
        assert (asked["NetworkMode"], asked["CapDrop"], asked["Init"], asked["ShmSize"]) == ("none", ["ALL"], True, 2 * 2**30)
        assert asked["SecurityOpt"] == ["no-new-privileges"]
        assert (asked["Memory"], asked["NanoCpus"]) == (3_000_000_000, 1_500_000_000)
        mounts = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
        assert mounts.pop(f"/checkpoints/{name}") is True
        assert mounts.pop(f"/checkpoints/{name}/job.json") is False
        assert mounts == {"/datasets/dummy_dataset": False}

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

        wait_for(lambda: running.sdk.delete(f"/v1/jobs/{name}").is_success)  # once its container is gone
        assert running.client.containers.list(all=True, filters={"label": f"maskwright.job={name}"}) == []
    finally:
        for left in running.client.containers.list(all=True, filters={"label": f"maskwright.job={name}"}):
            left.remove(force=True)


@pytest.mark.timeout(BUILD_DEADLINE)
def test_the_images_with_mkl_train_too(images: "docker.DockerClient", tmp_path: Path) -> None:
    run(*compose(), "-f", "build/build_cpu_mkl.yml", "build", "gluon", seconds=BUILD_DEADLINE)
    with deployed(images, tmp_path, arch="cpu_mkl") as product:
        product.start("first", engine="gluon", **WISHES["gluon"])
        assert product.container("first").attrs["Config"]["Image"].endswith("_cpu_mkl")
        assert product.wait_for_state("first", "finished", "failed")["state"] == "finished"
        assert product.inference.post("/v1/models/first/predict", files={"picture": ("plate.png", PICTURE.read_bytes())}).is_success


@pytest.mark.skipif(os.environ.get(GPU_IMAGES) != "1", reason=f"the images for GPUs take 10 GB: {GPU_IMAGES}=1 builds them")
@pytest.mark.timeout(2 * BUILD_DEADLINE)
@pytest.mark.parametrize("arch", ["gpu", "gpu_mkl"])
def test_the_images_for_gpus_import_their_framework_with_cuda_and_know_the_gpus_that_they_are_said_to(arch: str) -> None:
    """No GPU is needed: neither to build them nor to import them."""
    with engine() as client:
        image(client)
        run(*compose(), "-f", f"build/build_{arch}.yml", "build", "pytorch", "gluon", seconds=2 * BUILD_DEADLINE)
        loaded = "print(*sorted({row.split()[-1].rsplit('/')[-1] for row in open('/proc/self/maps') if '/nvidia/' in row}))"

        def printed(name: str, program: str) -> list[str]:
            done: bytes = client.containers.run(name, ["-c", f"{program}; {loaded}"], network_mode="none", user="1234:1234", remove=True)
            return done.decode().splitlines()

        torch = printed(f"{IMAGES['pytorch']}_gpu", "import torch; print(torch.version.cuda); print(torch._C._cuda_getArchFlags())")
        assert torch[0].startswith("13.")
        codes = [code.removeprefix("sm_") for code in torch[1].split()]
        assert tuple(f"{code[:-1]}.{code[-1]}" for code in codes) == BUILDS["pytorch"].code_for
        assert {"libcudart.so.13", "libcudnn.so.9", "libnccl.so.2"} <= set(torch[2].split())

        features = "print(*(row.name for row in mxnet.runtime.feature_list() if row.enabled))"
        program = f"import mxnet, gluoncv; {features}; print(mxnet.nd.ones(3).sum())"  # computes on the CPU all the same
        mxnet = printed(f"{IMAGES['gluon']}_{arch}", program)
        assert {"CUDA", "CUDNN", "NCCL"} <= set(mxnet[0].split())
        assert {"libcudart.so.11.0", "libcudnn.so.8", "libcublas.so.11"} <= set(mxnet[-1].split())


@needs_chromium
@pytest.mark.timeout(BUILD_DEADLINE)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Playwright's driver
def test_the_wizard_starts_a_container_and_its_page_follows_it(running: Deployment) -> None:
    name = f"docker-{uuid.uuid4().hex[:8]}"
    with chromium() as browser, watched_page(browser, str(running.gui.base_url)) as page:
        start(page, "dummy_dataset", "pytorch/unet/resnet18", name, **SMALL)
        assert running.container(name)
        expect(page.get_by_text("finished: the model is published")).to_be_visible(timeout=180_000)  # its log, as it streams
        page.goto(f"/models/{name}/try")
        page.locator("input[type=file]").set_input_files(PICTURE)
        press(page, "See what it finds")
        overlay = page.locator("#answer img.over").first
        expect(overlay).to_be_visible(timeout=60_000)
        assert overlay.evaluate("image => image.naturalWidth") == 256
    wait_for(lambda: running.sdk.delete(f"/v1/jobs/{name}").is_success)


def classes(running: Deployment) -> list[str]:
    names: list[str] = running.sdk.get("/v1/datasets/dummy_dataset").json()["classes"]
    return names


@pytest.mark.timeout(BUILD_DEADLINE)
def test_the_services_hold_no_more_rights_than_they_need(running: Deployment) -> None:
    for service in ("docker_sdk_api", "gui", "inference_api"):
        container = running.service(service)
        sources = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
        assert ("/var/run/docker.sock" in sources) == (service == "docker_sdk_api")
        assert sources.get("/checkpoints", False) == (service == "docker_sdk_api")
        assert container.exec_run(["cat", "/proc/1/status"]).output.decode().split("CapEff:")[1].split()[0] in (
            "0" * 16,
            "00000000000000c0",
        )


ASK_THE_KERNEL = """
import json, os, pathlib, sys
status = dict(row.split(":\\t", 1) for row in pathlib.Path("/proc/self/status").read_text().splitlines())
shared = os.statvfs("/dev/shm")
def refused(path):
    try:
        open(path, "w")
    except OSError:
        return True
def limit(new, old):
    path = new if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else old
    return pathlib.Path("/sys/fs/cgroup", path).read_text().split()
print(json.dumps({
    "capabilities": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no new privileges": status["NoNewPrivs"],
    "first process": pathlib.Path("/proc/1/comm").read_text().strip(),
    "shared memory": shared.f_frsize * shared.f_blocks,
    "networks": os.listdir("/sys/class/net"),
    "engine's socket": os.path.exists("/var/run/docker.sock"),
    "may write": [path for path in sys.argv[1:] if not refused(path)],
    "memory": limit("memory.max", "memory/memory.limit_in_bytes")[0],
    "processor": limit("cpu.max", "cpu/cpu.cfs_quota_us")[0],
    "processes": limit("pids.max", "pids/pids.max")[0],
}))
"""


def test_what_a_job_may_do_asked_of_the_kernel_inside_its_container(tmp_path: Path) -> None:
    job, pictures = tmp_path / "job", tmp_path / "pictures"
    for folder in (job, pictures):
        folder.mkdir()
    not_its_own = [str(job / name) for name in ("job.json", "asked.json", "task.json", "pulse.json")]
    for file in not_its_own:
        Path(file).write_text("{}")
    with engine() as client:
        launcher = ContainerLauncher(tmp_path, {"python": image(client)}, lambda: client)
        ways = [*(str(folder / "new") for folder in (job, pictures, Path("/etc"))), *not_its_own]
        limits = Limits(memory_bytes=512 * MEGABYTE, cpus=1.5)
        launcher.launch(Task("job", "python", ["-c", ASK_THE_KERNEL, *ways], job, read_only=[pictures], limits=limits))
        try:
            assert wait_for(lambda: not (pulse := launcher.poll("job")).alive and pulse).exit_code == 0, list(launcher.logs("job"))
            (said,) = launcher.logs("job")
        finally:
            launcher.stop("job", grace=0)
            launcher.remove("job")
    found = json.loads(said)
    if os.getuid() == 0:  # then the job is root in there too, without any of its rights
        found["may write"] = [path for path in found["may write"] if not path.startswith("/etc")]
    assert found == {
        "capabilities": [0, 0, 0, 0, 0],
        "no new privileges": "1",
        "first process": "docker-init",
        "shared memory": 2 * 2**30,
        "networks": ["lo"],
        "engine's socket": False,
        "may write": ways[:1],
        "memory": str(512 * MEGABYTE),
        "processor": "150000",
        "processes": "4096",
    }


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
