"""inference_api under load, as a process of its own: every answer belongs to its question, and what is too much is said."""

import asyncio
import itertools
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from contracts.errors import Busy
from contracts.job_folder import folder_aside
from contracts.model import Geometry
from maskwright_client import AsyncClient, Client
from tests.conftest import wait_for
from tests.served import serve_graph
from tests.service import Service, picture, running, serve_texture

QUEUE = 45
"""More than a service has threads for requests."""
FULL = 'maskwright_rejected_total{why="full"}'
LEFT = 'maskwright_rejected_total{why="left"}'
WAITING, RUNNING = "maskwright_predictions_waiting", "maskwright_predictions_running"
HELD = picture(0, 4000, 4000, flat=True)
"""A small file that takes long to be read in small tiles."""
SMALL = picture(1, 40, 40)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    serve_texture(folder)
    serve_texture(folder, "tiles", tile=(64, 64))
    return folder


@pytest.fixture(scope="module")
def service(checkpoints: Path) -> Iterator[Service]:
    with running(checkpoints) as started:
        yield started


@pytest.fixture(scope="module")
def narrow(checkpoints: Path) -> Iterator[Service]:
    """One prediction at a time."""
    with running(checkpoints, predictions_at_once=1, queue=QUEUE) as started:
        yield started


def pictures(count: int) -> list[bytes]:
    """Distinct ones of distinct sizes."""
    return [picture(number, 40 + 3 * number, 200 - 2 * number) for number in range(count)]


def hang(service: Service, content: bytes, model: str) -> socket.socket:
    """A caller who sent a picture, and has not heard yet."""
    body = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="p.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    head = f"POST /v1/models/{model}/predict?short_side=4096 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    address = httpx.URL(service.url)
    caller = socket.create_connection((address.host, address.port), timeout=30)
    caller.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body)
    return caller


@contextmanager
def held(service: Service) -> Iterator[None]:
    """Keeps the only worker busy: until the block ends, when that caller hangs up."""
    with hang(service, HELD, "tiles"):
        wait_for(lambda: service.metrics()[RUNNING] == 1, 30)
        yield
        before = service.metrics()
        assert before[RUNNING] == 1, "the picture was not large enough for this machine"
    wait_for(lambda: service.metrics()[LEFT] == before[LEFT] + 1, 30)


def post_many(service: Service, count: int, path: str = "/v1/models/texture/predict", field: str = "picture") -> list[httpx.Response]:
    async def post() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=service.url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(*(client.post(path, files={field: ("p.png", SMALL)}) for _ in range(count)))

    return asyncio.run(post())


@pytest.mark.parametrize("callers", [12, 50])
def test_simultaneous_callers_each_receive_the_answer_to_their_own_picture(service: Service, callers: int):
    sent = pictures(callers)
    with Client(service.url) as client:
        alone = [client.mask("texture", one) for one in sent]
    assert len({mask.shape for mask in alone}) == callers
    assert all(len(np.unique(mask)) == 3 for mask in alone)

    async def at_once() -> list[np.ndarray]:
        async with AsyncClient(service.url) as client:
            return await asyncio.gather(*(client.mask("texture", one) for one in sent))

    together = asyncio.run(at_once())
    assert [np.array_equal(one, other) for one, other in zip(alone, together, strict=True)] == [True] * callers


@pytest.mark.parametrize(("path", "field"), [("/v1/models/texture/predict", "picture"), ("/models/texture/predict", "input_data")])
def test_a_full_queue_says_when_to_come_back_and_the_service_goes_on(narrow: Service, path: str, field: str):
    before = narrow.metrics()[FULL]
    with ThreadPoolExecutor(1) as aside:
        with held(narrow):
            asked = aside.submit(post_many, narrow, QUEUE + 5, path, field)
            wait_for(lambda: narrow.metrics()[FULL] == before + 5, 30)
        answers = asked.result(120)
    assert sorted(answer.status_code for answer in answers) == [200] * QUEUE + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    said = refused.json()["cause"] if field == "picture" else refused.json()["error"]
    assert f"{QUEUE} predictions are waiting" in said
    assert post_many(narrow, 1, path, field)[0].status_code == 200


def test_the_client_comes_back_when_it_is_told_to_and_gives_up_when_its_patience_ends(narrow: Service):
    async def ask(patience: float) -> list[object]:
        async with AsyncClient(narrow.url, patience=patience) as client:
            return await asyncio.gather(*(client.mask("texture", SMALL) for _ in range(QUEUE + 3)), return_exceptions=True)

    for patience, refused in ((100, 0), (0, 3)):
        before = narrow.metrics()[FULL]
        with ThreadPoolExecutor(1) as aside:
            with held(narrow):
                asked = aside.submit(asyncio.run, ask(patience))
                wait_for(lambda: narrow.metrics()[FULL] >= before + 3, 30)  # noqa: B023  # asked in this very round
            answers = asked.result(120)
        assert sum(isinstance(answer, Busy) for answer in answers) == refused
        assert sum(isinstance(answer, np.ndarray) for answer in answers) == QUEUE + 3 - refused


def test_callers_that_leave_free_their_places_in_the_queue(narrow: Service):
    before = narrow.metrics()[LEFT]
    with held(narrow):
        callers = [hang(narrow, SMALL, "texture") for _ in range(3)]
        wait_for(lambda: narrow.metrics()[WAITING] == 3, 30)
        for caller in callers:
            caller.close()
        wait_for(lambda: narrow.metrics()[WAITING] == 0, 30)
        assert narrow.metrics()[LEFT] == before + 3


def test_a_prediction_whose_caller_left_ends_at_its_next_tile(narrow: Service):
    before = narrow.metrics()
    with held(narrow):
        pass
    after = narrow.metrics()
    assert (after[RUNNING], after[LEFT]) == (0, before[LEFT] + 1)


def test_a_deadline_that_passes_is_said_in_the_queue_and_between_tiles(narrow: Service):
    def ask(model: str, content: bytes, seconds: int) -> httpx.Response:
        path = f"{narrow.url}/v1/models/{model}/predict?short_side=4096"
        return httpx.post(path, files={"picture": ("p.png", content)}, headers={"Prefer": f"wait={seconds}"}, timeout=60)

    with held(narrow):
        late = ask("texture", SMALL, 0)
    assert (late.status_code, late.json()["error"]) == (504, "Late")
    assert ask("texture", SMALL, 60).status_code == 200
    assert ask("tiles", HELD, 1).status_code == 504
    assert narrow.metrics()[RUNNING] == 0


def test_health_and_metrics_answer_while_the_worker_is_busy_and_more_wait_than_there_are_threads(narrow: Service):
    with ThreadPoolExecutor(1) as aside:
        with held(narrow):
            asked = aside.submit(post_many, narrow, QUEUE)
            wait_for(lambda: narrow.metrics()[WAITING] == QUEUE, 30)
            for path in ("health", "ready", "models", "models/texture"):
                assert httpx.get(f"{narrow.url}/v1/{path}", timeout=30).status_code == 200
            assert narrow.metrics()[WAITING] == QUEUE
        assert {answer.status_code for answer in asked.result(120)} == {200}


def test_a_model_is_published_anew_under_fire_without_a_failed_request(service: Service, checkpoints: Path):
    publish(checkpoints, 1)
    enough = threading.Event()

    def keep_asking(_: int) -> list[int]:
        seen = []
        with Client(service.url) as client:
            while not enough.is_set():
                seen.extend(np.unique(client.mask("constant", picture(3, 48, 64))).tolist())
        return seen

    with ThreadPoolExecutor(4) as callers:
        asking = [callers.submit(keep_asking, number) for number in range(4)]
        try:
            for number in range(12):
                publish(checkpoints, 1 + number % 2)
                time.sleep(0.1)
        finally:
            enough.set()
        seen = [one.result(60) for one in asking]
    assert {1, 2} == set(itertools.chain(*seen))
    publish(checkpoints, 1)
    with Client(service.url) as client:
        assert np.unique(client.mask("constant", picture(3, 48, 64))).tolist() == [1]


def test_a_damaged_model_gets_a_sentence_and_the_others_go_on(service: Service, checkpoints: Path):
    shutil.copytree(checkpoints / "texture", checkpoints / "damaged")
    (checkpoints / "damaged" / "model" / "model.json").write_text("{")
    answer = httpx.post(f"{service.url}/v1/models/damaged/predict", files={"picture": ("p.png", SMALL)}, timeout=30)
    assert (answer.status_code, answer.json()["error"]) == (500, "Broken")
    shutil.rmtree(checkpoints / "damaged")
    with Client(service.url) as client:
        assert client.mask("texture", SMALL).shape == (40, 40)


def test_models_beyond_the_memory_for_them_leave_it_and_come_back(checkpoints: Path):
    for name in ("first", "second", "third"):
        shutil.copytree(checkpoints / "texture", checkpoints / name, dirs_exist_ok=True)
    with running(checkpoints, memory_for_models=700 * 2**20) as service, Client(service.url) as client:
        masks = [client.mask(name, picture(2, 64, 48)) for name in ("first", "second", "third", "first")]
        assert service.metrics()["maskwright_models_loaded"] == 2
        assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_memory_stays_level_over_hundreds_of_requests(service: Service):
    sent = pictures(25)

    async def ask(rounds: int) -> None:
        async with AsyncClient(service.url) as client:
            for _ in range(rounds):
                await asyncio.gather(*(client.mask("texture", one) for one in sent))

    asyncio.run(ask(6))
    before = service.memory()
    asyncio.run(ask(12))
    assert service.memory() - before < 40 * 2**20


def test_metrics_count_requests_by_route_and_status(service: Service):
    before = service.metrics()
    with Client(service.url) as client:
        client.mask("texture", picture(1, 40, 40))
    httpx.post(f"{service.url}/v1/models/texture/predict", files={"picture": ("p.png", b"no picture")}, timeout=30)
    httpx.get(f"{service.url}/made/up", timeout=30)
    after = service.metrics()
    labels = 'method="POST",route="/v1/models/{name}/predict",status='
    for status in (200, 400):
        row = f'maskwright_requests_total{{{labels}"{status}"}}'
        assert after[row] - before.get(row, 0) == 1
    row = 'maskwright_request_seconds_count{route="/v1/models/{name}/predict"}'
    assert after[row] - before.get(row, 0) == 2
    assert after['maskwright_requests_total{method="GET",route="none",status="404"}'] >= 1


def test_a_service_without_its_folder_is_healthy_but_not_ready(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with running(folder) as service:
        folder.rename(tmp_path / "away")
        assert httpx.get(f"{service.url}/v1/health", timeout=30).status_code == 200
        answer = httpx.get(f"{service.url}/v1/ready", timeout=30)
        assert (answer.status_code, "cannot be read" in answer.json()["cause"]) == (503, True)


def publish(checkpoints: Path, answer: int) -> None:
    """A model that sees one class everywhere, put in the place of the former one as a training does it."""
    folder = checkpoints / "constant" / "model"
    folder.parent.mkdir(exist_ok=True)
    weights, bias = np.zeros((3, 3, 1, 1), np.float32), np.eye(3, dtype=np.float32)[answer]
    shutil.rmtree(checkpoints / ".made", ignore_errors=True)
    serve_graph(checkpoints / ".made", "constant", [(weights, bias)], Geometry(short_side=4096, multiple_of=8))
    with folder_aside(folder) as aside:
        shutil.copytree(checkpoints / ".made" / "constant" / "model", aside, dirs_exist_ok=True)
