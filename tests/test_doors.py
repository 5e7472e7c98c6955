"""The doors of the three services: who comes in, how far, from whose pages, under which name, and what is written down of it."""

import io
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from contracts.audit import Audit
from contracts.doors import needed
from contracts.errors import Invalid, NoToken
from contracts.serving import refuse_open_door, serving
from contracts.tokens import OWNER, SCOPES, Tokens, Who, open_session, proof_of, proves, seal_session
from docker_sdk_api.app import create_app as create_sdk
from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.process import process_environment
from docker_sdk_api.settings import Settings as SdkSettings
from gui.app import create_app as create_gui
from gui.backend import Backend
from gui.settings import Settings as GuiSettings
from inference_api.app import create_app as create_inference
from inference_api.predicted import Predictions
from inference_api.settings import Settings as InferenceSettings
from maskwright_client import Client
from tests.clicks import chromium, needs_chromium, press, services, start, watched_page
from tests.conftest import ROOT, client_of, draw_dataset, text_of, wait_for
from tests.served import serve_brightness
from tests.service import picture
from tests.test_original_training import needs_gluon
from tests.waits import free_port

TOKEN = "open-sesame-of-forty-thieves"
OWNERS = {"Authorization": f"Bearer {TOKEN}"}
PAGE = {"Accept": "text/html"}


@dataclass
class Locked:
    """The three services as they are beyond this machine, with clients that send no token by themselves."""

    sdk: TestClient
    inference: TestClient
    gui: TestClient
    checkpoints: Path

    def make(self, name: str, scope: str, days: float | None = None) -> str:
        answer = self.sdk.post("/v1/tokens", json={"name": name, "scope": scope, "days": days}, headers=OWNERS)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def log_in(self, token: str, then: str = "") -> httpx.Response:
        return self.gui.post("/login", data={"token": token, "next": then}, follow_redirects=False)


def apps(home: Path, token: str, **more: Any) -> tuple[FastAPI, FastAPI, FastAPI]:
    (home / "datasets").mkdir(exist_ok=True)
    checkpoints = home / "checkpoints"
    folders = {"datasets": home / "datasets", "checkpoints": checkpoints}
    sdk = create_sdk(SdkSettings(**folders, task_python=Path(sys.executable), token=token, **more))
    inference = create_inference(InferenceSettings(checkpoints=checkpoints, token=token, **more))
    backend = Backend(client_of(sdk), client_of(inference), token)
    return sdk, inference, create_gui(GuiSettings(token=token, **more), backend)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Locked]:
    sdk, inference, gui = apps(tmp_path, TOKEN)
    with TestClient(sdk) as one, TestClient(inference) as two, TestClient(gui) as three:
        yield Locked(one, two, three, tmp_path / "checkpoints")


@contextmanager
def listening(app: FastAPI, scheme: str = "http", **options: Any) -> Iterator[str]:
    """The address of an app that is served as it is in earnest."""
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="warning", timeout_graceful_shutdown=1, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, 30)
    try:
        yield f"{scheme}://127.0.0.1:{server.config.port}"
    finally:
        server.should_exit = True
        thread.join(20)


def routes_of(app: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of included routers and mounted folders too; {names} as they stand."""
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner, prefix + route.include_context.prefix)
        elif methods := getattr(route, "methods", None):
            yield from ((method, prefix + route.path) for method in sorted(methods))
        else:
            yield "GET", f"{prefix}{route.path}/a-file"


def filled(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "x", path)


OPEN = {"/health", "/v1/health", "/login", "/logout", "/static/a-file"}


def test_no_route_of_any_service_is_open_without_a_token(locked: Locked) -> None:
    seen = 0
    for client in (locked.sdk, locked.inference, locked.gui):
        for method, path in routes_of(client.app):
            seen += 1
            answer = client.request(method, filled(path), follow_redirects=False)
            if path in OPEN:
                assert answer.status_code in (200, 303, 401, 404), (method, path)
                continue
            assert answer.status_code == 401, (method, path, answer.status_code)
            if method != "HEAD":
                assert answer.json()["cure"]
    assert seen > 120, "so many routes there are"


def test_a_token_to_read_changes_nothing_at_any_route(locked: Locked) -> None:
    reader = {"X-Token": locked.make("reader", "read")}
    refused = 0
    for client in (locked.sdk, locked.inference, locked.gui):
        for method, path in routes_of(client.app):
            if path in OPEN or needed(method, filled(path)) == "read":
                continue
            refused += 1
            answer = client.request(method, filled(path), headers=reader, follow_redirects=False)
            assert answer.status_code == 403, (method, path, answer.status_code, answer.text[:200])
    assert refused > 50


def test_every_route_that_changes_something_needs_more_than_reading(locked: Locked) -> None:
    questions = {"/v1/forecast", "/v1/login", "/dataset/validate", "/dataset/classes", "/jobs/container/logs"}
    for client in (locked.sdk, locked.inference, locked.gui):
        for method, path in routes_of(client.app):
            if method not in ("GET", "HEAD", "OPTIONS") and path.rstrip("/") not in questions and path not in OPEN:
                assert needed(method, filled(path)) in SCOPES[1:], (method, path)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/jobs", "read"),
        ("POST", "/v1/models/m/predict", "infer"),
        ("POST", "/models/m/predict_batch/", "infer"),
        ("POST", "/detect", "infer"),
        ("DELETE", "/v1/batches/b", "infer"),
        ("POST", "/v1/jobs", "train"),
        ("POST", "/jobs/start/", "train"),
        ("DELETE", "/v1/jobs/j", "train"),
        ("DELETE", "/v1/deleted/j", "admin"),
        ("POST", "/machine/tokens/bob/revoke", "admin"),
        ("GET", "/v1/tokens", "admin"),
        ("GET", "/v1/audit", "admin"),
        ("POST", "/v1/self-test", "admin"),
        ("PATCH", "/v1/anything\nnew", "train"),
        ("GET", "/v1/health/", "read"),
    ],
)
def test_each_kind_of_request_needs_its_scope(method: str, path: str, scope: str) -> None:
    assert needed(method, path) == scope


def test_no_sign_behind_an_address_leads_past_what_it_needs(locked: Locked) -> None:
    train = {"Authorization": f"Bearer {locked.make('ann', 'train')}"}
    ways = (("POST", "/v1/tokens"), ("GET", "/v1/audit"), ("GET", "/v1/diagnostics"), ("POST", "/v1/retention"), ("POST", "/v1/self-test"))
    for method, path in ways:
        assert locked.sdk.request(method, path, headers=train).status_code == 403
        for sign in ("%0A", "%0D", "%00", "%7F", "%0A%0A"):
            answer = locked.sdk.request(method, path + sign, headers=train, json={"name": "x", "scope": "admin"})
            assert answer.status_code == 403, (path, sign, answer.text)


def test_cookies_of_other_programs_on_this_machine_do_not_hide_a_session(locked: Locked) -> None:
    session = locked.log_in(TOKEN).cookies["maskwright"]
    locked.gui.cookies.clear()
    for cookies in ('foo={"a":1}; {}', "flag; {}", "a[b]=1; {}", "x=a b c; {}", "maskwright=of-another; {}", "{}; maskwright=of-another"):
        headers = {"Cookie": cookies.replace("{}", f"maskwright={session}")}
        assert locked.gui.get("/jobs", headers=headers, follow_redirects=False).status_code == 200, cookies


def test_who_comes_by_a_link_from_elsewhere_stays_logged_in(locked: Locked) -> None:
    headers = {"Accept": "text/html"}  # a browser sends no strict cookie with such a click
    answer = locked.gui.get("/jobs", headers=headers, follow_redirects=False)
    assert answer.status_code == 303
    assert "set-cookie" not in answer.headers
    answer = locked.gui.get("/jobs", headers={**headers, "Cookie": "maskwright=ended"}, follow_redirects=False)
    assert 'maskwright=""' in answer.headers["set-cookie"]


def test_a_login_is_read_no_further_than_a_login_is_long(locked: Locked) -> None:
    answer = locked.gui.post("/login", content=b"token=" + b"x" * 2_000_000)
    assert answer.status_code == 413
    assert "This is no login" in answer.text


def test_a_token_that_can_be_guessed_opens_no_door(tmp_path: Path) -> None:
    short = SdkSettings(datasets=tmp_path, checkpoints=tmp_path, token="abc")
    with pytest.raises(SystemExit, match="can be guessed"):
        serving("docker_sdk_api", short, "0.0.0.0", 4222)
    assert serving("docker_sdk_api", short, "127.0.0.1", 4222)["port"] == 4222


def test_a_torn_line_of_the_audit_log_hides_no_other(locked: Locked) -> None:
    locked.make("ann", "read")
    log = locked.checkpoints / ".maskwright" / "audit.log"
    log.write_bytes(log.read_bytes() + b'{"at": "2026-\n')
    locked.make("bob", "read")
    told = locked.sdk.get("/v1/audit", headers=OWNERS)
    assert told.status_code == 200
    assert len([row for row in told.json() if row["path"] == "/v1/tokens"]) == 2
    assert all(len(row["path"]) <= 300 for row in told.json())


def test_a_training_is_told_no_secret_of_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TOKEN", "DATABASE_URL", "TLS_KEY"):
        monkeypatch.setenv(name, "sesame")
    task = Task("job", "python", [], tmp_path)
    assert "sesame" not in process_environment(task, tmp_path).values()


def test_a_token_comes_as_a_bearer_a_header_or_a_word_of_the_address(locked: Locked, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "maskwright"):
        for how in ({"headers": OWNERS}, {"headers": {"X-Token": TOKEN}}, {"params": {"token": TOKEN, "limit": "3"}}):
            assert locked.sdk.get("/v1/jobs", **how).status_code == 200
            assert locked.inference.get("/v1/models", **how).status_code == 200
            assert locked.gui.get("/datasets", **how).status_code == 200
    assert len(caplog.records) >= 9
    assert TOKEN not in caplog.text
    for wrong in (TOKEN[:-1], TOKEN.upper(), "", "mw_00000000_x", "mw__", "é", TOKEN + " x"):
        assert locked.sdk.get("/v1/jobs", params={"token": wrong}).status_code == 401, wrong


def test_a_scope_lets_in_as_far_as_it_goes_and_no_further(locked: Locked) -> None:
    tokens = {scope: {"X-Token": locked.make(scope, scope)} for scope in SCOPES}
    asked = {"read": ("GET", "/v1/jobs"), "train": ("POST", "/v1/jobs/none/resume"), "admin": ("GET", "/v1/tokens")}
    for needs, (method, path) in asked.items():
        for has, header in tokens.items():
            refused = locked.sdk.request(method, path, headers=header).status_code == 403
            assert refused == (SCOPES.index(has) < SCOPES.index(needs)), (needs, has)
    for has, header in tokens.items():
        answer = locked.inference.post("/v1/models/none/predict", headers=header, files={"picture": b"x"})
        assert answer.status_code == (403 if has == "read" else 404)


def test_a_token_ends_when_it_was_said_to_and_when_it_is_revoked(locked: Locked) -> None:
    brief, lasting = locked.make("brief", "read", days=1e-5), locked.make("lasting", "read")
    wait_for(lambda: locked.sdk.get("/v1/jobs", headers={"X-Token": brief}).status_code == 401, 20)
    for client, path in ((locked.sdk, "/v1/jobs"), (locked.inference, "/v1/models")):
        assert client.get(path, headers={"X-Token": lasting}).status_code == 200
    assert locked.sdk.delete("/v1/tokens/lasting", headers=OWNERS).status_code == 204
    for client, path in ((locked.sdk, "/v1/jobs"), (locked.inference, "/v1/models")):
        assert client.get(path, headers={"X-Token": lasting}).status_code == 401


def test_what_is_kept_of_a_token_does_not_open(locked: Locked) -> None:
    token = locked.make("bob", "admin")
    kept = (locked.checkpoints / ".maskwright" / "tokens.json").read_text()
    assert token not in kept
    assert token.split("_", 2)[2] not in kept
    (row,) = json.loads(kept)
    for guess in (row["sha256"], f"mw_{row['id']}_{row['sha256']}", row["id"]):
        assert locked.sdk.get("/v1/jobs", headers={"X-Token": guess}).status_code == 401
    assert "sha256" not in locked.sdk.get("/v1/tokens", headers=OWNERS).text


def test_two_tokens_made_at_once_are_both_kept(tmp_path: Path) -> None:
    one, other = Tokens(tmp_path), Tokens(tmp_path)
    one.make("a", "read")
    other.make("b", "train")
    one.make("c", "infer")
    assert [row.name for row in Tokens(tmp_path).all()] == ["a", "b", "c"]
    with pytest.raises(Invalid):
        one.make("../x", "read")


def test_a_stranger_s_name_for_this_machine_is_not_answered(locked: Locked) -> None:
    for client, path in ((locked.sdk, "/v1/jobs"), (locked.inference, "/v1/models"), (locked.gui, "/login")):
        for host in ("evil.example", "evil.example:4222", "127.0.0.1.evil.example", "localhost.evil.example", "EVIL.example."):
            answer = client.get(path, headers={**OWNERS, "Host": host})
            assert answer.status_code == 421, (path, host)
            assert "HOSTS=" in answer.text
        for host in ("127.0.0.1:4200", "localhost", "[::1]:4200", "192.168.0.7", "docker_sdk_api:4222", "lab", "a.localhost"):
            assert client.get(path, headers={**OWNERS, "Host": host}).status_code == 200, (path, host)


def test_a_name_that_is_set_is_answered(tmp_path: Path) -> None:
    for app, path in zip(apps(tmp_path, "", hosts="lab.example other.example"), ("/v1/jobs", "/v1/models", "/datasets"), strict=True):
        with TestClient(app) as client:
            assert client.get(path, headers={"Host": "lab.example:1"}).status_code == 200
            assert client.get(path, headers={"Host": "evil.example"}).status_code == 421


def test_another_server_s_page_changes_nothing(tmp_path: Path) -> None:
    for app, path in zip(apps(tmp_path, ""), ("/v1/jobs", "/detect", "/machine/self-test"), strict=True):
        with TestClient(app) as client:
            for origin in ("http://evil.example", "null", "http://[", "http://testserver.evil.example", "https://testserver:1"):
                answer = client.post(path, headers={"Origin": origin}, follow_redirects=False)
                assert answer.status_code == 403, (path, origin)
            assert client.post(path, headers={"Origin": "http://testserver"}).status_code != 403
            assert client.post(path, headers={"Origin": "http://proxy.example", "X-Forwarded-Host": "proxy.example"}).status_code != 403


def test_every_answer_says_what_a_browser_may_do_with_it(locked: Locked) -> None:
    for client, path in ((locked.sdk, "/v1/jobs"), (locked.inference, "/v1/models"), (locked.gui, "/"), (locked.gui, "/login")):
        for headers in ({}, OWNERS):
            answer = client.get(path, headers=headers)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "script-src 'self' 'unsafe-inline'" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
    assert "unsafe-inline" in locked.sdk.get("/docs", headers=OWNERS).headers["content-security-policy"]


# The pages


def test_the_pages_ask_for_a_token_and_go_on_to_where_somebody_wanted(locked: Locked) -> None:
    asked = locked.gui.get("/jobs?search=a%26b", headers=PAGE, follow_redirects=False)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fjobs%3Fsearch%3Da%2526b")
    form = locked.gui.get(asked.headers["location"], headers=PAGE)
    assert 'name="token"' in form.text
    let_in = locked.log_in(TOKEN, "/jobs?search=a%26b")
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/jobs?search=a%26b")
    cookie = let_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "max-age=43200" in cookie
    assert "secure" not in cookie
    page = locked.gui.get("/", headers=PAGE)
    assert page.status_code == 200
    assert "owner Log out" in text_of(page)
    locked.gui.post("/logout", headers=PAGE)
    assert locked.gui.get("/", headers=PAGE, follow_redirects=False).status_code == 303


def test_a_session_over_tls_is_for_tls_alone(locked: Locked) -> None:
    with TestClient(locked.gui.app, base_url="https://testserver") as client:
        assert "secure" in client.post("/login", data={"token": TOKEN}, follow_redirects=False).headers["set-cookie"].lower()


ELSEWHERE = ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nX: evil", "http:/evil", ""]


@pytest.mark.parametrize("then", ELSEWHERE)
def test_a_login_leads_nowhere_else(locked: Locked, then: str) -> None:
    assert locked.log_in(TOKEN, then).headers["location"] == "/"
    assert "evil" not in locked.gui.get("/login", params={"next": then}, headers=PAGE).text


def test_a_session_that_was_tampered_with_opens_nothing(locked: Locked) -> None:
    sealed = seal_session(Who(name="bob", scope="read", id="1234"), TOKEN)
    said, _, signature = sealed.partition(".")
    better = seal_session(OWNER, "another-token")
    ended = seal_session(OWNER, TOKEN, hours=-1)
    assert open_session(sealed, TOKEN) == Who(name="bob", scope="read", id="1234")
    mixed = f"{better.partition('.')[0]}.{signature}"
    for cookie in (better, ended, mixed, f"{said}x.{signature}", f"{said}.{signature[:-1]}0x", ".", "", "é.é"):
        assert open_session(cookie, TOKEN) is None, cookie
    assert open_session(seal_session(OWNER, ""), "") is None


def test_wrong_tokens_that_are_sent_without_a_login_are_taken_slowly_too(locked: Locked) -> None:
    named = {"X-Token": locked.make("camera", "infer")}
    for client, path in ((locked.sdk, "/v1/jobs"), (locked.inference, "/v1/models"), (locked.gui, "/jobs")):
        answers = [client.get(path, headers={"X-Token": f"guess {number}"}) for number in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
        assert client.get(path, headers=OWNERS).status_code == 429, "the right one may be a guess"
        assert client.get(path, headers=named).status_code == 200, "nobody guesses a named one"
    tokens = (f"mw_{number}_guess" for number in range(20))
    assert {locked.sdk.get("/v1/jobs", headers={"X-Token": token}).status_code for token in tokens} == {401}


def test_wrong_tokens_of_this_machine_keep_its_own_pages_out_of_nothing(tmp_path: Path) -> None:
    with listening(apps(tmp_path, TOKEN)[0]) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        assert {client.get("/v1/jobs", headers={"X-Token": "former"}).status_code for _ in range(20)} == {401}
        assert client.get("/v1/jobs", headers=OWNERS).status_code == 200


def test_who_is_refused_again_and_again_washes_nothing_out_of_the_audit_log(locked: Locked) -> None:
    for number in range(300):
        assert locked.sdk.delete(f"/v1/jobs/{number}").status_code == 401
    assert locked.sdk.post("/v1/tokens", json={"name": "after", "scope": "read", "days": 1}, headers=OWNERS).status_code == 201
    rows = locked.sdk.get("/v1/audit?limit=1000", headers=OWNERS).json()
    assert sum(row["status"] == 401 for row in rows) == 60
    assert [row["status"] for row in rows].count(201) == 1


def test_every_line_of_a_services_log_is_json_where_that_is_wanted_troubles_too(tmp_path: Path) -> None:
    folders = {"CHECKPOINTS": str(tmp_path / "checkpoints"), "DATASETS": str(tmp_path / "datasets"), "SDK_PORT": str(free_port())}
    trouble = {"LOG_FORMAT": "json", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    log = tmp_path / "log"
    with log.open("wb") as opened:
        command = [sys.executable, "-m", "docker_sdk_api"]
        service = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **folders, **trouble}, stdout=opened, stderr=opened)
        try:
            wait_for(lambda: "cannot be read or written" in log.read_text(), 60)
        finally:
            service.terminate()
            service.wait(timeout=30)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) > 2
    assert any("cannot be read or written" in row["message"] for row in rows)


def test_metrics_count_those_who_were_refused(locked: Locked) -> None:
    assert locked.sdk.request("CONJURE", "/v1/jobs").status_code == 401
    text = locked.sdk.get("/v1/metrics", headers=OWNERS).text
    assert 'maskwright_requests_total{method="other",route="none",status="401"} 1.0' in text
    assert "CONJURE" not in text


def test_wrong_tokens_are_taken_slowly(locked: Locked) -> None:
    for _ in range(10):
        assert locked.log_in("wrong").status_code == 401
    for token in ("wrong", TOKEN):
        answer = locked.log_in(token)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert "Too many wrong tokens" in answer.text
    assert locked.gui.get("/datasets", headers=OWNERS).status_code == 200, "who is known is not held up"


def test_a_session_goes_as_far_as_its_token_and_ends_with_it(locked: Locked) -> None:
    locked.make("ann", "read")
    token = locked.make("ben", "read")
    assert locked.log_in(token).status_code == 303
    assert "ben Log out" in text_of(locked.gui.get("/jobs", headers=PAGE))
    refused = locked.gui.post("/machine/self-test", headers=PAGE)
    assert refused.status_code == 403
    assert "needs the scope “admin”, and the token “ben” has “read”" in text_of(refused)
    assert locked.gui.get("/machine/tokens", headers=PAGE).status_code == 403
    locked.sdk.delete("/v1/tokens/ben", headers=OWNERS)
    ended = locked.gui.get("/jobs", headers=PAGE, follow_redirects=False)
    assert (ended.status_code, ended.headers["location"]) == (303, "/login?next=%2Fjobs")


def test_the_api_holds_a_session_to_its_scope_even_where_the_pages_did_not(locked: Locked) -> None:
    locked.make("cleo", "read")
    (row,) = locked.sdk.get("/v1/tokens", headers=OWNERS).json()
    for id, status in ((row["id"], 403), ("none", 401)):
        assert locked.sdk.post("/v1/jobs/x/resume", headers={**OWNERS, "X-On-Behalf-Of": id}).status_code == status
    alone = {"X-Token": locked.make("dora", "read"), "X-On-Behalf-Of": ""}
    assert locked.sdk.post("/v1/jobs/x/resume", headers={**alone, "X-On-Behalf-Of": row["id"]}).status_code == 403


def test_tokens_are_made_and_revoked_on_their_page(locked: Locked) -> None:
    locked.log_in(TOKEN)
    assert "Only who knows the TOKEN" in locked.gui.get("/machine/tokens").text
    made = locked.gui.post("/machine/tokens", data={"name": "camera-1", "scope": "infer", "days": "30"})
    token = re.search(r"<code data-token>(\S+)</code>", made.text)
    assert token, made.text
    assert locked.inference.get("/v1/models", headers={"X-Token": token[1]}).status_code == 200
    page = locked.gui.get("/machine/tokens")
    assert token[1] not in page.text
    assert f"{datetime.now(timezone.utc) + timedelta(days=30):%Y-%m-%d}" in page.text
    refused = (({"name": "camera-1"}, "already"), ({"name": "a b"}, "letters, digits"), ({"name": "b", "days": "soon"}, "no number"))
    for wrong, said in refused:
        answer = locked.gui.post("/machine/tokens", data={"scope": "infer", **wrong})
        assert answer.status_code in (400, 409)
        assert said in text_of(answer)
    locked.gui.post("/machine/tokens/camera-1/revoke")
    assert locked.inference.get("/v1/models", headers={"X-Token": token[1]}).status_code == 401


def test_programs_reach_the_pages_with_a_named_token_and_are_answered_in_json(locked: Locked) -> None:
    reader = {"X-Token": locked.make("reader", "read")}
    assert locked.gui.get("/jobs", headers=reader).status_code == 200
    refused = locked.gui.post("/models/m/predict", headers=reader)
    assert (refused.status_code, refused.json()["error"]) == (403, "Forbidden")


def test_pages_whose_api_asks_nobody_take_no_token_but_their_own(tmp_path: Path) -> None:
    open_sdk, open_inference, _ = apps(tmp_path, "")
    with TestClient(create_gui(GuiSettings(token=TOKEN), Backend(client_of(open_sdk), client_of(open_inference), TOKEN))) as gui:
        assert gui.post("/login", data={"token": "anything"}, follow_redirects=False).status_code == 401
        assert gui.post("/login", data={"token": TOKEN}, follow_redirects=False).status_code == 303


# What is written down


def test_the_audit_log_says_who_did_what_through_the_pages_too(locked: Locked) -> None:
    token = locked.make("frida", "train")
    locked.log_in(token)
    locked.log_in("wrong")
    locked.gui.post("/jobs/none/resume", headers={"X-Request-Id": "from-a-page"})
    locked.gui.get("/jobs")
    rows = [json.loads(line) for line in (locked.checkpoints / ".maskwright" / "audit.log").read_text().splitlines()]
    said = [(row["who"], row["method"], row["path"], row["status"]) for row in rows]
    assert said == [
        ("owner", "POST", "/v1/tokens", 201),
        ("frida", "POST", "/v1/login", 200),
        ("-", "POST", "/v1/login", 401),
        ("frida", "POST", "/v1/jobs/none/resume", 404),
    ]
    assert rows[-1]["request"] == "from-a-page"
    assert datetime.fromisoformat(rows[-1]["at"]) <= datetime.now(timezone.utc)
    assert token not in json.dumps(rows)
    assert [row["path"] for row in locked.sdk.get("/v1/audit?limit=2", headers=OWNERS).json()] == ["/v1/jobs/none/resume", "/v1/login"]


def test_predictions_are_told_together_by_token_model_and_minute(locked: Locked) -> None:
    serve_brightness(locked.checkpoints, "m")
    camera, page = {"X-Token": locked.make("camera", "infer")}, {**OWNERS, "X-Request-Id": "p"}
    sent = {"picture": ("a.png", picture(1, 32, 32))}
    for _ in range(20):
        assert locked.inference.post("/v1/models/m/predict", headers=camera, files=sent).status_code == 200
    assert locked.inference.post("/models/m/predict_batch", headers=camera, files=[("input_data", sent["picture"])] * 3).status_code == 200
    assert locked.inference.post("/v1/models/m/batches", headers=page, files=[("picture", sent["picture"])] * 2).status_code == 202
    assert locked.inference.post("/v1/models/none/predict", headers=camera, files=sent).status_code == 404
    assert locked.inference.post("/v1/models/m/predict", files=sent).status_code == 401
    assert locked.inference.get("/v1/models").status_code == 401
    predictions: Predictions = locked.inference.app.state.predictions  # type: ignore[attr-defined]
    predictions.write()
    told = _predictions(locked)
    keys = ("who", "model", "status", "requests", "pictures")
    assert sorted(tuple(row[key] for key in keys) for row in told if "model" in row) == [
        ("-", "-", 401, 1, 0),
        ("camera", "-", 404, 1, 0),
        ("camera", "m", 200, 21, 23),
        ("owner", "m", 202, 1, 2),
    ]
    assert [(row["method"], row["path"], row["status"]) for row in told if "model" not in row] == [("GET", "/v1/models", 401)]
    shown = locked.sdk.get("/v1/audit", headers=OWNERS).json()
    assert [row for row in shown if "pictures" in row and row["who"] == "camera" and row["pictures"] == 23]
    assert [row["at"] for row in shown] == sorted((row["at"] for row in shown), reverse=True)
    predictions.seconds = 0.05
    assert locked.inference.post("/v1/models/m/predict", headers=camera, files=sent).status_code == 200
    wait_for(lambda: len(_predictions(locked)) == len(told) + 1, 30)


def _predictions(locked: Locked) -> list[dict[str, Any]]:
    file = locked.checkpoints / ".maskwright" / "predictions.log"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_was_predicted_is_written_down_when_the_service_ends_and_in_its_log_where_it_may_not_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inference = apps(tmp_path, "")[1]
    serve_brightness(tmp_path / "checkpoints", "m")
    with TestClient(inference) as client:
        client.post("/v1/models/m/predict", files={"picture": ("a.png", picture(1, 32, 32))})
    (row,) = [json.loads(line) for line in (tmp_path / "checkpoints" / ".maskwright" / "predictions.log").read_text().splitlines()]
    assert (row["who"], row["model"], row["pictures"]) == ("anyone", "m", 1)
    nowhere = Predictions(tmp_path / "none")
    with caplog.at_level("INFO", "maskwright"):
        nowhere.note({"who": "bob", "method": "DELETE", "path": "/v1/batches/b", "status": 204})
    assert "who=bob method=DELETE path=/v1/batches/b status=204" in caplog.text


def test_a_job_says_which_request_asked_for_it_and_so_does_a_report_of_a_fault(locked: Locked, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "datasets" / "plates")
    wish = {"name": "m", "dataset": "plates", "engine": "majority", "network": "majority", "backbone": "none"}
    page = {**OWNERS, "X-Request-Id": "from-a-page"}
    assert locked.sdk.post("/v1/jobs", headers=page, json={**wish, "hyperparameters": {"epochs": 3000}}).status_code == 201
    locked.sdk.post("/v1/jobs/m/stop", headers=OWNERS, json={"keep_best": False})
    wait_for(lambda: locked.sdk.get("/v1/jobs/m", headers=OWNERS).json()["status"]["state"] == "stopped")
    assert locked.sdk.post("/v1/jobs/m/resume", headers={**page, "X-Request-Id": "again"}).status_code == 200
    locked.sdk.post("/v1/jobs/m/stop", headers=OWNERS, json={"keep_best": False})
    wait_for(lambda: locked.sdk.get("/v1/jobs/m", headers=OWNERS).json()["status"]["state"] == "stopped")
    with zipfile.ZipFile(io.BytesIO(locked.sdk.get("/v1/diagnostics", headers=OWNERS).content)) as bundle:
        events = [json.loads(line) for line in bundle.read("jobs/m/events.jsonl").splitlines()]
        audit = [json.loads(line) for line in bundle.read("audit.log").splitlines()]
    asked = [(event["event"], event["request"]) for event in events if event.get("request")]
    assert asked == [("queued", "from-a-page"), ("resumed", "again"), ("queued", "again")]
    assert [(row["method"], row["path"], row["who"]) for row in audit if row["request"] == "from-a-page"] == [("POST", "/v1/jobs", "owner")]


@needs_gluon
def test_a_job_that_waits_for_an_old_client_asks_for_the_token_that_started_it(locked: Locked, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "datasets" / "plates")
    token, other, port = locked.make("old-client", "train"), locked.make("other", "admin"), free_port()
    wish = {"name": "old", "dataset_name": "plates", "gpus": [-1], "api_port": port}
    started = locked.sdk.post("/jobs/start", json=wish, headers={"X-Token": token})
    assert started.status_code == 200, started.text
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            assert client.get("/health").status_code == 200
            for headers, status in (({}, 401), ({"X-Token": other}, 401), ({"X-Token": token}, 200), (OWNERS, 200)):
                for path in ("/configuration/default", "/configuration/default/"):
                    assert client.post(path, headers=headers).status_code == status, (path, status)
            assert client.post("/training", params={"token": token}, content="{}").status_code == 400
            assert client.post("/training", content="{}").status_code == 401
        pid = json.loads((locked.checkpoints / "old" / "task.json").read_bytes())["pid"]
        told = Path(f"/proc/{pid}/environ").read_bytes().decode()
        assert "PROOFS=" in told
        assert token not in told
        assert TOKEN not in told
    finally:
        locked.sdk.post("/jobs/stop", json={"name": "old"}, headers=OWNERS)
    wait_for(lambda: not locked.sdk.app.state.jobs.launcher.running())  # type: ignore[attr-defined]


def test_a_proof_tells_its_token_from_others_and_is_never_the_same(tmp_path: Path) -> None:
    one, two = proof_of(TOKEN), proof_of(TOKEN)
    assert one != two
    assert proves(one, TOKEN)
    assert proves(two, TOKEN)
    assert not any(proves(one, wrong) for wrong in (TOKEN[:-1], "", "é", "\ud800"))


def test_a_full_audit_log_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path, most=500)
    for number in range(200):
        audit.note({"who": "x", "number": number})
    files = sorted((tmp_path / ".maskwright").glob("audit.log*"))
    assert [file.name for file in files] == ["audit.log", *(f"audit.log.{number}" for number in (1, 2, 3, 4))]
    assert all(file.stat().st_size <= 500 for file in files)
    assert audit.last(1)[0]["number"] == 199
    numbers = [json.loads(line)["number"] for file in [*files[:0:-1], files[0]] for line in file.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 200)), "no line is lost between two files"


def test_a_path_cannot_add_a_line_to_the_log(locked: Locked, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "maskwright"):
        locked.sdk.get("/v1/jobs/x%0Awho=owner%20method=POST", headers=OWNERS)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "maskwright.requests"]
    assert "\n" not in said
    assert r'path="/v1/jobs/x\nwho=owner method=POST"' in said


# The start


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.0.7", "::", "lab.example"])
def test_a_door_to_everybody_wants_a_token(address: str) -> None:
    with pytest.raises(Invalid, match="without a TOKEN"):
        refuse_open_door("gui", address, "")
    refuse_open_door("gui", address, TOKEN)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_a_door_to_this_machine_wants_none(address: str) -> None:
    refuse_open_door("gui", address, "")


@pytest.mark.parametrize(("service", "host"), [("docker_sdk_api", "SDK_HOST"), ("inference_api", "INFERENCE_HOST"), ("gui", "GUI_HOST")])
def test_a_service_that_everybody_could_reach_does_not_start(service: str, host: str, tmp_path: Path) -> None:
    folders = {"CHECKPOINTS": str(tmp_path), "DATASETS": str(tmp_path)}
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), host: "0.0.0.0", **folders}
    done = subprocess.run([sys.executable, "-m", service], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "would be reached at 0.0.0.0, by more than this machine, without a TOKEN. Set one" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_makes_lists_and_revokes_tokens(tmp_path: Path) -> None:
    def say(*words: str) -> str:
        environment = {"PATH": "/usr/bin:/bin", "CHECKPOINTS": str(tmp_path)}
        command = [sys.executable, "-m", "cli", "token", *words]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    token = say("make", "camera", "--scope", "infer", "--days", "7")
    found = Tokens(tmp_path).find(token)
    assert (found and found.name, found and found.scope) == ("camera", "infer")
    assert "camera" in say("list")
    say("revoke", "camera")
    assert Tokens(tmp_path).find(token) is None


def test_the_client_sends_its_token_and_raises_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(apps(tmp_path, TOKEN)[1]) as address:
        with Client(address, token=TOKEN) as client:
            assert client.models() == []
        with Client(address) as client, pytest.raises(NoToken, match="needs a token"):
            client.models()
        monkeypatch.setenv("MASKWRIGHT_TOKEN", TOKEN)
        with Client(address) as client:
            assert client.models() == []


def test_the_pages_are_encrypted_with_a_certificate_of_their_own_and_log_in_json(tmp_path: Path) -> None:
    port = free_port()
    chosen = {"GUI_PORT": str(port), "TOKEN": TOKEN, "TLS": "self-signed", "HOSTS": "lab.example", "LOG_FORMAT": "json"}
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), **chosen}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "gui"], env=environment, stdout=log, stderr=log)
    try:
        (certificate,) = wait_for(lambda: [*tmp_path.glob("maskwright-tls-*/cert.pem")], 60)
        trusting = ssl.create_default_context(cafile=certificate)
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting, trust_env=False, timeout=60) as client:

            def answers() -> bool:
                try:
                    return client.get("/health").is_success
                except httpx.TransportError:
                    return False

            wait_for(answers, 60)
            let_in = client.post("/login", data={"token": TOKEN})
            assert let_in.status_code == 303
            assert "; secure" in let_in.headers["set-cookie"].lower()
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
    finally:
        process.terminate()
        process.wait(20)
    assert certificate.with_name("key.pem").stat().st_mode & 0o077 == 0
    command = ["openssl", "x509", "-in", certificate, "-noout", "-text"]
    assert "DNS:lab.example" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (said,) = [row for row in rows if row.get("path") == "/login"]
    assert (said["method"], said["status"], said["level"]) == ("POST", 303, "INFO")


def test_a_certificate_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"TLS_CERT names “/nowhere/cert\.pem”, which cannot be read"):
        serving("gui", GuiSettings(tls_cert="/nowhere/cert.pem", tls_key=str(tmp_path)), "127.0.0.1", 4200)


@needs_chromium
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Playwright's driver and of the services
def test_a_person_logs_in_and_follows_a_training_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_dataset(tmp_path / "datasets" / "plates")
    monkeypatch.setenv("TOKEN", TOKEN)
    with services(tmp_path) as address, chromium() as browser, watched_page(browser, address) as page:
        page.goto("/jobs?search=plates")
        page.get_by_label("Token").fill("wrong")
        press(page, "Log in")
        expect(page.get_by_text("This token is not known")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        press(page, "Log in")
        page.wait_for_url("**/jobs?search=plates")
        start(page, "plates", "majority/majority/none", "seen", epochs=2)
        expect(page.get_by_text("finished").first).to_be_visible(timeout=60_000)  # no reload: the page follows the job
        press(page, "Log out")
        page.wait_for_url("**/login")
        page.goto("/jobs/seen")
        expect(page.get_by_label("Token")).to_be_visible()
