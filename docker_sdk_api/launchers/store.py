"""Runs tasks on a Ray cluster whose nodes share no disk with this machine: what they read and write goes through an object store.

What tasks read is staged in the store once, by its fingerprint (staged.py); a job's folder goes there when the job is launched, comes
back as it grows, and is then what it would be on a shared disk (mirror.py), so that nobody else knows of the store. on_store.py does
the other half on the node, and says where what lies.

A launch returns once the store has let this machine in. What is left of it may take hours and is done in a thread, which tells the job's
events how far it is; `staging` in task.json says whose thread that is, for whoever asks meanwhile, and if it is gone the task is lost.
What a node wrote is brought in as it comes (following.py), and once more before an end is told that the node did not tell.
A job's place in the store is emptied as soon as everything is here: the store is a way through, and `folders/` a cache.
"""

import json
import os
import shlex
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts.errors import Invalid, Problem, Taken
from contracts.events import Event, Failed, Stage
from contracts.job_folder import JobFolder, write_aside
from docker_sdk_api.launchers import Pulse, Task, Usage, supervise
from docker_sdk_api.launchers.bucket import Away, Bucket, Refused
from docker_sdk_api.launchers.following import LOOK, Following, answers
from docker_sdk_api.launchers.mirror import REFUSED
from docker_sdk_api.launchers.ray import FORCED, RayLauncher, order_of
from docker_sdk_api.launchers.ray_head import Node
from docker_sdk_api.launchers.reads import key_of, refuse, what_is_read
from docker_sdk_api.launchers.staged import size, stage

BETWEEN = 5.0
"""Seconds between two events that say how far something long is."""
AWAY = "running; nothing of it is seen while the object store cannot be read: what it writes comes later"
OF_A_NODE = "/NODE_CACHE/own"
"""In an order: the folder that a node keeps for itself."""


class Cancelled(Exception):
    """The job was told to stop before it was launched."""


class StoreLauncher(RayLauncher):
    """As RayLauncher, over the store at an address such as s3://bucket/prefix. Raises Unavailable where that is none."""

    def __init__(self, *ray: Any, store: str) -> None:
        super().__init__(*ray)
        with answers():
            self.bucket = Bucket(store)
        self._threads: dict[str, threading.Thread] = {}
        self._orders: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._keys: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.following = Following(self.bucket, self.checkpoints)

    def require(self, runtime: str) -> None:
        super().require(runtime)
        with answers():
            self.bucket.check()

    def launch(self, task: Task) -> None:
        refuse(task)
        self.require(task.runtime)
        if self.poll(task.job_id).alive:
            raise Taken(f"The task {task.job_id} runs already.", "Stop it first, or give the new one another name.")
        with answers():
            self.bucket.put(f"jobs/{task.job_id}/wanted.json", json.dumps({"task": None, "stop": None}).encode())
        own = {"pid": os.getpid(), "started": supervise.started_at(os.getpid()), "boot": supervise.boot_id()}
        thread = threading.Thread(target=self._launch, args=(task,), name=f"staging {task.job_id}", daemon=True)
        with self._lock:
            write_aside(self._files(task.job_id).task_file, json.dumps({"staging": own}))
            self._threads[task.job_id] = thread
        thread.start()

    def poll(self, job_id: str) -> Pulse:
        order = self._order(job_id)
        if "staging" in order:
            if self._threads.get(job_id) is threading.current_thread():
                return Pulse(alive=False)
            if _lives(order["staging"]):
                return Pulse(alive=True, waits=True)
            return Pulse(alive=False, note="docker_sdk_api was ended while it brought the job's data into the store.", lost=True)
        pulse = super().poll(job_id)
        if pulse.alive:
            self.following.follow(job_id)
            return replace(pulse, note=AWAY) if self.following.trouble(job_id) and not pulse.note else pulse
        if "places" not in order or "exit_code" in self._told(job_id, order):
            return pulse
        self.following.bring(job_id, at_once=True)
        pulse = super().poll(job_id)
        if pulse.exit_code == REFUSED and not self._told(job_id, order):
            said = self.head.logs(order["submission"]).strip().splitlines()
            return Pulse(alive=False, exit_code=1, note=said[-1] if said else pulse.note)
        return pulse

    def stop(self, job_id: str, grace: float) -> None:
        deadline = time.monotonic() + grace + FORCED
        with self._lock:
            if "staging" in (order := self._order(job_id)):
                write_aside(self._files(job_id).task_file, json.dumps({**order, "cancelled": True}))
        while "staging" in self._order(job_id) and self.poll(job_id).alive and time.monotonic() < deadline:
            time.sleep(LOOK / 10)
        super().stop(job_id, grace)

    def remove(self, job_id: str) -> None:
        super().remove(job_id)
        self.following.empty(job_id)

    def usage(self, job_id: str) -> Usage | None:
        """As the node counted it some seconds ago."""
        told = self._usage(job_id)
        return Usage(told["cpu_seconds"], told["memory_bytes"]) if told is not None and self.poll(job_id).alive else None

    def nodes(self) -> int:
        """One learns a job, however many there are."""
        return 1

    def running(self) -> set[str]:
        names = {file.parent.name for file in self.checkpoints.glob("*/task.json")}
        return super().running() | {name for name in names if "staging" in self._order(name) and self.poll(name).alive}

    def _launch(self, task: Task) -> None:
        """Bring everything into the store, and let Ray find a node."""
        launched = False
        try:
            self._orders[task.job_id] = self._stage(task)
            super().launch(task)
            with self._lock:
                order = {name: value for name, value in self._order(task.job_id).items() if name != "staging"}
                write_aside(self._files(task.job_id).task_file, json.dumps(order, indent=1))
            self.following.follow(task.job_id)
            launched = True
        except Cancelled:
            pass
        except Problem as problem:
            self._tell(task, Failed(cause=problem.cause, cure=problem.cure))
        except (Away, Refused, OSError) as trouble:
            cure = getattr(trouble, "cure", "See that the store answers and the disk has room, then resume it.")
            self._tell(task, Failed(cause=getattr(trouble, "cause", str(trouble)), cure=cure))
        finally:
            if not launched:  # should Ray have taken it all the same, its node finds nothing to do
                self.following.empty(task.job_id)
            with self._lock:
                self._threads.pop(task.job_id, None)
                if "staging" in self._order(task.job_id):
                    self._files(task.job_id).task_file.unlink(missing_ok=True)

    def _stage(self, task: Task) -> dict[str, Any]:
        """What the order says besides what Ray's says: which folders of the store stand for which paths. Raises Cancelled, Refused."""
        places, environment = [], dict(task.environment)
        for folder, files in what_is_read(task):
            key = key_of(folder, files)
            self._put_in(task, folder, key, files)
            if key_of(folder, files) != key:
                cure = "Resume the job: it then goes there as it is by then."
                raise Invalid(f"“{folder.name}” was changed while it was brought into the store.", cure)
            places.append({"path": str(folder), "key": key})
        if "WEIGHTS" in environment:
            found = environment["WEIGHTS"] in [place["path"] for place in places]
            environment |= {"WEIGHTS_MIRROR": environment["WEIGHTS"] if found else "", "WEIGHTS": f"{OF_A_NODE}/weights"}
        return {"folder": str(task.folder), "own": OF_A_NODE, "places": places, "environment": environment}

    def _put_in(self, task: Task, folder: Path, key: str, files: list[tuple[str, Path]]) -> None:
        said = [0.0]

        def say(words: str) -> None:
            if time.monotonic() - said[0] > BETWEEN:
                said[0] = time.monotonic()
                self._tell(task, Stage(state="starting", stage=words))
            if self._order(task.job_id).get("cancelled"):
                raise Cancelled

        def tell(done: int, total: int) -> None:
            say(f"bringing {folder.name} into the store, {size(done)} of {size(total)}")

        while not self._keys[key].acquire(timeout=LOOK):
            say(f"{folder.name} is brought into the store for another job")
        try:
            while True:
                try:
                    return stage(self.bucket, key, files, self.checkpoints, tell)
                except Away as trouble:
                    say(f"waiting for the store. {trouble}")
                    time.sleep(LOOK)
        finally:
            self._keys[key].release()

    def _request(self, task: Task, submission: str, cpus: float, nodes: list[Node]) -> dict[str, Any]:
        request = super()._request(task, submission, cpus, nodes)
        program = self.sources / "docker_sdk_api" / "launchers" / "on_store.py"
        command = [str(self.ray_python), "-I", str(program), self.bucket.address, task.job_id, submission]
        return {**request, "entrypoint": f"exec {shlex.join(command)}"}

    def _want(self, job_id: str, wanted: dict[str, Any]) -> None:
        """Into the store too; of a new submission with the job's folder."""
        with answers():
            if "places" not in wanted:
                more = self._orders.pop(job_id)
                wanted = {**wanted, **more, "environment": {**wanted["environment"], **more["environment"]}}
                self.following.give(job_id, wanted["submission"])
            with self._lock:
                order = self._order(job_id)
                if order.get("cancelled"):
                    raise Cancelled
                kept = {name: order[name] for name in ("staging",) if name in order}
                write_aside(self._files(job_id).task_file, json.dumps({**wanted, **kept}, indent=1))
                self.following.wish(job_id)

    def _tell(self, task: Task, event: Event) -> None:
        with suppress(FileNotFoundError):
            JobFolder(task.folder).add_event(event)

    def _order(self, job_id: str) -> dict[str, Any]:
        return order_of(self._files(job_id))

    def _files(self, job_id: str) -> JobFolder:
        return JobFolder(self.checkpoints / job_id)


def _lives(staging: dict[str, Any]) -> bool:
    return bool(staging["boot"] == supervise.boot_id() and staging["started"] == supervise.started_at(staging["pid"]))
