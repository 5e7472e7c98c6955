"""Uploads through the front door: in pieces, past broken connections and restarts, never in memory, never outside."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from docker_sdk_api.app import create_app
from docker_sdk_api.settings import Settings
from tests.conftest import ROOT, wait_for
from tests.waits import free_port

LARGE = 192 * 2**20
PIECE = bytes(range(256)) * 4096


def announce(api: TestClient, *files: tuple[str, int]) -> str:
    answer = api.post("/v1/uploads", json={"files": [{"name": name, "size": size} for name, size in files]})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def received(api: TestClient, id: str) -> list[int]:
    return [file["received"] for file in api.get(f"/v1/uploads/{id}").json()["files"]]


def send(api: TestClient, id: str, content: bytes, index: int = 0, offset: int = 0) -> dict:
    answer = api.put(f"/v1/uploads/{id}/files/{index}", params={"offset": offset}, content=content)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(api: TestClient, *files: tuple[str, int], status: int = 400) -> str:
    before = sorted(Path(api.app.state.settings.datasets).rglob("*"))
    body = json.dumps({"files": [{"name": name, "size": size} for name, size in files]})  # half letters too, escaped
    answer = api.post("/v1/uploads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["cure"]
    after = [path for path in Path(api.app.state.settings.datasets).rglob("*") if path.name != ".uploads"]
    assert sorted(after) == [path for path in before if path.name != ".uploads"]
    return answer.json()["cause"]


def test_a_file_arrives_in_pieces_and_lies_in_a_hidden_folder(api: TestClient, settings: Settings):
    id = announce(api, ("plates.zip", 11))
    assert received(api, id) == [0]
    assert send(api, id, b"hello ") == {"received": 6}
    assert received(api, id) == [6]
    assert send(api, id, b"world", offset=6) == {"received": 11}
    assert (settings.datasets / ".uploads" / id / "files" / "plates.zip").read_bytes() == b"hello world"
    assert api.get("/v1/datasets").json() == []


def test_a_folder_of_files_keeps_its_folders(api: TestClient, settings: Settings):
    id = announce(api, ("plates/images/a.png", 1), ("plates/labels/a.png", 2), ("plates/empty.txt", 0))
    send(api, id, b"12", index=1)
    send(api, id, b"1", index=0)
    assert received(api, id) == [1, 2, 0]
    folder = settings.datasets / ".uploads" / id / "files"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "plates/empty.txt",
        "plates/images/a.png",
        "plates/labels/a.png",
    ]


def test_a_piece_at_the_wrong_place_is_refused_with_the_right_one(api: TestClient):
    id = announce(api, ("a.zip", 10))
    send(api, id, b"1234")
    for offset in (0, 3, 5):
        answer = api.put(f"/v1/uploads/{id}/files/0", params={"offset": offset}, content=b"x")
        assert answer.status_code == 409
        assert answer.json()["received"] == 4
        assert answer.json()["error"] == "Taken"
        assert "byte 4" in answer.json()["cure"]
    assert received(api, id) == [4]


def test_more_bytes_than_announced_are_refused_and_not_kept(api: TestClient):
    id = announce(api, ("a.zip", 3))
    answer = api.put(f"/v1/uploads/{id}/files/0", content=b"12345")
    assert answer.status_code == 400
    assert "More bytes came for a.zip than the 3" in answer.json()["cause"]
    assert received(api, id) == [3]


@pytest.mark.parametrize("path", ["0" * 16, "..", "%2e%2e", "..%2f..%2fplates", "x"])
def test_an_upload_that_is_not_there_is_said(api: TestClient, dataset: Path, path: str):
    for answer in (api.get(f"/v1/uploads/{path}"), api.delete(f"/v1/uploads/{path}"), api.put(f"/v1/uploads/{path}/files/0")):
        assert answer.status_code in (404, 405)
    assert dataset.is_dir()


def test_a_file_number_that_is_not_there_is_said(api: TestClient):
    id = announce(api, ("a.zip", 3))
    for index in (1, -1):
        assert api.put(f"/v1/uploads/{id}/files/{index}", content=b"x").status_code == 404
    assert api.put(f"/v1/uploads/{id}/files/x", content=b"x").status_code == 400
    assert api.put(f"/v1/uploads/{id}/files/0?offset=-1", content=b"x").status_code == 400


@pytest.mark.parametrize(
    "name",
    ["../a", "/etc/a", "a/../../b", "..\\a", "C:\\a", "a\0b", "a\nb", ".", "/", "a/..", "\ud800", "n" * 300, "d/" * 60 + "f", ""],
)
def test_a_name_that_leads_outside_or_is_none_is_refused(api: TestClient, name: str):
    assert "name" in refused(api, (name, 1))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a\\b", "a/b")])
def test_names_that_clash_are_refused(api: TestClient, names: tuple[str, str]):
    assert "have the name" in refused(api, *((name, 1) for name in names))


def test_an_upload_of_nothing_is_refused(api: TestClient):
    refused(api)
    refused(api, ("a.zip", -1))


def test_an_upload_that_is_too_large_is_refused_with_the_limit(settings: Settings):
    with TestClient(create_app(settings.model_copy(update={"largest_dataset_upload": 2**30}))) as api:
        assert "at most 1 GiB are taken" in refused(api, ("a.zip", 2**30), ("b.zip", 1))


def test_an_upload_that_the_disk_has_no_room_for_is_refused_before_it_begins(settings: Settings):
    with TestClient(create_app(settings.model_copy(update={"largest_dataset_upload": 2**60}))) as api:
        assert "of the disk are free" in refused(api, ("a.zip", 2**59), status=503)


def test_a_disk_that_gets_full_is_said_and_what_came_before_stays(api: TestClient, settings: Settings):
    id = announce(api, ("a.zip", 100), ("b.zip", 100))
    send(api, id, b"here", index=1)
    (settings.datasets / ".uploads" / id / "files" / "a.zip").symlink_to("/dev/full")  # every write to it: no space left
    answer = api.put(f"/v1/uploads/{id}/files/0", content=b"x" * 100)
    assert answer.status_code == 503
    assert "The disk is full" in answer.json()["cause"]
    assert answer.json()["cure"]
    assert received(api, id) == [0, 4]


def test_a_deleted_upload_leaves_nothing(api: TestClient, settings: Settings):
    id = announce(api, ("a/b.zip", 3))
    send(api, id, b"123")
    assert api.delete(f"/v1/uploads/{id}").status_code == 204
    assert list((settings.datasets / ".uploads").iterdir()) == []
    assert api.get(f"/v1/uploads/{id}").status_code == 404


def test_a_restart_keeps_uploads_and_forgets_those_older_than_a_day(api: TestClient, settings: Settings):
    young, old = announce(api, ("a.zip", 3)), announce(api, ("b.zip", 3))
    send(api, young, b"12")
    record = settings.datasets / ".uploads" / old / "upload.json"
    yesterday = time.time() - 25 * 3600
    os.utime(record, (yesterday, yesterday))
    with TestClient(create_app(settings)) as again:
        assert again.get(f"/v1/uploads/{old}").status_code == 404
        assert received(again, young) == [2]
        assert send(again, young, b"3", offset=2) == {"received": 3}
    assert [path.name for path in (settings.datasets / ".uploads").iterdir()] == [young]


@contextmanager
def service(datasets: Path, port: int) -> Iterator[subprocess.Popen]:
    """docker_sdk_api as a process of its own, over real sockets; killed without a warning at the end."""
    environment = {**os.environ, "DATASETS": str(datasets), "CHECKPOINTS": str(datasets.parent / "checkpoints"), "SDK_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "docker_sdk_api"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), 60)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, method: str, path: str, body: object = None) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, body=json.dumps(body) if isinstance(body, dict) else body, headers=headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def peak_memory(process: subprocess.Popen) -> int:
    """Bytes: the most that the process ever had in memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_a_large_upload_is_streamed_past_a_broken_line_and_a_killed_service_in_little_memory(tmp_path: Path):
    datasets, port = tmp_path / "datasets", free_port()
    datasets.mkdir()
    with service(datasets, port) as process:
        id = ask(port, "POST", "/v1/uploads", {"files": [{"name": "large.tar", "size": LARGE}]})["id"]
        path = f"/v1/uploads/{id}"
        before = peak_memory(process)
        begin = f"PUT {path}/files/0 HTTP/1.1\r\nHost: here\r\nContent-Length: {LARGE}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            line.sendall(begin)
            for _ in range(100):
                line.sendall(PIECE)
        wait_for(lambda: ask(port, "GET", path)["files"][0]["received"] == 100 * len(PIECE))
        assert peak_memory(process) - before < 40 * 2**20
    with service(datasets, port) as process:
        offset = ask(port, "GET", path)["files"][0]["received"]
        assert offset == 100 * len(PIECE)
        before = peak_memory(process)
        rest = (PIECE for _ in range((LARGE - offset) // len(PIECE)))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("PUT", f"{path}/files/0?offset={offset}", body=rest)
        assert json.loads(connection.getresponse().read()) == {"received": LARGE}
        connection.close()
        assert peak_memory(process) - before < 40 * 2**20
    with open(datasets / ".uploads" / id / "files" / "large.tar", "rb") as file:
        assert all(file.read(len(PIECE)) == PIECE for _ in range(LARGE // len(PIECE)))


def test_sending_again_while_the_stuck_connection_is_still_open_gives_the_whole_file(tmp_path: Path):
    datasets, port = tmp_path / "datasets", free_port()
    datasets.mkdir()
    content = PIECE * 6
    with service(datasets, port), socket.create_connection(("127.0.0.1", port), timeout=60) as stuck:
        id = ask(port, "POST", "/v1/uploads", {"files": [{"name": "a.tar", "size": len(content)}]})["id"]
        path = f"/v1/uploads/{id}"
        stuck.sendall(f"PUT {path}/files/0 HTTP/1.1\r\nHost: here\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        stuck.sendall(content[: 5 * len(PIECE) // 2])
        wait_for(lambda: ask(port, "GET", path)["files"][0]["received"] >= 2 * len(PIECE))
        offset = ask(port, "GET", path)["files"][0]["received"]
        assert ask(port, "PUT", f"{path}/files/0?offset={offset}", content[offset:]) == {"received": len(content)}
        stuck.sendall(content[5 * len(PIECE) // 2 : 4 * len(PIECE)])
        stuck.shutdown(socket.SHUT_WR)
        stuck.recv(1)  # the service has read it all and hung up
        assert (datasets / ".uploads" / id / "files" / "a.tar").read_bytes() == content
