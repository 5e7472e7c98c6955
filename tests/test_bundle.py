"""A machine without internet: what run/bundle.sh packs is loaded into an empty engine, in a network namespace without a route."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_for
from tests.deployed import BUILD_DEADLINE, DEADLINE, SMALL, build
from tests.engine import compose, engine, image

ASK = """
import json, sys, time, httpx
name, wish, picture = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
sdk, inference, gui = (httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) for port in (4222, 4343, 4200))
deadline = time.monotonic() + 300
def well(client, path):
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False
while not all(well(*one) for one in ((sdk, "/v1/health"), (inference, "/v1/health"), (gui, "/"))):
    assert time.monotonic() < deadline, "the services do not answer"
    time.sleep(0.5)
sdk.post("/v1/jobs", json={"name": name, "dataset": "dummy_dataset", **wish}).raise_for_status()
while (state := sdk.get(f"/v1/jobs/{name}").json()["status"])["state"] not in ("finished", "failed"):
    assert time.monotonic() < deadline, state
    time.sleep(0.2)
assert state["state"] == "finished", state
assert gui.get(f"/jobs/{name}").is_success
mask = inference.post(f"/v1/models/{name}/predict", files={"picture": open(picture, "rb")}).raise_for_status()
print(mask.headers["content-type"])
"""
UNET = {"engine": "pytorch", "network": "unet", "backbone": "resnet18", "hyperparameters": SMALL}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_DEADLINE)]


def sh(*command: str | Path, cwd: Path = ROOT, seconds: float = BUILD_DEADLINE, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked. Without GluonCV's image, which is loaded as the others are."""
    folder = tmp_path_factory.mktemp("bundle")
    with engine() as client:
        image(client)
        build()
    began = time.monotonic()
    printed = sh("run/bundle.sh", "cpu", folder / "maskwright.tar", "--without", "gluon")
    print(printed, f"made in {time.monotonic() - began:.0f} s")
    sh("tar", "-xf", folder / "maskwright.tar", "-C", folder)
    (folder / "maskwright.tar").unlink()
    return folder / "maskwright-cpu"


@dataclass
class Island:
    """An engine in a network namespace that has the loopback device and nothing else."""

    process: "subprocess.Popen[bytes]"
    socket: Path

    def sh(self, *command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
        """Run in that namespace, with that engine."""
        inside = ("nsenter", f"--net=/proc/{self.process.pid}/ns/net")
        return sh(*inside, *command, cwd=cwd, DOCKER_HOST=f"unix://{self.socket}", DOCKER_SOCKET=str(self.socket), **environment)


@contextmanager
def island() -> Iterator[Island]:
    if os.getuid() != 0 or not all(shutil.which(tool) for tool in ("dockerd", "unshare", "nsenter", "ip")):
        pytest.skip("a second Docker engine without a network needs root, dockerd, unshare, nsenter and ip")
    folder = Path(tempfile.mkdtemp(prefix="island"))  # short: sockets lie in it
    places = f"--data-root {folder}/data --exec-root {folder}/exec --pidfile {folder}/pid --host unix://{folder}/docker.sock"
    with open(folder / "log", "wb") as log:
        command = ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec dockerd {places}"]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    found = Island(process, folder / "docker.sock")
    try:
        wait_for(lambda: process.poll() is not None or (folder / "docker.sock").exists(), DEADLINE)
        if process.poll() is not None:
            pytest.skip(f"no second Docker engine starts here: {(folder / 'log').read_text()[-600:]}")
        answers = ["docker", "-H", f"unix://{found.socket}", "version"]
        wait_for(lambda: subprocess.run(answers, capture_output=True).returncode == 0, DEADLINE)
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
        shutil.rmtree(folder)


def test_from_the_archive_to_a_mask_on_a_machine_without_a_route(bundle: Path) -> None:
    assert not [*bundle.rglob(".env"), *bundle.rglob("proxy.json")], "a token or a password would be in it"
    with island() as machine:
        assert machine.sh("ip", "route", "show", "default") == ""
        assert machine.sh("docker", "image", "ls", "--quiet") == ""
        began = time.monotonic()
        printed = machine.sh("run/load_bundle.sh", cwd=bundle)
        print(f"loaded in {time.monotonic() - began:.0f} s")
        assert "Loaded." in printed
        machine.sh("./setup_solution_parameters.sh", "--arch", "cpu", "--yes", cwd=bundle)
        up = (*compose(), "-f", "run/run_cpu.yml")
        machine.sh(*up, "up", "-d", "--no-build", cwd=bundle)
        try:
            wish = str(UNET).replace("'", '"')
            picture = bundle / "datasets" / "dummy_dataset" / "images" / "plate_00.png"
            assert machine.sh(sys.executable, "-c", ASK, "island", wish, picture).strip() == "image/png"
        finally:
            print(machine.sh(*up, "logs", "--no-color", cwd=bundle))
            machine.sh("sh", "-c", "docker ps --all --quiet | xargs -r docker rm --force", cwd=bundle)


def test_a_file_that_was_damaged_on_its_way_is_named(bundle: Path) -> None:
    page = bundle / "docs" / "docker.md"
    whole = page.read_text()
    page.write_text(whole + "x")
    try:
        done = subprocess.run([bundle / "run" / "load_bundle.sh"], capture_output=True, text=True, timeout=DEADLINE, check=False)
    finally:
        page.write_text(whole)
    assert done.returncode == 1
    assert "./docs/docker.md: FAILED" in done.stderr
    assert "Copy the archive again" in done.stderr


def test_an_image_that_was_not_built_is_named_with_the_command_that_builds_it(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [ROOT / "run" / "bundle.sh", "gpu_mkl", tmp_path / "it.tar"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "docker-compose -f build/build_gpu_mkl.yml build" in done.stderr
    assert not (tmp_path / "it.tar").exists()
