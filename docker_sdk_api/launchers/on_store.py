"""Stands by a task on a node that shares no disk with docker_sdk_api: brings in what it reads, and out what it writes (docs/cluster.md).

`python -I on_store.py STORE JOB SUBMISSION`, with Ray's Python, fsspec and s3fs. In the store:

    folders/<key>/                     what tasks read, staged once by docker_sdk_api (staged.py)
    jobs/<job>/wanted.json             its order and the wish to stop, from docker_sdk_api, for whichever submission is wanted now
    jobs/<job>/<submission>/given/     the job's folder as it was when it was launched, from docker_sdk_api (mirror.py)
    jobs/<job>/<submission>/grown/     what became of it, from the node

So each submission has a place of its own: a node that was taken for lost and comes back spoils nothing. Here everything is below
NODE_CACHE, and paths in the order and in job.json are turned into those. on_node.py stands by the task as it does on a shared disk, over
a folder that this process keeps in step. Where the store is away the task goes on, and what it wrote is brought out later.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

HERE = Path(__file__).parent
sys.path.append(str(HERE))
from mirror import EVENTS, OWN, REFUSED, Moved, Puller, Pusher  # type: ignore[import-not-found]  # noqa: E402
from staged import Cache, TooLarge, held, size  # type: ignore[import-not-found]  # noqa: E402

try:
    from bucket import Away, Bucket, Refused  # type: ignore[import-not-found]
except ImportError as error:
    print(f"The node {os.uname().nodename} has no package {error.name}. Start run/cluster.sh there anew: it installs what is missing.")
    sys.exit(REFUSED)

LOOK = 1.0
BETWEEN = 5.0
"""Seconds between two events that say how far something long is."""
HOURS = 48.0
"""For so long what a task wrote is kept for a store that is away, once the task has ended."""
T = TypeVar("T")


class Unwanted(Exception):
    """Nobody wants this submission any more, or it is to stop before it began."""


def main() -> int:
    store, job, submission = sys.argv[1:4]
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # the task is told so too, and what it writes by then is still to be brought out
        signal.signal(number, lambda number, _: told.append(number))
    cache = Path(os.environ.get("NODE_CACHE") or Path.home() / ".cache" / "maskwright").absolute()
    try:
        return Errand(Bucket(store), job, submission, cache, told).run()
    except Refused as refusal:
        print(refusal.cause, refusal.cure, flush=True)
        return REFUSED


class Errand:
    """One submission's."""

    def __init__(self, bucket: Any, job: str, submission: str, cache: Path, told: list[int]) -> None:
        self.bucket, self.job, self.submission, self.told = bucket, job, submission, told
        self.cache, self.own = cache, cache / "jobs" / submission
        self.folder = self.own / job
        self.root = f"jobs/{job}/{submission}"
        self.pusher = Pusher(bucket, self.root, "grown", self.folder, OWN)
        self.asked: dict[str, Any] = {}
        self._held: list[BinaryIO] = []
        self._complained = ""

    def run(self) -> int:
        """The task's exit code, as a shell gives it. Raises Refused."""
        sweep(self.cache / "jobs")
        alive = open(self.cache / "jobs" / f".{self.submission}", "wb")  # noqa: SIM115 - locked until this process ends
        held(alive, fcntl.LOCK_EX)
        self.folder.mkdir(parents=True)
        try:
            wanted = self.keep_on(self.wanted)
            given = Puller(self.bucket, self.root, "given", self.folder)
            if self.keep_on(given.pull) is None:
                raise Unwanted
            self.pusher.has(given.files)
            try:
                code = self.work(wanted)
            except TooLarge as problem:
                code = self.fail(f"{problem}.", "Raise NODE_CACHE_GB there, or take a smaller dataset.")
            except OSError as error:
                cause = f"The node {os.uname().nodename} could not fetch the data ({error})."
                code = self.fail(cause, "Make room where its NODE_CACHE lies.")
            self.bring_out()
            return code
        except Unwanted:
            return 0
        finally:
            for folder in self._held:
                folder.close()
            shutil.rmtree(self.own, ignore_errors=True)
            Path(alive.name).unlink(missing_ok=True)

    def work(self, wanted: dict[str, Any]) -> int:
        """Fetch what the task reads, and stand by it."""
        places = {wanted["folder"]: str(self.folder), wanted["own"]: str(self.cache / "own")}
        for number, place in enumerate(wanted["places"]):
            places[place["path"]] = str(self.fetch(number, place))
        asked = self.folder / "job.json"
        if asked.is_file():
            write(asked, json.dumps(moved(json.loads(asked.read_bytes()), places), indent=2))
        order = moved(wanted, places)
        write(self.folder / "task.json", json.dumps(order))
        command = [sys.executable, "-I", str(HERE / "on_node.py"), str(self.folder), self.submission]
        task = subprocess.Popen(command, env={**os.environ, "MASKWRIGHT_STORE": "1"})
        while task.poll() is None:
            self.in_step(order)
            time.sleep(LOOK)
        return task.returncode

    def in_step(self, order: dict[str, Any]) -> None:
        """Once: hear what is wanted, tell what there is. What goes wrong now may go well in a second."""
        try:
            wanted = self.wanted()
            write(self.folder / "task.json", json.dumps({**order, **{name: wanted[name] for name in ("grace",) if name in wanted}}))
            self.push()
        except Unwanted:
            (self.folder / "task.json").unlink(missing_ok=True)  # who stands by the task ends it
        except (Away, Refused, Moved) as trouble:
            self.complain(trouble)

    def wanted(self) -> dict[str, Any]:
        """The order, as it stands now; a wish to stop is written into the folder. Raises Unwanted."""
        try:
            self.asked = json.loads(self.bucket.get(f"jobs/{self.job}/wanted.json"))
        except FileNotFoundError:
            raise Unwanted from None
        order: dict[str, Any] | None = self.asked["task"]
        if order is None or order["submission"] != self.submission:
            raise Unwanted
        if self.asked["stop"] is not None and not (self.folder / "stop").exists():
            write(self.folder / "stop", self.asked["stop"])
        return order

    def push(self) -> None:
        pulse = self.folder / "pulse.json"
        told = json.loads(pulse.read_bytes()) if pulse.exists() else None  # first: an end is told after what came before it
        self.pusher.push(told, self.asked.get("reads", ""))

    def bring_out(self) -> None:
        """What the task left, to the last byte; the store may be away."""
        deadline = time.monotonic() + HOURS * 3600
        while time.monotonic() < deadline:
            try:
                self.wanted()
                self.push()
                return
            except Unwanted:
                return
            except (Away, Refused, Moved) as trouble:
                self.complain(trouble)
                time.sleep(LOOK)

    def keep_on(self, what: Callable[[], T]) -> T:
        """Ask until the store answers, or Ray ends this. Raises Unwanted, Refused."""
        while not self.told:
            try:
                return what()
            except (Away, Moved) as trouble:
                self.complain(trouble)
                time.sleep(LOOK)
        raise Unwanted

    def fetch(self, number: int, place: dict[str, Any]) -> Path:
        """A folder that the task reads, under the name that it has at home. Raises TooLarge, Unwanted."""
        name, said = Path(place["path"]).name, [0.0]

        def say(words: str) -> None:
            if time.monotonic() - said[0] > BETWEEN:
                said[0] = time.monotonic()
                self.say({"event": "stage", "state": "starting", "stage": words})
            wanted = self.keep_on(self.wanted)
            if "grace" in wanted or self.asked["stop"] is not None or self.told:
                raise Unwanted

        def tell(done: int, total: int) -> None:
            say(f"the node fetches {name}, {size(done)} of {size(total)}")

        def wait(reason: str) -> None:
            say(f"waiting for {name}: {reason}")

        cache = Cache(self.cache, int(float(os.environ.get("NODE_CACHE_GB") or 100) * 1e9))
        try:
            found, held = self.keep_on(lambda: cache.take(self.bucket, place["key"], tell, wait))
        except Unwanted:
            self.stopped()
            raise
        self._held.append(held)
        link = self.own / "read" / str(number) / name
        link.parent.mkdir(parents=True)
        link.symlink_to(found)
        return link

    def stopped(self) -> None:
        """Before the task began: there is nothing to end."""
        if self.asked.get("task") and self.asked["task"]["submission"] == self.submission:
            self.end(-signal.SIGTERM)
            self.bring_out()

    def complain(self, trouble: Exception) -> None:
        """Into Ray's log of the job, once."""
        if str(trouble) != self._complained:
            print(trouble, flush=True)
        self._complained = str(trouble)

    def fail(self, cause: str, cure: str) -> int:
        self.say({"event": "failed", "cause": cause, "cure": cure})
        self.end(1)
        return 1

    def end(self, code: int) -> None:
        note = {"submission": self.submission, "node": os.uname().nodename, "exit_code": code, "at": time.time()}
        write(self.folder / "pulse.json", json.dumps(note))

    def say(self, event: dict[str, Any]) -> None:
        """An event, while the task, which else writes them, does not run; and to the store, so that it is seen."""
        line = {"at": datetime.now(timezone.utc).isoformat(), **event}
        with open(self.folder / EVENTS, "a") as file:
            file.write(json.dumps(line) + "\n")
        try:
            self.push()
        except (Away, Moved) as trouble:
            self.complain(trouble)


def moved(value: Any, places: dict[str, str]) -> Any:
    """A value of JSON, in which paths of docker_sdk_api's machine are those of this one."""
    if isinstance(value, dict):
        return {name: moved(inner, places) for name, inner in value.items()}
    if isinstance(value, list):
        return [moved(inner, places) for inner in value]
    for path, here in places.items():
        if isinstance(value, str) and (value == path or value.startswith(f"{path}/")):
            return here + value[len(path) :]
    return value


def sweep(jobs: Path) -> None:
    """Remove what submissions left whose process is gone: the machine was started anew, or they were killed."""
    jobs.mkdir(parents=True, exist_ok=True)
    for place in jobs.iterdir():
        mark = jobs / f".{place.name}"
        if place.name.startswith("."):
            continue
        with open(mark, "ab") as alive:
            if held(alive, fcntl.LOCK_EX):
                shutil.rmtree(place, ignore_errors=True)
                mark.unlink(missing_ok=True)


def write(file: Path, content: str) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(content)
    aside.replace(file)


if __name__ == "__main__":
    sys.exit(main())
