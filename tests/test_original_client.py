"""An old client's requests to docker_sdk_api, and the whole way from a page on another server: start, train, download, detect."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from contracts.original import NETWORKS
from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings
from tests.clicks import chromium, needs_chromium
from tests.conftest import ROOT, draw_dataset, run_job, wait_for
from tests.served import serve_brightness, served
from tests.service import running
from tests.test_original_training import needs_gluon
from tests.waits import free_port

SLASHES = pytest.mark.parametrize("slash", ["", "/"], ids=["without slash", "with slash"])
PAGE = "http://lab.local:8080"


def post(api: TestClient, path: str, body: object, **headers: str):
    """As these clients do: JSON that calls itself text."""
    return api.post(path, content=json.dumps(body), headers={"Content-Type": "text/plain", **headers})


@SLASHES
def test_the_dataset_routes_have_the_answers_of_the_original(api: TestClient, dataset: Path, slash: str):
    assert api.get(f"/dataset{slash}").json() == ["plates"]
    sound = post(api, f"/dataset/validate{slash}", {"dataset_name": "plates"})
    assert (sound.status_code, sound.json()["success"], sound.json()["error"]) == (200, True, None)
    classes = post(api, f"/dataset/classes{slash}", {"dataset_name": "plates", "train_ratio": 80}).json()
    assert classes == {"dataset_name": "plates", "num_classes": 3, "classes": ["background", "pad", "circle"]}
    (dataset / "labels" / "p1.png").unlink()
    broken = post(api, f"/dataset/validate{slash}", {"dataset_name": "plates"})
    assert broken.status_code == 400
    assert "p1.png" in broken.json()["detail"]


@SLASHES
def test_the_machine_and_the_catalogue_have_the_forms_of_the_original(api: TestClient, slash: str):
    gpus = api.get(f"/infrastructure/gpu/info{slash}").json()
    assert gpus["-1"] == "CPU"
    assert all(isinstance(about, str) for about in gpus.values())
    assert all(port.isdecimal() for port in api.get(f"/infrastructure/used/ports{slash}").json())
    architecture = api.get(f"/models/architecture{slash}").json()
    assert architecture.keys() == {"networks", "backbones"}
    assert "fcn" in architecture["networks"]
    assert "resnet50" in architecture["backbones"]
    names = api.get(f"/models/architecture/pretrained_networks{slash}").json()["pretrained_networks"]
    assert len(names) == 9
    assert all(name.startswith(NETWORKS) for name in names)


@SLASHES
def test_jobs_and_models_of_the_product_are_seen(api: TestClient, dataset: Path, slash: str):
    for path in ("/jobs", "/jobs/container/finished"):
        assert api.get(f"{path}{slash}").json() == []
    for path in ("/models/checkpoints", "/models/classifiers", "/models/downloadable"):
        assert api.get(f"{path}{slash}").json() == {}
    run_job(api, name="first", dataset="plates")
    assert api.get(f"/jobs{slash}").json() == []
    assert api.get(f"/jobs/container/finished{slash}").json() == ["first"]
    assert any("finished" in line for line in post(api, f"/jobs/container/logs{slash}", {"name": "first"}).json())
    assert api.get(f"/models/downloadable{slash}").json() == {"first.zip": "majority_none"}
    for path in ("majority_none/first.zip", "majority_none%2Ffirst.zip"):
        answer = api.get(f"/models_services/{path}")
        assert "palette.txt" in zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert api.get("/models_services/fcn_resnet50/first.zip").status_code == 404
    classifier = api.app.state.settings.classifiers / "birds"
    assert not classifier.exists()


def test_checkpoints_and_classifiers_are_listed_with_what_they_are(tmp_path: Path, settings: Settings):
    folder = tmp_path / "classifiers" / "birds"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"network": "resnet50"}')
    (folder / "model_best.params").write_bytes(b"")
    with TestClient(create_app(settings.model_copy(update={"classifiers": tmp_path / "classifiers"}))) as api:
        assert api.get("/models/classifiers").json() == {"birds": "resnet50"}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/dataset/validate", {"dataset_name": "gone"}, 404, "There is no dataset “gone”"),
        ("/dataset/classes", {}, 400, "dataset_name: Field required"),
        ("/jobs/start", {"name": "x", "dataset_name": "gone", "api_port": 5300}, 404, "There is no dataset “gone”"),
        ("/jobs/start", {"name": "x", "dataset_name": "plates", "api_port": 99999}, 400, "api_port: "),
        ("/jobs/stop", {"name": "gone"}, 404, "There is no job “gone”"),
        ("/jobs/container/logs", [], 400, "The body: "),
    ],
)
def test_what_goes_wrong_is_said_in_detail(api: TestClient, dataset: Path, path: str, body: object, status: int, words: str):
    answer = post(api, path, body)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert api.get("/jobs").json() == []


def preflight(api: TestClient, path: str, origin: str):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    return api.options(path, headers={"Origin": origin, **asked})


def test_no_other_servers_page_is_answered_unless_it_is_named(api: TestClient, dataset: Path):
    refused = post(api, "/jobs/stop", {"name": "x"}, Origin=PAGE)
    assert refused.status_code == 403
    assert f"ALLOWED_ORIGINS={PAGE}" in refused.json()["cure"]
    assert preflight(api, "/jobs/start", PAGE).status_code == 403
    assert "access-control-allow-origin" not in api.get("/dataset", headers={"Origin": PAGE}).headers
    assert api.post("/v1/jobs/x/resume", headers={"Origin": "null"}).status_code == 403
    own = post(api, "/jobs/stop", {"name": "x"}, Origin="http://testserver")
    assert (own.status_code, own.json()["error"]) == (404, "NotFound")


def test_a_page_that_is_named_is_answered_and_told_so(settings: Settings, dataset: Path, tmp_path: Path):
    with TestClient(create_app(settings.model_copy(update={"allowed_origins": f"http://other, {PAGE}/"}))) as api:
        for answer in (api.get("/dataset", headers={"Origin": PAGE}), post(api, "/jobs/stop", {"name": "x"}, Origin=PAGE)):
            assert answer.headers["access-control-allow-origin"] == PAGE
        asked = preflight(api, "/jobs/start", PAGE)
        assert (asked.status_code, asked.headers["access-control-allow-headers"]) == (204, "content-type")
        assert preflight(api, "/jobs/start", "http://lab.local:8081").status_code == 403
    serve_brightness(tmp_path / "models")
    for origins, status in (("", 403), ("*", 204)):
        with served(tmp_path / "models", allowed_origins=origins) as inference:
            assert preflight(inference, "/detect", PAGE).status_code == status


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>An old client</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def page_server() -> Iterator[str]:
    """The origin of a server with one empty page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def sdk_service(home: Path, origin: str) -> Iterator[str]:
    """The address of a real docker_sdk_api that the pages of an origin may ask; its trainings are ended with it."""
    folders = {"DATASETS": home / "datasets", "CHECKPOINTS": home / "checkpoints", "WEIGHTS": home / "weights"}
    chosen = {**folders, "SDK_PORT": free_port(), "TASK_PYTHON": sys.executable, "ALLOWED_ORIGINS": origin, "PYTHONPATH": ROOT}
    environment = {**os.environ, **{name: str(value) for name, value in chosen.items()}}
    url = f"http://127.0.0.1:{chosen['SDK_PORT']}"
    with open(home / "docker_sdk_api.log", "ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "docker_sdk_api"], env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(url), 60)
        yield url
        for name in httpx.get(f"{url}/jobs", trust_env=False, timeout=60).json():
            httpx.post(f"{url}/jobs/stop", content=json.dumps({"name": name}), timeout=60, trust_env=False)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/health", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


# What the original's page does, in its order. A body of fetch that is a string is sent as text/plain; an object of its framework as
# application/json, for which the browser asks beforehand.
CLIENT = """
async ({sdk, inference, picture}) => {
    const ask = async (url, options) => {
        const answer = await fetch(url, options);
        if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
        return answer;
    };
    const get = async path => (await ask(sdk + path)).json();
    const text = async (url, body) => (await ask(url, {method: "POST", body: JSON.stringify(body)})).json();
    const headers = {"Content-Type": "application/json", "Accept": "application/json, text/plain, */*"};
    const object = async (url, body) => (await ask(url, {method: "POST", body: JSON.stringify(body), headers})).json();
    const pause = seconds => new Promise(done => setTimeout(done, 1000 * seconds));
    const told = {};

    await Promise.all([get("/jobs"), get("/jobs/container/finished"), get("/models/downloadable")]);
    const [dataset] = await get("/dataset");
    const chosen = {dataset_name: dataset, train_ratio: 75};
    if (!(await object(sdk + "/dataset/validate", chosen)).success) throw new Error("not valid");
    const info = {...await object(sdk + "/dataset/classes", chosen), train_ratio: chosen.train_ratio};

    const [gpus, used, checkpoints, architecture, pretrained, classifiers] = await Promise.all([
        "/infrastructure/gpu/info", "/infrastructure/used/ports", "/models/checkpoints", "/models/architecture",
        "/models/architecture/pretrained_networks", "/models/classifiers"].map(get));
    let port;
    do { port = String(20000 + Math.floor(Math.random() * 9999)); } while (used.indexOf(port) >= 0);
    const settings = {model_name: "plates-old", gpus: Object.keys(gpus).includes("-1") ? [-1] : [0], weight_type: "from_scratch",
        api_port: Number(port), network: architecture.networks[0], backbone: architecture.backbones[0]};
    const container = {name: settings.model_name, api_port: settings.api_port, gpus: settings.gpus, dataset_name: dataset};
    if (!(await text(sdk + "/jobs/start", container)).success) throw new Error("not started");

    const training = `http://127.0.0.1:${port}`;
    await ask(training + "/health");
    const defaults = await (await ask(training + "/configuration/default", {method: "POST"})).json();
    const config = {...settings, lr: defaults.lr, momentum: defaults.momentum, weight_decay: defaults.weight_decay, num_workers: 1,
        batch_size: 4, validation_batch_size: 1, epochs: 1, augment_data: true, crop_size: 32, base_size: 32};
    told.prepared = await object(training + "/data_preparation", {dataset_info: info, config});
    told.training = await object(training + "/training", {dataset_info: info, config});

    const until = Date.now() + 120000;
    while ((await get("/jobs/container/finished")).indexOf(container.name) < 0) {
        if (Date.now() > until) throw new Error("not finished: " + JSON.stringify(await text(sdk + "/jobs/container/logs", container)));
        await pause(0.5);
    }
    told.jobs = await get("/jobs");
    told.logs = await text(sdk + "/jobs/container/logs", {name: container.name});
    told.checkpoints = await get("/models/checkpoints");
    const models = await get("/models/downloadable");
    const zip = await ask(sdk + "/models_services/" + models["plates-old.zip"] + encodeURIComponent("/plates-old.zip"));
    const bytes = new Uint8Array(await zip.arrayBuffer());
    told.tail = btoa(String.fromCharCode(...bytes.slice(-4096)));
    told.size = bytes.length;

    told.ids = await (await ask(inference + "/load")).json();
    const form = new FormData();
    form.append("model", "plates-old");
    form.append("image", new Blob([Uint8Array.from(atob(picture), letter => letter.charCodeAt(0))], {type: "image/png"}), "plate.png");
    told.segments = await (await ask(inference + "/detect", {method: "POST", body: form})).json();
    told.closed = await text(sdk + "/jobs/stop", {name: container.name});
    told.left = await get("/jobs");
    return told;
}
"""
STRANGER = """
url => fetch(url, {method: "POST", mode: "no-cors", body: JSON.stringify(
    {name: "stranger", dataset_name: "plates", gpus: [-1], api_port: 5300})}).then(() => null)
"""


@needs_gluon
@needs_chromium
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Playwright's driver
def test_an_old_client_drives_a_job_from_start_to_download_from_a_page_of_another_server(tmp_path: Path):
    draw_dataset(tmp_path / "datasets" / "plates", pictures=4)
    (tmp_path / "checkpoints").mkdir()
    picture = (tmp_path / "datasets" / "plates" / "images" / "p0.png").read_bytes()
    with page_server() as origin, page_server() as strange, sdk_service(tmp_path, origin) as sdk, chromium() as browser:
        page = browser.new_page(base_url=strange)
        page.goto("/")
        page.evaluate(STRANGER, f"{sdk}/jobs/start")
        assert httpx.get(f"{sdk}/v1/jobs", trust_env=False, timeout=60).json() == []
        with running(tmp_path / "checkpoints", allowed_origins=origin) as inference:
            page = browser.new_page(base_url=origin)
            page.goto("/")
            told = page.evaluate(CLIENT, {"sdk": sdk, "inference": inference.url, "picture": base64.b64encode(picture).decode()})
        page.context.close()

    assert (told["prepared"]["success"], told["training"]["success"]) == (True, True)
    assert told["jobs"] == ["plates-old"]
    assert any(line.startswith("epoch 1 of 1: loss") for line in told["logs"])
    assert told["checkpoints"] == {"plates-old": "fcn_resnet50"}
    assert told["size"] > 10**7
    assert all(name in base64.b64decode(told["tail"]) for name in (b"model_best.params", b"palette.txt", b"configuration.json"))
    assert told["ids"].keys() == {"plates-old"}
    assert all(segment.keys() == {"class_name", "ObjectClassId", "bbox", "segment", "confidence"} for segment in told["segments"])
    assert (told["closed"]["success"], told["left"]) == (True, [])
    with Image.open(io.BytesIO(picture)) as sent:
        assert all(segment["bbox"][2] <= sent.width for segment in told["segments"])
