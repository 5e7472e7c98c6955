"""The jobs that run where no disk is shared, as docker_sdk_api sees them: their folders go out, and come back as they grow, by one thread.

What is wanted of a job travels the same way: its order and the wish to stop are in `wanted.json`, which the node reads once a second.
"""

import fcntl
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from contracts.errors import Unavailable
from contracts.job import ENDED
from contracts.job_folder import JobFolder, write_aside
from docker_sdk_api.launchers.bucket import Away, Bucket, Refused
from docker_sdk_api.launchers.mirror import EVENTS, OWN, Moved, Puller, Pusher
from docker_sdk_api.launchers.ray import order_of, told_of
from docker_sdk_api.standing import last_event

LOG = logging.getLogger("maskwright.store")
LOOK = 1.0
"""Seconds between two looks at what the nodes wrote."""


class Following:
    """All jobs of a checkpoints folder that run over a store. Safe in threads, and beside other processes."""

    def __init__(self, bucket: Bucket, checkpoints: Path) -> None:
        self.bucket, self.checkpoints = bucket, checkpoints
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wishes: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._names: set[str] = set()
        for file in checkpoints.glob("*/task.json"):
            files = JobFolder(file.parent)
            if "places" in order_of(files) and last_event(files.events_file) not in ENDED:
                self.follow(files.name)

    def follow(self, job_id: str) -> None:
        """Bring in what its node writes, until that has told its end."""
        with self._lock:
            self._names.add(job_id)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="what nodes wrote", daemon=True)
                self._thread.start()

    @property
    def resting(self) -> bool:
        """Whether there is nothing to follow."""
        return self._thread is None

    def trouble(self, job_id: str) -> str:
        """Why what its node writes cannot be brought in at the moment; empty where it can."""
        return self._said.get(job_id, "")

    def give(self, job_id: str, submission: str) -> None:
        """The job's folder as it is, under a submission of its own. What earlier ones left goes. Raises Away, Refused."""
        files, root = JobFolder(self.checkpoints / job_id), f"jobs/{job_id}/{submission}"
        self.empty(job_id)
        with _alone(files.path, wait=True):
            pusher = Pusher(self.bucket, root, "given", files.path, ("task.json", "pulse.json", "stop", "retired"))
            pusher.push()
            Puller(self.bucket, root, "grown", files.path, OWN).has(pusher.files)

    def wish(self, job_id: str, reads: str = "") -> None:
        """Tell the node what is wanted of it, where that has changed. Raises Away, Refused."""
        files = JobFolder(self.checkpoints / job_id)
        stop = files.stop_file.read_text() if files.stop_file.exists() else None
        order = {name: value for name, value in order_of(files).items() if name != "staging"}
        wish = json.dumps({"task": order or None, "stop": stop, "reads": reads})
        if wish != self._wishes.get(job_id):
            self.bucket.put(f"jobs/{job_id}/wanted.json", wish.encode())
            self._wishes[job_id] = wish

    def bring(self, job_id: str, at_once: bool = False) -> bool:
        """Bring in what is new; `at_once`: also where another process does, and whatever moves. False: nothing more will come.

        Raises Unavailable.
        """
        files = JobFolder(self.checkpoints / job_id)
        if not files.path.is_dir():
            return False
        with answers(), _alone(files.path, at_once) as alone:
            if not alone:
                return True
            order = order_of(files)
            if "places" not in order or "staging" in order:
                return "staging" in order
            puller = Puller(self.bucket, f"jobs/{job_id}/{order['submission']}", "grown", files.path, OWN)
            if "exit_code" in told_of(files, order["submission"]) or _is_settled(files, puller):
                return False  # of a last word that is here the store has nothing any more
            told = self._pulled(job_id, puller, at_once) or {}
            if told:
                write_aside(files.pulse_file, json.dumps(told), durable=False)
        if "exit_code" in told:
            self.empty(job_id)
        return "exit_code" not in told

    def empty(self, job_id: str) -> None:
        """Remove what the store has of a job; where it does not answer, that stays until the job is launched again or deleted."""
        self._wishes.pop(job_id, None)
        with suppress(Away, Refused):
            self.bucket.delete(self.bucket.names(f"jobs/{job_id}/"))

    def _run(self) -> None:
        while True:
            with self._lock:
                names = sorted(self._names)
                if not names:
                    self._thread = None
                    return
            for name in names:
                self._look_at(name)
            time.sleep(LOOK)

    def _look_at(self, name: str) -> None:
        """Whatever goes wrong may go well with the next look. It is said once."""
        said = ""
        try:
            if not self.bring(name):
                with self._lock:
                    self._names.discard(name)
        except (Unavailable, OSError, ValueError) as trouble:
            said = f"What the node of {name} wrote could not be brought in: {trouble}"
        if said and said != self._said.get(name):
            LOG.warning(said)
        if said:
            self._said[name] = said
        else:
            self._said.pop(name, None)

    def _pulled(self, job_id: str, puller: Puller, at_once: bool) -> dict[str, Any] | None:
        self.wish(job_id, json.loads(self._wishes.get(job_id, "{}")).get("reads", ""))
        while True:
            try:
                return puller.pull(lambda listing: self.wish(job_id, listing))
            except Moved:
                if not at_once:
                    return None
                time.sleep(LOOK / 10)


@contextmanager
def answers() -> Iterator[None]:
    """What the store answers instead is told as everything else is."""
    try:
        yield
    except Away as trouble:
        raise Unavailable(str(trouble), "See that it runs, and that AWS_ENDPOINT_URL names it here and on the nodes.") from trouble
    except Refused as refusal:
        raise Unavailable(refusal.cause, refusal.cure) from refusal


def _is_settled(files: JobFolder, puller: Puller) -> bool:
    """Whether somebody wrote down the job's end, or that it goes on, after what its node told: then that is the last word."""
    known = puller.files.get(EVENTS)
    told = files.events_file.stat().st_size if files.events_file.exists() else 0
    return known is not None and told != known[1] and last_event(files.events_file) in {*ENDED, "resumed", "queued"}


@contextmanager
def _alone(folder: Path, wait: bool) -> Iterator[bool]:
    """Nobody else brings into this folder meanwhile; whether that could be had."""
    with open(folder / ".mirror.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
