"""A proxy from proxy.json reaches image builds and jobs that fetch, and its password reaches neither image nor history nor log."""

import json
import os
import shutil
import socketserver
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.container import container_request
from tests.conftest import ROOT
from tests.deployed import BUILD_DEADLINE, SOMEBODY, deployed
from tests.engine import BASE_IMAGE, compose, engine, image

SECRET = "marked-password"
PROBE = f"""FROM {BASE_IMAGE}
ARG SERVICE
RUN python3 -c "import os; [os.environ[name].index('127.0.0.1:9') for name in ('HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy')]"
RUN python3 -c "import os; assert 'mirror.local' in os.environ['NO_PROXY']"
RUN echo {uuid.uuid4()}
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the product's build files, set up with a proxy, whose gui is built from a small file that looks for it."""
    for name in ("build", "run"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns(".env"))
    shutil.copy(ROOT / "setup_solution_parameters.sh", tmp_path)
    address = f"http://ada:{SECRET}@127.0.0.1:9"
    (tmp_path / "proxy.json").write_text(json.dumps({"HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": "mirror.local"}, indent=2))
    (tmp_path / "build" / "service.dockerfile").write_text(PROBE)
    return tmp_path


@pytest.mark.parametrize("builder", ["0", "1"], ids=["legacy builder", "BuildKit"])
def test_a_build_has_the_proxy_and_leaves_no_trace_of_its_password(tree: Path, builder: str) -> None:
    with engine() as client:
        image(client)
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"DOCKER_BUILDKIT": builder, "COMPOSE_DOCKER_CLI_BUILD": builder}

        def said(*command: str) -> str:
            done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300, check=False)
            if "BuildKit is enabled but the buildx component is missing" in done.stderr:
                pytest.skip("this Docker client has no BuildKit")
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        printed = said("./setup_solution_parameters.sh", "--arch", "cpu", "--yes")
        name = f"maskwright-test-{uuid.uuid4().hex[:8]}"
        build = (tree / "build" / "build_cpu.yml").read_text().replace("image: maskwright_gui", f"image: {name}")
        (tree / "build" / "build_cpu.yml").write_text(build)
        try:
            printed += said(*compose(), "-f", "build/build_cpu.yml", "build", "gui")
            built = client.images.get(name)
            assert SECRET not in printed
            assert SECRET not in json.dumps([built.history(), built.attrs])
            assert SECRET not in said("docker", "history", "--no-trunc", name)
        finally:
            if client.images.list(name):
                client.images.remove(name, force=True)


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy that writes down what it is asked, and connects nobody to anything."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Refuse)
        self.asked: list[str] = []


class Refuse(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        lines = [line.decode().strip() for line in iter(self.rfile.readline, b"\r\n") if line]
        self.server.asked.append("\n".join(lines))  # type: ignore[attr-defined]
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@contextmanager
def listening(address: str) -> Iterator[Proxy]:
    with Proxy(address) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join(10)


@pytest.mark.timeout(BUILD_DEADLINE)
def test_a_job_that_fetches_weights_asks_the_proxy_and_shows_nobody_its_password(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    os.chown(tmp_path / "weights", *SOMEBODY)
    (tmp_path / "checkpoints").mkdir()
    with engine() as client:
        (gateway,) = {row["Gateway"] for row in client.networks.list("^bridge$")[0].attrs["IPAM"]["Config"] if "Gateway" in row} or {""}
        if not gateway:
            pytest.skip("this engine's bridge has no address of the host")
        with listening(gateway) as proxy:
            address = f"http://ada:{SECRET}@{gateway}:{proxy.server_address[1]}"
            settings = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "WEIGHTS": str(tmp_path / "weights")}
            with deployed(client, tmp_path / "checkpoints", **settings) as product:
                product.start("fetching", engine="pytorch", network="unet", backbone="resnet18", weights="pre_trained")
                end = product.wait_for_state("fetching", "failed", "finished")
                assert SECRET in json.dumps(client.containers.get("maskwright-fetching").attrs["Config"]["Env"])
                assert end["state"] == "failed"
                folder = product.checkpoints / "fetching"
                written = "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())
                shown = product.gui.get("/jobs/fetching").text + product.sdk.get("/v1/jobs/fetching").text + product.compose("logs")
                product.start("plain", engine="majority", network="majority", backbone="none")
                product.wait_for_state("plain", "finished")
                assert SECRET not in json.dumps(client.containers.get("maskwright-plain").attrs)
        assert any(request.startswith("CONNECT ") for request in proxy.asked), proxy.asked
        assert SECRET not in written
        assert SECRET not in shown


def test_a_job_that_fetches_nothing_is_not_told_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:{SECRET}@proxy")
    request = container_request(Task("a", "pytorch", [], Path("/c/a")), "an_image", lambda path: path, "0:0")
    assert SECRET not in json.dumps(request)
