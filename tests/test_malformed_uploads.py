"""Hundreds of malformed uploads: each gets a 4xx with a sentence, and the service goes on answering."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gui.app import create_app as create_pages
from gui.backend import Backend
from gui.settings import Settings as GuiSettings
from inference_api.app import create_app
from inference_api.settings import Settings
from tests.conftest import client_of, text_of, wait_for
from tests.malformed import sound, uploads
from tests.served import serve_brightness, served

UPLOADS = list(uploads())
# Pillow warns of what it then refuses, and a form that breaks off leaves its file to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
PREDICT = "/v1/models/brightness/predict"
BODIES = {
    "no boundary": (b"--x\r\n\r\n", "multipart/form-data"),
    "a boundary that never comes": (b"hello" * 100, "multipart/form-data; boundary=x"),
    "an empty boundary": (b"--\r\n\r\n--", "multipart/form-data; boundary="),
    "a part that never ends": (
        b'--x\r\nContent-Disposition: form-data; name="picture"; filename="p"\r\n\r\n\x89PNG',
        "multipart/form-data; boundary=x",
    ),
    "a part without a name": (b"--x\r\nContent-Disposition: form-data\r\n\r\nhi\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    "a part without a head": (b"--x\r\n\r\nhi\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    "a head of garbage": (b"--x\r\n\xff\xfe\x00: \x01\r\n\r\nhi\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    "a field in the place of the file": (
        b'--x\r\nContent-Disposition: form-data; name="picture"\r\n\r\nhi\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
    ),
    "a field of two megabytes": (
        b'--x\r\nContent-Disposition: form-data; name="picture"\r\n\r\n' + b"a" * 2**21 + b"\r\n--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
    "two thousand fields": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 2000 + b"--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
    "the picture itself": (sound("PNG"), "image/png"),
    "JSON": (b'{"picture": "x"}', "application/json"),
    "a form of another kind": (b"picture=x", "application/x-www-form-urlencoded"),
    "nothing": (b"", ""),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    serve_brightness(folder)
    return folder


@pytest.fixture(scope="module")
def inference(checkpoints: Path) -> Iterator[TestClient]:
    with served(checkpoints, largest_upload=4 * 2**20) as client:
        yield client


def says_why(answer) -> bool:
    assert 400 <= answer.status_code < 500, answer.text
    body = answer.json()
    assert body["cause"].endswith("."), body
    assert body["cure"].endswith("."), body
    assert "object at 0x" not in body["cause"]
    return True


def test_there_are_more_than_two_hundred_of_them():
    assert len(dict(UPLOADS)) > 200


@pytest.mark.parametrize(("what", "content"), UPLOADS, ids=[what for what, _ in UPLOADS])
def test_a_malformed_picture_gets_a_sentence(inference: TestClient, what: str, content: bytes):
    assert says_why(inference.post(PREDICT, files={"picture": ("p.png", content)}))


@pytest.mark.parametrize("what", BODIES)
def test_a_malformed_request_gets_a_sentence(inference: TestClient, what: str):
    body, kind = BODIES[what]
    assert says_why(inference.post(PREDICT, content=body, headers={"Content-Type": kind} if kind else {}))


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "p\x00.png", "💥" * 200, "a\r\nb", "<script>"])
def test_a_strange_file_name_stays_a_name(inference: TestClient, name: str):
    assert says_why(inference.post(PREDICT, files={"picture": (name, b"no picture")}))
    assert inference.post(PREDICT, files={"picture": (name or "p", sound("PNG"))}).status_code == 200


def test_all_malformed_pictures_at_once_stop_no_sound_one(inference: TestClient):
    files = [("picture", (what, content)) for what, content in UPLOADS[::3]][:99]
    files.insert(40, ("picture", ("sound.png", sound("PNG"))))
    rows = inference.post(f"{PREDICT}/batch?answer=shares", files=files).json()
    assert [row["file"] for row in rows if "cause" not in row] == ["sound.png"]


def test_more_bytes_than_are_taken_are_refused_when_they_come(inference: TestClient):
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="p"\r\n\r\n'
        for _ in range(10):
            yield bytes(2**20)

    answer = inference.post(PREDICT, content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413
    assert says_why(answer)
    assert inference.post(PREDICT, files={"picture": ("p", sound("PNG"))}).status_code == 200


@pytest.fixture
def port(checkpoints: Path) -> Iterator[int]:
    """The service on a real socket, as `python -m inference_api` runs it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(Settings(checkpoints=checkpoints)), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def test_two_declared_gigabytes_are_refused_before_they_come_and_silent_clients_hold_nobody_up(port: int):
    head = "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
    silent = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(50)]
    for client in silent:
        client.sendall(head.format(path=PREDICT, length=1000).encode() + b"--x\r\n")
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(head.format(path=PREDICT, length=2 * 2**30).encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    for client in silent:
        client.close()


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", ["/dataset/validate", "/v1/jobs", "/v1/jobs/none/stop", "/v1/forecast"])
def test_no_question_to_docker_sdk_api_is_read_without_an_end(api: TestClient, path: str, declared: bool):
    length = {"Content-Length": str(8 * 2**20)} if declared else {}
    answer = api.post(path, content=(b" " * 2**20 for _ in range(8)), headers={"Content-Type": "application/json", **length})
    assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge")
    assert says_why(answer)


def test_a_file_has_the_limit_of_its_own_route(api: TestClient):
    upload = api.post("/v1/uploads", json={"files": [{"name": "a.bin", "size": 6 * 2**20}]}).json()["id"]
    sent = api.put(f"/v1/uploads/{upload}/files/0", content=bytes(6 * 2**20))
    assert sent.json() == {"received": 6 * 2**20}
    assert api.post("/v1/models/import", files={"file": ("m.zip", bytes(6 * 2**20))}).status_code == 400, "it is no zip"


def test_a_picture_to_try_is_read_no_further_than_it_is_taken(sdk_app: FastAPI, inference_app: FastAPI):
    app = create_pages(GuiSettings(largest_upload=2**20), Backend(client_of(sdk_app), client_of(inference_app)))
    form = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="p"\r\n\r\n' + bytes(2**21)
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Accept": "text/html"}
    with TestClient(app) as gui:
        answer = gui.post("/models/any/try", content=form, headers=headers)
        assert answer.status_code == 413
        said = text_of(answer)
        assert "The request has more than 1 MB." in said
        assert "Send smaller files, or fewer at a time." in said
        wizard = gui.post("/train", content=iter([b"a=" + bytes(5 * 2**20)]), headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert (wizard.status_code, wizard.json()["error"]) == (413, "TooLarge")
