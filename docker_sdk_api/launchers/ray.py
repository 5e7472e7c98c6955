"""Runs tasks as jobs of a Ray cluster, wherever on it there is room. Ray queues, places and counts; the folder says the rest.

A job's folder lies on a disk that all nodes share, under one path. `task.json` (written here) says what to run and as which
submission, `pulse.json` (written on the node, by on_node.py) what the task takes and how it ended, `train.log` what it printed. So
any launcher made later knows the tasks of all earlier ones, and only the head of the cluster has to be reached from here.

A job's submission id is its name and a number: Ray keeps watching an id for a moment after its end, and would end a second job of
the same id with the first. What only Ray knows is said in words in a pulse's `note`.

Exit codes are those of Python's subprocess: 0 well, 1…255 the task's own, -n ended by signal n.
"""

import json
import shlex
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from contracts.answers import Gpu
from contracts.errors import Taken, Unavailable
from contracts.job_folder import JobFolder, write_aside
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.launchers import Limits, Pulse, Task, Usage
from docker_sdk_api.launchers.alike import common_environment, log_lines
from docker_sdk_api.launchers.process import SOURCES
from docker_sdk_api.launchers.ray_head import ENDED, Head, Node
from docker_sdk_api.launchers.ray_words import DIED, end_of, waits_for

JOB = "maskwright.job"
INSTALLATION = "maskwright.checkpoints"
ASKED = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")
"""Of a request, what it is placed by: Ray does not tell it again."""
FORCED = 30.0
"""Seconds after a grace in which a node's word of an end arrives."""
FRESH = 3.0
"""Seconds in which a node writes down again what a task takes: while it does, nobody needs to ask Ray."""
COUNTED = 10.0
"""Seconds in which even a busy node writes what a task takes by now."""
LAST_WORD = 5.0
"""Seconds in which a node's last word, written before Ray knew of the end, is seen here: a shared disk may show it late."""
_LOOK = 0.1


class RayLauncher:
    """Tasks as jobs of Ray. `pythons` names every runtime's interpreter on the nodes, `ray_python` one there that has Ray; a task's
    folder is `checkpoints`/<job id>. `cpus`: processors that a task is promised where it says nothing, at most a whole node's."""

    def __init__(
        self, checkpoints: Path, pythons: dict[str, Path], head: Head, ray_python: Path, cpus: float = 1, sources: Path = SOURCES
    ) -> None:
        self.checkpoints = checkpoints.absolute()
        self.pythons = pythons
        self.head = head
        self.ray_python = ray_python
        self.cpus = cpus
        self.sources = sources
        self._heard: dict[str, tuple[float, float]] = {}
        """Of each submission, what time its node wrote last, and when that was first seen, each by its own clock."""

    def require(self, runtime: str) -> None:
        """Whether Ray answers; what is installed on a node is seen when a task is started there."""
        self._python(runtime)
        self._alive()

    def launch(self, task: Task) -> None:
        if task.folder.absolute() != self.checkpoints / task.job_id:
            raise ValueError(f"the folder of task {task.job_id} must be {self.checkpoints / task.job_id}, not {task.folder}")
        python, nodes = self._python(task.runtime), self._alive()
        if self.poll(task.job_id).alive:
            raise Taken(f"The task {task.job_id} runs already.", "Stop it first, or give the new one another name.")
        if task.port is not None and task.port in self.used_ports():
            raise Taken(f"The port {task.port} is used by another program.", "Choose another port.")
        largest = max((node.cpus for node in nodes), default=1.0)
        promised = task.limits.cpus or max(1.0, min(self.cpus, largest))
        submission = f"{task.job_id}-{uuid.uuid4().hex[:8]}"
        request = self._request(task, submission, promised, nodes)
        files = JobFolder(task.folder)
        wanted = order(task, submission, python, self.sources, promised)
        alone = {name: number for name, number in request.items() if name in ASKED}
        each = alone or {"entrypoint_num_cpus": promised, "entrypoint_num_gpus": len(task.gpus)}
        wanted |= {"asked": each, "nodes": task.nodes}
        self._want(task.job_id, wanted)
        try:
            self.head.submit(request)
        except Unavailable:
            files.task_file.unlink(missing_ok=True)  # should Ray have taken it all the same, it ends as it finds nothing to do
            raise

    def _request(self, task: Task, submission: str, cpus: float, nodes: list[Node]) -> dict[str, Any]:
        installation = str(self.checkpoints)
        placed = {} if task.port is None else {f"node:{_own(nodes).address}": 0.001}
        return ray_request(task, submission, self.ray_python, self.sources, cpus, installation, placed)

    def _python(self, runtime: str) -> Path:
        if runtime not in self.pythons:
            raise Unavailable(f"No interpreter is known for the engine {runtime}.", "Choose another engine.")
        return self.pythons[runtime]

    def _alive(self) -> list[Node]:
        return [node for node in self.head.nodes() if node.alive]

    def poll(self, job_id: str) -> Pulse:
        wanted = self._wanted(job_id)
        if wanted is None:
            return Pulse(alive=False)
        told = self._told(job_id, wanted)
        if "exit_code" in told:
            self._heard.pop(wanted["submission"], None)
            return _ended(told)
        return Pulse(alive=True) if self._is_fresh(told) else self._asked(job_id, wanted)

    def _asked(self, job_id: str, wanted: dict[str, Any]) -> Pulse:
        """What Ray says of a task of which its node has said nothing, or not of late."""
        job = self.head.job(wanted["submission"])
        if job is not None and job["status"] == "PENDING" and "grace" in wanted:
            job = self.head.job(wanted["submission"], now=True)
        told = self._told(job_id, wanted)  # once more, after Ray was asked: a node writes first
        if "exit_code" in told:
            return _ended(told)
        if job is None:
            if not self._alive():
                raise Unavailable("Ray's head has no living node yet.", "It was started a moment ago, or its log says what keeps it.")
            note = "Ray does not know it any more: its head was started anew, or the job was removed there."
            return Pulse(alive=False, note=note, lost=True)
        if job["status"] in ENDED:
            return Pulse(alive=True) if _last_word_is_due(job, told) else end_of(job, self.head.nodes(now=True))
        count = wanted.get("nodes", 1)
        if told or (job["status"] != "PENDING" and count == 1):  # of several nodes it is their leader that waits for them
            return Pulse(alive=True)
        if job["status"] == "PENDING" and "grace" in wanted:
            return Pulse(alive=False)  # Ray cannot take back what waits; once it is placed, it reads that it was stopped, and ends
        return Pulse(alive=True, note=waits_for(wanted["asked"], self.head.nodes(), count), waits=True)

    def _is_fresh(self, told: dict[str, Any]) -> bool:
        """Whether a node has written since this was last asked, and not long ago: then what it stands by lives."""
        if "at" not in told:
            return False
        at, seen = self._heard.get(told["submission"], (told["at"], 0.0))
        if at != told["at"]:
            seen = time.monotonic()
        self._heard[told["submission"]] = (told["at"], seen)
        return bool(seen) and time.monotonic() - seen < FRESH

    def stop(self, job_id: str, grace: float) -> None:
        """Returns when the task has ended."""
        wanted = self._wanted(job_id)
        if wanted is None or not self.poll(job_id).alive:
            return
        self._want(job_id, {**wanted, "grace": grace})
        self.head.stop(wanted["submission"])
        deadline = time.monotonic() + grace + FORCED
        while self.poll(job_id).alive and time.monotonic() < deadline:
            time.sleep(_LOOK)

    def remove(self, job_id: str) -> None:
        if self.poll(job_id).alive:
            raise Taken(f"The task {job_id} still runs.", "Stop it before removing it.")
        files = JobFolder(self.checkpoints / job_id)
        for file in (files.task_file, files.pulse_file):
            file.unlink(missing_ok=True)

    def logs(self, job_id: str) -> Iterator[str]:
        """What Ray says of a task that its node could not start follows its log."""
        yield from log_lines(JobFolder(self.checkpoints / job_id))
        wanted = self._wanted(job_id)
        if wanted is not None and not self._told(job_id, wanted) and not self.poll(job_id).alive:
            yield from self.head.logs(wanted["submission"]).splitlines()

    def usage(self, job_id: str) -> Usage | None:
        """As the node counts it, not older than this question: memory that several processes share counts for each."""
        first = self._usage(job_id)
        deadline = time.monotonic() + COUNTED
        while time.monotonic() < deadline and self.poll(job_id).alive:
            now = self._usage(job_id)
            if now is not None and now != first:
                return Usage(now["cpu_seconds"], now["memory_bytes"])
            time.sleep(_LOOK)
        return None

    def used_ports(self) -> set[int]:
        """Those of this machine, on which a task that is asked over HTTP is placed."""
        return {found.laddr.port for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN and found.laddr}

    def gpus(self) -> Gpus:
        """As many as the cluster has. Which of them a task gets is Ray's to say: here they only count."""
        try:
            nodes = [node for node in self._alive() if node.gpus]
            devices = self.head.devices() if nodes else {}
        except Unavailable as problem:
            return Gpus([], str(problem))
        rows = [(node, row) for node in nodes for row in (devices.get(node.id) or [{}] * node.gpus)[: node.gpus]]
        found = [read_gpu(number, node, row) for number, (node, row) in enumerate(rows)]
        return Gpus(found, "" if found else "No node of the Ray cluster offers a GPU: jobs run on processors.")

    def nodes(self) -> int:
        """A head that was told to train nothing does not count."""
        try:
            return max(1, sum(node.cpus >= 1 for node in self._alive()))
        except Unavailable:
            return 1

    def running(self) -> set[str]:
        ours = [job for job in self.head.jobs() if (job.get("metadata") or {}).get(INSTALLATION) == str(self.checkpoints)]
        names = {job["metadata"][JOB] for job in ours if job["status"] not in ENDED}
        return {name for name in names if self.poll(name).alive}

    def held(self) -> set[str]:
        """None: what Ray itself remembers of them goes with its head."""
        return set()

    def _want(self, job_id: str, wanted: dict[str, Any]) -> None:
        """Write down what a task's node is to do."""
        write_aside(JobFolder(self.checkpoints / job_id).task_file, json.dumps(wanted, indent=1))

    def _wanted(self, job_id: str) -> dict[str, Any] | None:
        """What task.json says: None where there is none, or one of another launcher."""
        wanted = order_of(JobFolder(self.checkpoints / job_id))
        return wanted if "submission" in wanted else None

    def _told(self, job_id: str, wanted: dict[str, Any]) -> dict[str, Any]:
        return told_of(JobFolder(self.checkpoints / job_id), wanted["submission"])

    def _usage(self, job_id: str) -> dict[str, Any] | None:
        wanted = self._wanted(job_id)
        told = {} if wanted is None else self._told(job_id, wanted)
        return told if "cpu_seconds" in told else None


def order_of(files: JobFolder) -> dict[str, Any]:
    """What task.json says, empty where there is none."""
    try:
        order: dict[str, Any] = json.loads(files.task_file.read_bytes())
    except FileNotFoundError:
        return {}
    return order


def told_of(files: JobFolder, submission: str) -> dict[str, Any]:
    """What its node told of a submission, empty where it told nothing."""
    try:
        told: dict[str, Any] = json.loads(files.pulse_file.read_bytes())
    except FileNotFoundError:
        return {}
    return told if told["submission"] == submission else {}


def order(task: Task, submission: str, python: Path, sources: Path, cpus: float) -> dict[str, Any]:
    """What task.json says: what its node is to run, in what environment."""
    limited = Task(task.job_id, task.runtime, [], task.folder, limits=Limits(cpus=cpus))
    environment = {"PYTHONPATH": str(sources), **common_environment(limited), **task.environment}
    if task.port is not None:
        environment["LISTEN"] = f"127.0.0.1:{task.port}"
    return {"submission": submission, "command": [str(python), *task.arguments], "gpus": len(task.gpus), "environment": environment}


def ray_request(
    task: Task, submission: str, ray_python: Path, sources: Path, cpus: float, installation: str, placed: dict[str, float]
) -> dict[str, Any]:
    """What Ray is asked for: the body of `POST /api/jobs/`. Plain data, tested without a cluster."""
    program = sources / "docker_sdk_api" / "launchers" / ("on_node.py" if task.nodes == 1 else "over_nodes.py")
    command = [str(ray_python), "-I", str(program), str(task.folder), submission]
    if task.nodes > 1:
        command += [str(task.nodes), f"{cpus:g}", str(len(task.gpus))]
    request: dict[str, Any] = {
        "entrypoint": f"exec {shlex.join(command)}",
        "submission_id": submission,
        "metadata": {JOB: task.job_id, INSTALLATION: installation},
        # A task is ended on its node when its grace is over, which Ray's own three seconds would cut short.
        "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "3600"}},
    }
    if task.nodes > 1:  # the leader of several nodes takes nothing: the nodes do
        return request
    return {
        **request,
        "entrypoint_num_cpus": cpus,
        **({"entrypoint_num_gpus": len(task.gpus)} if task.gpus else {}),
        **({"entrypoint_memory": task.limits.memory_bytes} if task.limits.memory_bytes is not None else {}),
        **({"entrypoint_resources": placed} if placed else {}),
    }


def read_gpu(number: int, node: Node, row: dict[str, Any]) -> Gpu:
    """A GPU of the cluster, from what its node's agent measures, if it does."""
    total, used = (int(row.get(name) or 0) * 2**20 for name in ("memoryTotal", "memoryUsed"))
    name = f"{row.get('name') or node.gpu_kind or 'GPU'} on {node.address}"
    return Gpu(id=number, name=name, memory_total=total, memory_free=total - used, load=row.get("utilizationGpu"))


def _last_word_is_due(job: dict[str, Any], told: dict[str, Any]) -> bool:
    """Whether a node that saw its task end has written how, a moment ago."""
    saw = bool(told) or job.get("driver_exit_code") is not None
    return saw and job.get("error_type") not in DIED and abs(time.time() - (job.get("end_time") or 0) / 1000) < LAST_WORD


def _ended(told: dict[str, Any]) -> Pulse:
    note = ""
    if told.get("missing"):
        note = f"The node {told['node']} has no {told['missing']}, which this engine needs."
    if told.get("lost"):
        note = told["lost"]
    return Pulse(False, told["exit_code"], told.get("out_of_memory", False), note=note, lost=bool(told.get("lost")))


def _own(nodes: list[Node]) -> Node:
    """The node that this machine is. Raises Unavailable."""
    own = {found.address for addresses in psutil.net_if_addrs().values() for found in addresses}
    node = next((node for node in nodes if node.address in own or node.address.startswith("127.")), None)
    if node is None:
        raise Unavailable(
            "A job that an old client asks must run on the machine of docker_sdk_api, and that is no node of the Ray cluster.",
            "Make it one: run/cluster.sh join, on this machine.",
        )
    return node
