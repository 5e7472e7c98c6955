"""The training API that clients of the GluonCV training GUI know: a job waits here until one says what to train.

`python -m training_api.original JOB_FOLDER`, asked at the variable LISTEN. What it is told becomes the job's job.json, and then it
runs the training that every other job is (`python -m training_api JOB_FOLDER`) in a process of its own and ends with it.
"""

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from annotations.dataset import open_dataset
from annotations.doctor.check import Report, check_dataset
from contracts.doors import Doors, Find
from contracts.errors import Invalid, Problem, Taken, Unavailable
from contracts.events import Stage, Stopped
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.original import CPU, Config, DatasetInfo, Wish, envelope, job_of, read_body
from contracts.refusals import REFUSALS
from contracts.serving import DoorSettings
from contracts.tokens import Who, proves
from training_api.__main__ import say_what_fails, say_what_kills
from training_api.figures import Events

LOOK = 0.2
"""Seconds between two looks at the training and at whether somebody asked to stop."""
LINGER = 5
"""Seconds that an answer under way may take when this ends."""
HERE = Path(__file__).resolve().parent.parent
Route = TypeVar("Route", bound=Callable[..., Any])


class Waiting:
    """A job that waits for its client, and from then on the training that it became."""

    def __init__(self, folder: JobFolder, events: Events) -> None:
        self.folder, self.events = folder, events
        self.job = folder.job()
        self.checkpoints = Path(os.environ.get("CHECKPOINTS") or folder.path.parent)
        self.classifiers = Path(os.environ.get("CLASSIFIERS") or HERE / "classifiers")
        self.training: subprocess.Popen[bytes] | None = None
        self._telling = threading.Lock()

    def understand(self, wish: Wish) -> tuple[Job, Report]:
        """The job that a client asks for, and its dataset found sound. Raises Problem with what is wrong in it."""
        job = job_of(wish, self.job, self.checkpoints, self.classifiers)
        _agree(wish.dataset_info, open_dataset(job.dataset_folder).classes)
        report = check_dataset(job.dataset_folder)
        report.refuse_errors()
        return job, report

    def split(self, wish: Wish) -> str:
        """How the dataset of what a client asks for would be split, as a sentence."""
        job, report = self.understand(wish)
        split = report.split_for(job.validation_share, job.seed)
        return f"{len(split.training)} pictures teach, {len(split.validation)} score."

    def train(self, wish: Wish) -> str:
        """Become the training that a client asks for. Raises Problem; then the job goes on waiting."""
        with self._telling:
            if self.training is not None:
                raise Taken(f"The job “{self.job.name}” has been told what to train already.", "Start another job.")
            job, _ = self.understand(wish)
            self.folder.write_job(job)
            self.training = subprocess.Popen([sys.executable, "-m", "training_api", str(self.folder.path)])
        return f"The training has begun: {job.network} on {job.backbone}. The model will be called {job.name}."

    def wait(self, end: Callable[[], None]) -> int:
        """Until the training has ended, or somebody asked to stop before there was one. The exit code of the job."""
        while self.training is None:
            if self.folder.asked_to_stop() is not None:
                with self._telling:
                    if self.training is None:
                        self.events.say(Stopped())
                        print("stopped before a client said what to train")
                        end()
                        return 0
            time.sleep(LOOK)
        code = self.training.wait()
        end()
        return code


def _agree(info: DatasetInfo, classes: list[str]) -> None:
    """Raises Invalid where a client means other classes than the dataset has."""
    cure = "Ask POST /dataset/classes what it has, and send that."
    if info.num_classes is not None and info.num_classes != len(classes):
        raise Invalid(f"num_classes is {info.num_classes}, and the dataset has {len(classes)} classes.", cure)
    if info.classes and info.classes != classes:
        raise Invalid(f"classes are {', '.join(info.classes)}, and the dataset's are {', '.join(classes)}.", cure)


def create_app(waiting: Waiting) -> FastAPI:
    # Without pages of the routes: their scripts are elsewhere.
    app = FastAPI(title="Maskwright: a job that waits for its client", docs_url=None, redoc_url=None, responses=REFUSALS)
    names = {"allowed_origins": os.environ.get("ALLOWED_ORIGINS", ""), "hosts": os.environ.get("HOSTS", "")}
    proofs = os.environ.get("PROOFS", "").split()
    # Whose token this is, only the proofs tell. Where there are none, no door is locked: it listens to this machine alone.
    app.add_middleware(Doors, settings=DoorSettings(**names, token=secrets.token_hex() if proofs else ""), find=_finder(proofs))

    def route(method: str, path: str, **more: Any) -> Callable[[Route], Route]:
        def add(function: Route) -> Route:
            for each in (path, f"{path}/"):
                app.add_api_route(each, function, methods=[method], **more)
            return function

        return add

    @route("GET", "/health", response_class=Response)
    def health() -> Response:
        return Response(status_code=200)

    @route("POST", "/configuration/default")
    def default() -> dict[str, Any]:
        """The hyper-parameters with their defaults."""
        gpus = waiting.job.gpus or [CPU]
        return Config(gpus=gpus, model_name=waiting.job.name).model_dump()

    @route("POST", "/data_preparation")
    async def prepare(request: Request) -> dict[str, Any]:
        """Whether this can be trained, and how the dataset would be split."""
        wish = read_body(Wish, await request.body())
        return envelope(await run_in_threadpool(lambda: waiting.split(wish)))

    @route("POST", "/training")
    async def train(request: Request) -> dict[str, Any]:
        """Start the training in the background."""
        wish = read_body(Wish, await request.body())
        return envelope(await run_in_threadpool(waiting.train, wish))

    @app.exception_handler(Problem)
    async def say(_: Request, problem: Problem) -> JSONResponse:
        return JSONResponse(problem.as_dict(), problem.status)

    return app


def _finder(proofs: list[str]) -> Find:
    """Says who a token lets in: its client, where one of the proofs is this token's."""
    known: set[str] = set()

    async def find(token: str) -> Who | None:
        if token not in known and not await run_in_threadpool(lambda: any(proves(proof, token) for proof in proofs)):
            return None
        known.add(token)
        return Who(name="client", scope="train")

    return find


def _listen(address: str) -> socket.socket:
    """Open before anybody is told that it is."""
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host, int(port)))
    except OSError as error:
        cure = "Start the job again with another api_port."
        raise Unavailable(f"The job cannot be asked at port {port} ({error.strerror}).", cure) from error


def serve(waiting: Waiting) -> int:
    """Until the job is over. Its exit code; raises Unavailable where the port cannot be had."""
    with _listen(os.environ["LISTEN"]) as door:
        words = f"waiting for its client to say what to train, on port {waiting.job.api_port}"
        waiting.events.say(Stage(state="starting", stage=words))
        print(words)
        server = uvicorn.Server(
            uvicorn.Config(create_app(waiting), log_level="warning", access_log=False, timeout_graceful_shutdown=LINGER)
        )
        codes: list[int] = []

        def end() -> None:
            server.should_exit = True

        thread = threading.Thread(target=lambda: codes.append(waiting.wait(end)), daemon=True)
        thread.start()
        server.run(sockets=[door])
    thread.join(LINGER)
    return codes[0] if codes else 1


def main() -> int:
    folder = JobFolder(Path(sys.argv[1]))
    events = Events(folder)
    say_what_kills(events.say)
    codes: list[int] = []
    return say_what_fails(lambda: codes.append(serve(Waiting(folder, events))), events.say) or codes[0]


if __name__ == "__main__":
    # Lines reach train.log as they are printed, not when a buffer is full.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
