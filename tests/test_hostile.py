"""Hostile words in every place that takes one: a sentence or right handling, never a traceback, and never a script that runs."""

import io
import itertools
import json
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from docker_sdk_api.settings import Settings as SdkSettings
from gui.app import create_app as create_gui
from gui.backend import Backend
from gui.settings import Settings as GuiSettings
from tests.clicks import chromium, needs_chromium, services, watched_page
from tests.conftest import draw_dataset, run_job, wait_for
from tests.served import serve_brightness
from tests.test_model_pages import packed

SCRIPT = "<img src=x onerror=\"window.ran='yes'\"><script>window.ran='yes'</script>"
WORDS = {
    "nothing": "",
    "a space": " ",
    "digits": "0123456789",
    "a huge number": "9" * 400,
    "minus one": "-1",
    "not a number": "NaN",
    "endless": "Infinity",
    "a long word": "x" * 10_000,
    "a long path": "a/" * 3000,
    "emoji": "😀👩‍👩‍👧‍👦🏴",
    "right to left": "שלום‏‮txt.exe",
    "combining": "Z̸̡͎͓a̷l̶g̵o̴",
    "full width": "\uff0e\uff0e\uff0f",
    "a mark": "\ufeffname",
    "no width": "a\u200bb\u2028c",
    "a null": "a\x00b",
    "control signs": "\x01\x07\x1b[31m\x7f",
    "a lone surrogate": "\ud800",
    "a new line": "a\r\nSet-Cookie: x=y\r\n\r\n<b>",
    "up": "..",
    "up and up": "../../../../etc/passwd",
    "up, escaped": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "up, escaped twice": "%252e%252e%252fetc",
    "up, the other way": "..\\..\\windows\\win.ini",
    "absolute": "/etc/passwd",
    "a drive": "C:\\con",
    "a share": "\\\\evil\\share",
    "hidden": ".maskwright",
    "the tokens": ".maskwright/tokens.json",
    "a dot": ".",
    "up and a slash": "../",
    "HTML": SCRIPT,
    "an attribute": '" onmouseover="alert(1)',
    "an address": "javascript:alert(1)",
    "a template": "{{ 7*7 }}{% raw %}${7*7}",
    "shell": "; rm -rf / #`id`$(id)|&",
    "an option": "--help",
    "SQL": "' OR 1=1; DROP TABLE jobs; --",
    "a format": "%s%n%x{0.__class__}",
    "JSON": '{"a": [1]}',
    "deep JSON": "[" * 5000,
    "a list": "[]",
    "null": "null",
    "true": "true",
    "an escape": "%zz%",
    "LDAP": "*)(uid=*",
    "XML": '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
}
TRACES = ("Traceback", 'File "/', "Internal Server Error", "root:x:0")


def in_address(word: str) -> str:
    return quote(word.encode("utf-8", "surrogatepass"), safe="")


def fault(answer: httpx.Response) -> str:
    """What is wrong with an answer to something hostile, "" where nothing is."""
    kind = answer.headers.get("content-type", "")
    if answer.status_code >= 500:
        return f"{answer.status_code}: {answer.text[:200]}"
    if kind.startswith(("text/", "application/json")) and any(trace in answer.text for trace in TRACES):
        return "an inside of the service is in it"
    if kind.startswith("text/html") and SCRIPT in answer.text:
        return "a script is in it"
    if "x=y" in answer.headers.get("set-cookie", ""):
        return "a cookie is in it"
    if answer.status_code >= 400 and kind.startswith("application/json") and not {"cure", "error"} & set(answer.json()):
        return f"no cure: {answer.text[:200]}"
    return ""


def assert_said_well(answers: Iterable[tuple[str, httpx.Response]]) -> None:
    """All are looked at before the test fails, so that a list of faults is read at once."""
    wrong = [f"{where}: {found}" for where, answer in answers if (found := fault(answer))]
    assert wrong == [], "\n".join([f"{len(wrong)} faults", *wrong[:60]])


@pytest.fixture
def api(sdk_app: FastAPI) -> Iterator[TestClient]:
    """A fault is answered as it is in earnest, with a 500."""
    with TestClient(sdk_app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def inference_api(inference_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(inference_app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def gui(api: TestClient, sdk_app: FastAPI, inference_app: FastAPI) -> Iterator[TestClient]:
    transports = [httpx.ASGITransport(app, raise_app_exceptions=False) for app in (sdk_app, inference_app)]
    backend = Backend(*(httpx.AsyncClient(transport=transport, base_url="http://in-process") for transport in transports))
    with TestClient(create_gui(GuiSettings(), backend), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def there(dataset: Path, settings: SdkSettings, api: TestClient) -> None:
    """A dataset, a job and its model, so that a wrong word is the only thing wrong."""
    run_job(api, name="sound", dataset="plates")
    serve_brightness(settings.checkpoints)


PLACES = {
    "api": [
        "/v1/jobs/{}",
        "/v1/jobs/{}/log/part",
        "/v1/jobs/sound/previews/{}",
        "/v1/jobs/sound/log/search?word={}",
        "/v1/jobs?search={}",
        "/v1/jobs?name={}&limit={}",
        "/v1/datasets/{}",
        "/v1/datasets/plates/pictures/{}/file",
        "/v1/datasets/plates/overlays/{}",
        "/v1/datasets/plates/overlays/p0?width={}",
        "/v1/datasets/plates/cures/{}",
        "/v1/datasets/plates/split?validation_share={}",
        "/v1/models/{}/download",
        "/v1/imports/{}",
        "/v1/uploads/{}",
        "/v1/weights?network={}",
        "/v1/recommendation?dataset=plates&network={}",
        "/v1/self-test/{}",
        "/models_services/{}/{}",
        "/docs/{}",
        "/{}",
    ],
    "inference_api": ["/v1/models/{}", "/v1/batches/{}", "/v1/batches/{}/result.zip", "/models/{}/labels", "/models/{}/config", "/{}"],
    "gui": [
        "/jobs/{}",
        "/jobs?search={}",
        "/jobs/sound/previews/{}",
        "/jobs/sound/log?search={}",
        "/compare?job=sound&job={}",
        "/datasets/{}",
        "/datasets/plates/pictures/{}",
        "/datasets/plates/cures/{}",
        "/datasets/new?name={}&folder={}",
        "/imports/{}",
        "/models/{}",
        "/models/{}/try",
        "/try?model={}",
        "/train?dataset={}",
        "/train/settings?dataset=plates&network={}&name={}",
        "/train/review?dataset=plates&name={}&seed={}&set.epochs={}",
        "/machine/self-test/{}",
        "/login?next={}",
        "/static/{}",
        "/{}",
    ],
}


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("service", PLACES)
def test_a_hostile_word_in_an_address_is_answered_with_a_sentence(service: str, request: pytest.FixtureRequest) -> None:
    client: TestClient = request.getfixturevalue(service)
    assert_said_well(
        (f"{place} with {what}", client.get(place.replace("{}", in_address(word)), follow_redirects=False))
        for place, (what, word) in itertools.product(PLACES[service], WORDS.items())
    )


BODIES = [
    ("/v1/jobs", '{"name": %s, "dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}'),
    ("/v1/jobs", '{"name": "a", "dataset": %s, "engine": "majority", "network": "majority", "backbone": "none"}'),
    ("/v1/jobs", '{"name": "a", "dataset": "plates", "engine": %s, "network": "majority", "backbone": "none"}'),
    ("/v1/jobs", '{"name": "a", "dataset": "plates", "engine": "majority", "network": %s, "backbone": "none"}'),
    ("/v1/forecast", '{"name": "a", "dataset": "plates", "hyperparameters": {"epochs": %s}}'),
    ("/v1/forecast", '{"name": "a", "dataset": "plates", "engine": "majority", "hyperparameters": {%s: 1}}'),
    ("/v1/jobs/sound/stop", '{"keep_best": %s}'),
    ("/v1/uploads", '{"files": [{"name": %s, "size": 3}]}'),
    ("/v1/imports", '{"name": %s, "upload": "none"}'),
    ("/v1/imports", '{"name": "a", "upload": %s}'),
    ("/v1/tokens", '{"name": %s, "scope": "read"}'),
    ("/v1/tokens", '{"name": "a", "scope": %s}'),
    ("/dataset/validate", '{"dataset_name": %s}'),
    ("/jobs/container/logs", '{"name": %s}'),
    ("/jobs/stop", '{"name": %s}'),
    ("/jobs/start", '{"name": "a", "dataset_name": %s, "gpus": [-1], "api_port": 5001}'),
    ("/v1/self-test", '{"engine": %s, "x": 1}'),
]
HARMLESS = {"nothing"}
"""Where a default stands for an empty word, a training would begin."""


@pytest.mark.usefixtures("there")
def test_a_hostile_word_in_json_is_answered_with_a_sentence(api: TestClient, settings: SdkSettings) -> None:
    kind = {"Content-Type": "application/json"}

    def answers() -> Iterator[tuple[str, httpx.Response]]:
        for (path, body), (what, word) in itertools.product(BODIES, WORDS.items()):
            if path != "/v1/self-test" or what not in HARMLESS:
                yield f"{path} {body} with {what}", api.post(path, content=(body % json.dumps(word)).encode(), headers=kind)
        whole = ("[" * 5000, "", "null", "[]", '{"name": 1e999}', "\xff")
        for path, sent in itertools.product({path for path, _ in BODIES} - {"/v1/self-test"}, whole):
            yield f"{path} {sent[:9]}", api.post(path, content=sent.encode("latin-1"), headers=kind)

    assert_said_well(answers())
    assert sorted(path.name for path in settings.datasets.iterdir() if not path.name.startswith(".")) == ["plates"]


FORMS = [
    ("/train", {"dataset": "plates", "network": "majority/majority/none", "set.epochs": "1"}, "name"),
    ("/train", {"name": "a", "network": "majority/majority/none"}, "dataset"),
    ("/train", {"name": "a", "dataset": "plates", "network": "majority/majority/none"}, "set.epochs"),
    ("/datasets/plates/split", {"seed": "1"}, "validation"),
    ("/machine/self-test", {"x": "1"}, "engine"),
    ("/machine/tokens", {"scope": "read"}, "name"),
    ("/machine/tokens", {"name": "b", "scope": "read"}, "days"),
    ("/login", {"next": "/"}, "token"),
    ("/login", {"token": "x"}, "next"),
    ("/jobs/sound/stop", {}, "keep_best"),
]


@pytest.mark.usefixtures("there")
def test_a_hostile_word_in_a_form_is_answered_with_a_sentence(gui: TestClient, api: TestClient) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}

    def answers() -> Iterator[tuple[str, httpx.Response]]:
        for (path, rest, field), (what, word) in itertools.product(FORMS, WORDS.items()):
            if (path == "/machine/self-test" or field == "set.epochs") and what in (*HARMLESS, "a space"):
                continue
            sent = "&".join(f"{key}={in_address(value)}" for key, value in {**rest, field: word}.items())
            yield f"{path} {field} with {what}", gui.post(path, content=sent.encode(), headers=kind, follow_redirects=False)

    assert_said_well(answers())
    for view in api.get("/v1/jobs").json():
        wait_for(lambda name=view["job"]["name"]: api.get(f"/v1/jobs/{name}").json()["status"]["ended"], 60)


def picture_of(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.usefixtures("there")
def test_a_hostile_name_of_a_file_stays_a_name(api: TestClient, inference_api: TestClient, settings: SdkSettings) -> None:
    answers: list[tuple[str, httpx.Response]] = []
    before = {path for path in settings.datasets.parent.rglob("*") if ".imports" not in path.parts}
    for number, (what, word) in enumerate(WORDS.items()):
        name = word.encode("utf-8", "surrogatepass").decode("latin-1").translate({34: "%22", 13: None, 10: None, 0: None})
        head = f'--b\r\nContent-Disposition: form-data; name="picture"; filename="{name[:3000]}"\r\n\r\n'.encode("latin-1")
        sent = head + picture_of(90) + b"\r\n--b--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        for path in ("/v1/models/brightness/predict?answer=segments", "/v1/models/brightness/predict/batch"):
            answers.append((f"{path} with {what}", inference_api.post(path, content=sent, headers=kind)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(word.encode("utf-8", "replace").decode() or "x", picture_of(0))
        started = api.post("/v1/uploads", json={"files": [{"name": "a.zip", "size": len(file.getvalue())}]}).json()["id"]
        api.put(f"/v1/uploads/{started}/files/0", content=file.getvalue())
        answer = api.post("/v1/imports", json={"name": f"brought-{number}", "upload": started})
        answers.append((f"an archive with {what}", answer))
        if answer.status_code < 300:
            here = f"/v1/imports/{answer.json()['id']}"
            state = wait_for(lambda here=here: (said := api.get(here).json())["state"] != "running" and said, 30)
            assert state["state"] == "failed", what
            assert state["cause"], what
            assert state["cure"], what
    assert_said_well(answers)
    after = {path for path in settings.datasets.parent.rglob("*") if ".imports" not in path.parts}
    new = [path for path in after - before if not any(part.startswith(".") for part in path.relative_to(settings.datasets.parent).parts)]
    assert new == [], new


def test_a_hostile_class_name_is_shown_or_refused_with_a_sentence(
    dataset: Path, api: TestClient, gui: TestClient, settings: SdkSettings
) -> None:
    def answers() -> Iterator[tuple[str, httpx.Response]]:
        for number, (what, word) in enumerate(WORDS.items()):
            name = f"odd-{number}"
            shutil.copytree(dataset, settings.datasets / name)
            classes = {"classes": 3, "classesname": ["background", word, "circle"]}
            (settings.datasets / name / "objectclasses.json").write_text(json.dumps(classes))
            yield f"the check with {what}", api.get(f"/v1/datasets/{name}")
            yield f"its classes with {what}", api.post("/dataset/classes", json={"dataset_name": name})
            for path in (f"/datasets/{name}", f"/datasets/{name}/pictures/p0", f"/train?dataset={name}"):
                yield f"{path} with {what}", gui.get(path)
            shutil.rmtree(settings.datasets / name)

    assert_said_well(answers())


STRANGE = ("1e999", "NaN", "-1", "0", "9" * 400, "null", "[]", "{}", '""', '"../x"', '"2020-01-01T00:00:00"', '"0001-01-01T00:00:00+14:00"')
"""Values in JSON that may stand in the place of any other."""


def strange_models(aside: Path) -> Iterator[tuple[str, bytes]]:
    """Zips of a model, each with one strange value in its model.json, and what that is."""
    packed_model = packed(aside, "brought")
    with zipfile.ZipFile(io.BytesIO(packed_model)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    model = json.loads(files["model.json"])
    inner = [(key, deeper) for key, value in model.items() if isinstance(value, dict) for deeper in value]
    for place, value in itertools.product([*((key,) for key in model), *inner], STRANGE):
        changed = json.loads(files["model.json"])
        (changed if len(place) == 1 else changed[place[0]])[place[-1]] = "the value"
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in {**files, "model.json": json.dumps(changed).replace('"the value"', value).encode()}.items():
                archive.writestr(name, content)
        yield f"{'.'.join(place)} of {value[:30]}", file.getvalue()


@pytest.mark.usefixtures("there")
def test_a_strangers_model_is_refused_or_shown_and_hides_no_other(
    api: TestClient, inference_api: TestClient, gui: TestClient, tmp_path: Path
) -> None:
    taken = []

    def answers() -> Iterator[tuple[str, httpx.Response]]:
        for what, content in strange_models(tmp_path / "aside"):
            answer = api.post("/v1/models/import", files={"file": ("brought.zip", content)}, data={"name": "brought"})
            yield what, answer
            if answer.status_code == 201:
                taken.append(what)
                for client, path in ((api, "/v1/models"), (inference_api, "/v1/models"), (inference_api, "/models"), (gui, "/models")):
                    there = client.get(path)
                    assert "sound" in there.text, (what, path)
                    yield f"{path} with {what}", there
                for client, path in ((api, "/v1/models/brought"), (inference_api, "/v1/models/brought"), (gui, "/models/brought")):
                    yield f"{path} with {what}", client.get(path)
                predicted = inference_api.post("/v1/models/brought/predict", files={"picture": picture_of(90)})
                yield f"a prediction with {what}", predicted
                assert api.delete("/v1/models/brought").is_success
                assert api.delete("/v1/jobs/brought").is_success

    assert_said_well(answers())
    assert any(what.startswith("dataset of") for what in taken), "not everything that is strange is wrong"
    assert not any(what.endswith(("NaN", "1e999")) or what.startswith("created of") for what in taken)


@pytest.mark.usefixtures("there")
def test_a_models_zip_may_be_called_anything(api: TestClient, gui: TestClient, tmp_path: Path) -> None:
    content = packed(tmp_path / "aside", "brought")
    kind = {"Content-Type": "multipart/form-data; boundary=b"}

    def answers() -> Iterator[tuple[str, httpx.Response]]:
        for client, path in ((api, "/v1/models/import"), (gui, "/models/import")):
            for what, word in WORDS.items():
                name = word.encode("utf-8", "surrogatepass").decode("latin-1").translate({34: "%22", 13: None, 10: None})[:3000]
                head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode("latin-1")
                answer = client.post(path, content=head + content + b"\r\n--b--\r\n", headers=kind, follow_redirects=False)
                yield f"{path} with {what}", answer
                if answer.status_code in (201, 303):
                    assert api.delete("/v1/models/brought").is_success
                    assert api.delete("/v1/jobs/brought").is_success

    assert_said_well(answers())
    assert [row["name"] for row in api.get("/v1/models").json()] == ["sound"]


def test_there_are_more_than_five_hundred_of_them() -> None:
    assert len(WORDS) * (sum(map(len, PLACES.values())) + len(BODIES) + len(FORMS) + 5) > 500


# In a browser

NAME = "x<img src=x onerror=window.ran='yes'>"


@needs_chromium
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Playwright's driver and of the services
def test_no_word_of_a_user_runs_as_a_script_in_any_page(tmp_path: Path) -> None:
    folder = draw_dataset(tmp_path / "datasets" / "odd", pictures=6)
    (folder / "objectclasses.json").write_text(json.dumps({"classes": 3, "classesname": ["background", SCRIPT, NAME]}))
    for kind in ("images", "labels"):
        (folder / kind / "p0.png").rename(folder / kind / f"{NAME}.png")
    with services(tmp_path) as address, chromium() as browser:
        wish = {"dataset": "odd", "network": "majority/majority/none", "name": "odd-1", "set.epochs": "2"}
        started = httpx.post(f"{address}/train", data=wish, timeout=60, trust_env=False)
        assert started.status_code == 303, started.text
        wait_for(lambda: "finished" in httpx.get(f"{address}/jobs/odd-1", timeout=60, trust_env=False).text, 120)
        with open(tmp_path / "checkpoints" / "odd-1" / "train.log", "a") as log:
            log.write(f"{SCRIPT}\n{NAME}\n\x1b[31m</script>{SCRIPT}\n")
        with watched_page(browser, address) as page:
            page.on("dialog", lambda dialog: dialog.dismiss())
            stem = in_address(NAME)
            pages = ["/", "/datasets", "/datasets/odd", f"/datasets/odd/pictures/{stem}", "/train?dataset=odd", "/train/review?dataset=odd"]
            pages += ["/jobs", "/jobs/odd-1", "/compare?job=odd-1", "/models", "/models/odd-1", "/models/odd-1/try", "/machine"]
            pages += [f"/jobs?search={in_address(SCRIPT)}", f"/datasets/new?name={in_address(SCRIPT)}", f"/{in_address(SCRIPT)}"]
            for path in pages:
                page.goto(path)
                page.wait_for_timeout(150)
                assert page.evaluate("window.ran") is None, path
                assert page.locator("img[src=x]").count() == 0, path
            page.goto("/jobs/odd-1")
            page.get_by_text("<script>window.ran").first.wait_for()
