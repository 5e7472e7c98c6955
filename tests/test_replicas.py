"""Several inference services behind a real nginx, with the lines that docs/replicas.md gives: no request fails while models change and
replicas die, and a batch is everybody's."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from contracts.durable import folder_aside
from contracts.model import Geometry
from contracts.tokens import Tokens
from tests.cluster import RAY_PYTHON, cluster
from tests.deployed import answers
from tests.served import serve_graph
from tests.service import picture, running, serve_texture
from tests.waits import ROOT, free_port, wait_for

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
TOKEN = "a-token-of-more-than-sixteen-signs"
ASK = "/v1/models/changing/predict"
CALLERS = 3

needs_nginx = pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine (Debian: apt install nginx-light)")


class Replica:
    """An inference_api in a process of its own, which can be killed and started again at the same port."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints, self.port = checkpoints, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, headers={"X-Token": TOKEN}, timeout=60, trust_env=False)
        self.start()

    def start(self) -> None:
        own = {"INFERENCE_PORT": str(self.port), "CHECKPOINTS": str(self.checkpoints), "TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        with open(self.checkpoints / f".{self.port}.log", "ab") as log:
            command = [sys.executable, "-m", "inference_api"]
            self.process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **own}, stdout=log, stderr=log)

    def ready(self) -> bool:
        assert self.process.poll() is None, "a replica ended"
        return answers(self.client, "/v1/ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def answered(self) -> float:
        """Predictions that it has made since it was started."""
        rows = [line for line in self.client.get("/v1/metrics").text.splitlines() if line.startswith("maskwright_requests_total{")]
        return sum(float(row.rpartition(" ")[2]) for row in rows if 'predict"' in row and 'status="200"' in row)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    publish(checkpoints, dark=1)
    serve_texture(checkpoints, "tiles", tile=(64, 64))
    return checkpoints


@pytest.fixture(scope="module")
def replicas(checkpoints: Path) -> Iterator[list[Replica]]:
    made = [Replica(checkpoints) for _ in range(2)]
    try:
        for replica in made:
            wait_for(replica.ready, 90)
        yield made
    finally:
        for replica in made:
            replica.kill()
            replica.client.close()


@pytest.fixture(scope="module")
def door(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of nginx before them."""
    with nginx(tmp_path_factory.mktemp("nginx"), [replica.port for replica in replicas]) as address:
        yield address


def publish(checkpoints: Path, dark: int) -> None:
    """The model `changing`, in which dark pixels are class 1 or 2, as a training publishes it: aside, then by a rename."""
    weights = np.zeros((3, 3, 1, 1), np.float32)
    weights[dark], weights[3 - dark] = -3, 3
    shutil.rmtree(checkpoints / ".next", ignore_errors=True)
    serve_graph(checkpoints / ".next", "changing", [(weights, np.array([5, 0, 0], np.float32))], Geometry(short_side=480, multiple_of=8))
    (checkpoints / "changing").mkdir(exist_ok=True)
    with folder_aside(checkpoints / "changing" / "model") as aside:
        shutil.copytree(checkpoints / ".next" / "changing" / "model", aside, dirs_exist_ok=True)
    shutil.rmtree(checkpoints / ".next")


@contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[str]:
    """With what docs/replicas.md says, for these replicas."""
    found = re.search(r"```nginx\n(.+?)```", (ROOT / "docs" / "replicas.md").read_text(), re.DOTALL)
    assert found
    port, lines = free_port(), found[1].replace("listen 4343", "listen 127.0.0.1:{}")
    lines = lines.replace("10.0.0.1:4343", f"127.0.0.1:{ports[0]}").replace("10.0.0.2:4343", f"127.0.0.1:{ports[1]}")
    temporary = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    head = f"error_log {folder}/error.log;\npid {folder}/pid;\ndaemon off;\nmaster_process off;\nevents {{ }}\n"
    http = f"http {{\n  access_log off;\n{temporary}{lines.replace('127.0.0.1:{}', f'127.0.0.1:{port}')}}}\n"
    (folder / "nginx.conf").write_text(head + http)
    running = subprocess.Popen([str(NGINX), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            wait_for(lambda: running.poll() is not None or answers(client, "/v1/health"), 30)
        assert running.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)


class Calls:
    """What callers who ask one after another were answered: when they asked, status, and body."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, bytes]] = []

    def failed(self) -> list[tuple[int, bytes]]:
        return [(status, body[:300]) for _, status, body in self.seen if status != 200]

    def more(self, number: int = 20) -> None:
        """Wait until so many more were answered."""
        enough = len(self.seen) + number
        wait_for(lambda: len(self.seen) >= enough)


@contextmanager
def calling(address: str) -> Iterator[Calls]:
    calls, over = Calls(), threading.Event()

    def ask(number: int) -> None:
        sent = picture(number, 96, 128)
        with httpx.Client(base_url=address, headers={"X-Token": TOKEN}, timeout=60, trust_env=False) as client:
            while not over.wait(0.01):
                begun = time.monotonic()
                try:
                    answer = client.post(f"{ASK}?answer=shares", files={"picture": ("p.png", sent)})
                    calls.seen.append((begun, answer.status_code, answer.content))
                except httpx.TransportError as error:
                    calls.seen.append((begun, 0, repr(error).encode()))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        calls.more()
        yield calls
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def shares(replica: Replica) -> bytes:
    return replica.client.post(f"{ASK}?answer=shares", files={"picture": ("p.png", picture(0, 96, 128))}).content


@needs_nginx
def test_a_model_published_anew_reaches_every_replica_and_no_request_fails(door: str, replicas: list[Replica], checkpoints: Path):
    former = shares(replicas[0])
    with calling(door) as calls:
        for dark in (2, 1, 2, 1, 2):
            publish(checkpoints, dark)
            wait_for(lambda former=former: all(shares(replica) != former for replica in replicas), 30)
            reached, former = time.monotonic(), shares(replicas[0])
            calls.more()
            later = {body for begun, _, body in calls.seen if begun > reached}
            assert len(later) <= CALLERS, "some were still answered by the former model"
    assert calls.failed() == []
    assert all(replica.answered() > 10 for replica in replicas)


@needs_nginx
def test_a_replica_is_killed_and_no_request_fails_and_it_is_asked_again_once_it_is_back(door: str, replicas: list[Replica]):
    with calling(door) as calls:
        replicas[0].kill()
        calls.more()
        replicas[0].start()
        wait_for(replicas[0].ready, 90)
        wait_for(lambda: replicas[0].answered() > 10, 60)
    assert calls.failed() == []


@needs_nginx
def test_each_replica_is_asked_for_its_own_metrics(door: str):
    assert httpx.get(f"{door}/v1/metrics", headers={"X-Token": TOKEN}, trust_env=False, timeout=60).status_code == 404


def test_a_revoked_token_opens_no_replica(replicas: list[Replica], checkpoints: Path):
    tokens = Tokens(checkpoints)
    given = {"headers": {"X-Token": tokens.make("camera", "infer").token}, "timeout": 60, "trust_env": False}
    assert [httpx.get(f"{replica.url}/v1/models", **given).status_code for replica in replicas] == [200, 200]
    tokens.revoke("camera")
    assert [httpx.get(f"{replica.url}/v1/models", **given).status_code for replica in replicas] == [401, 401]


def slow_batch(replica: Replica, pictures: int) -> str:
    """The id of a batch of which each picture takes a while."""
    sent = [("picture", (f"p{number}.png", picture(0, 1000, 1000, flat=True))) for number in range(pictures)]
    answer = replica.client.post("/v1/models/tiles/batches?short_side=4096", files=sent)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_batch_is_told_of_by_any_replica_and_goes_on_at_another_one_where_its_own_is_killed(replicas: list[Replica]):
    begun = [slow_batch(replica, 12) for replica in replicas]  # one for each: whoever is free takes the next
    first, second = (replica.client for replica in replicas)
    for identifier in begun:
        wait_for(lambda identifier=identifier: 0 < second.get(f"/v1/batches/{identifier}").json()["done"] < 12)
        assert first.get(f"/v1/batches/{identifier}").json()["state"] == "running"
    replicas[0].kill()
    for identifier in begun:
        wait_for(lambda identifier=identifier: second.get(f"/v1/batches/{identifier}").json()["state"] == "finished")
    replicas[0].start()
    wait_for(replicas[0].ready, 90)
    zips = [client.get(f"/v1/batches/{begun[0]}/result.zip") for client in (first, second)]
    assert [answer.status_code for answer in zips] == [200, 200]
    assert zips[0].content == zips[1].content
    assert zips[0].content.count(b"IHDR") == 12
    assert first.delete(f"/v1/batches/{begun[1]}").status_code == 204
    assert second.get(f"/v1/batches/{begun[1]}").status_code == 404


def test_a_batch_that_is_deleted_at_one_replica_ends_at_the_other(replicas: list[Replica], checkpoints: Path):
    first, second = replicas
    identifier = slow_batch(first, 100)
    wait_for(lambda: second.client.get(f"/v1/batches/{identifier}").json()["done"] > 0)
    for replica in replicas:  # one of them works on it, and it is not known which
        if replica.client.delete(f"/v1/batches/{identifier}").status_code == 204:
            break
    running = "maskwright_predictions_running 0.0"
    wait_for(lambda: all(running in replica.client.get("/v1/metrics").text for replica in replicas), 30)
    assert not list((checkpoints / ".batches").glob(f"*{identifier}*"))


def test_replicas_on_ray_answer_as_the_plain_service_does_and_a_model_published_anew_fails_no_request(tmp_path: Path):
    publish(tmp_path, dark=1)
    serve_texture(tmp_path)
    port, asked = free_port(), {"files": {"picture": ("p.png", picture(1, 300, 400))}}
    own = {"CHECKPOINTS": str(tmp_path), "TOKEN": TOKEN, "INFERENCE_PORT": str(port), "SERVE_REPLICAS": "2", "SERVE_CPUS": "0.5"}
    with running(tmp_path) as plain:
        expected = httpx.post(f"{plain.url}/v1/models/texture/predict", timeout=60, trust_env=False, **asked).content
    with cluster("127.0.0.2", "127.0.0.3") as ray:
        place = {"RAY_ADDRESS": f"127.0.0.2:{ray.port}", "PYTHONPATH": ""}
        command = [str(RAY_PYTHON), "-m", "inference_api.on_ray"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **own, **place}, timeout=240, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        told = [str(RAY_PYTHON.with_name("serve")), "status", "--address", ray.address]
        assert "RUNNING: 2" in subprocess.run(told, timeout=60, capture_output=True, text=True, check=True).stdout
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-Token": TOKEN}, timeout=60, trust_env=False) as client:
            for _ in range(6):  # of either replica
                assert client.post("/v1/models/texture/predict", **asked).content == expected
            refused = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False, timeout=60)
            assert (refused.status_code, refused.json()["error"]) == (401, "NoToken")
            identifier = client.post("/v1/models/texture/batches", **asked).json()["id"]
            wait_for(lambda: client.get(f"/v1/batches/{identifier}").json()["state"] == "finished")
        with calling(f"http://127.0.0.1:{port}") as calls:
            former = {body for _, _, body in calls.seen}
            assert len(former) == CALLERS
            publish(tmp_path, dark=2)
            wait_for(lambda: former.isdisjoint({body for _, _, body in calls.seen[-30:]}))
        assert calls.failed() == []
