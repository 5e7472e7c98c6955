"""Runs tasks as processes of this machine, each in a session of its own, so that they outlive docker_sdk_api.

Everything about a running task lies in its folder: `task.json` (written by supervise.py) says how to find it, `train.log`
what it printed. So any launcher made later, in any process, knows the tasks of all earlier ones.

What a process cannot promise, and a container can: `read_only` folders are as writable as the user's rights allow, other
machines can be reached, a limit of memory is not kept, and a limit of processors only as far as OMP_NUM_THREADS is heeded.

Exit codes are those of Python's subprocess: 0 well, 1…255 the task's own, -n ended by signal n (a container says 128 + n).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from contracts.errors import Taken, Unavailable
from contracts.job_folder import JobFolder
from contracts.plain import read_plain
from docker_sdk_api.gpus import Gpus, read_gpus
from docker_sdk_api.launchers import Pulse, Task, Usage, supervise
from docker_sdk_api.launchers.alike import common_environment, log_lines

SOURCES = Path(__file__).resolve().parents[2]
_LOOK = 0.05  # seconds between two looks at a task that is to end
_FORCED = 10.0  # seconds in which the kernel ends a process that was killed
_START = 60.0  # seconds in which even a machine under load starts a process


@dataclass(frozen=True)
class _Record:
    """What task.json says."""

    boot: str
    supervisor: int
    supervisor_started: int
    pid: int
    started: int | None
    exit_code: int | None = None
    out_of_memory: bool = False

    def task_lives(self) -> bool:
        return self._same(self.pid, self.started)

    def supervisor_lives(self) -> bool:
        return self._same(self.supervisor, self.supervisor_started)

    def _same(self, pid: int, started: int | None) -> bool:
        return started is not None and supervise.started_at(pid) == started and supervise.boot_id() == self.boot


NOT_FOR_TASKS = {"PYTHONHOME", "VIRTUAL_ENV", "TOKEN", "MASKWRIGHT_TOKEN", "DATABASE_URL", "TLS_KEY"}


class ProcessLauncher:
    """Tasks as processes. `pythons` names the interpreter of every runtime; a task's folder is `checkpoints`/<job id>."""

    def __init__(self, checkpoints: Path, pythons: dict[str, Path], sources: Path = SOURCES) -> None:
        self.checkpoints = checkpoints.absolute()
        self.pythons = pythons
        self.sources = sources

    def require(self, runtime: str) -> None:
        self._python(runtime)

    def launch(self, task: Task) -> None:
        """Start the task; once this returns, every launcher finds it. Raises Unavailable or Taken."""
        if task.folder.absolute() != self.checkpoints / task.job_id:
            raise ValueError(f"the folder of task {task.job_id} must be {self.checkpoints / task.job_id}, not {task.folder}")
        python = self._python(task.runtime)
        taken = Taken(f"The task {task.job_id} runs already.", "Stop it first, or give the new one another name.")
        if self.poll(task.job_id).alive:
            raise taken
        if task.port is not None and task.port in self.used_ports():
            raise Taken(f"The port {task.port} is used by another program.", "Choose another port.")
        files = JobFolder(task.folder)
        request = {
            "command": [str(python), *task.arguments],
            "folder": str(task.folder),
            "environment": process_environment(task, self.sources),
            "log": str(files.log_file),
            "record": str(files.task_file),
        }
        starter = subprocess.Popen([sys.executable, "-IS", supervise.__file__], stdin=subprocess.PIPE)
        try:
            starter.communicate(json.dumps(request).encode(), timeout=_START)
        except subprocess.TimeoutExpired as error:
            _end_all(starter)  # or the task would begin later, when nobody waits for it any more
            cause = f"The task {task.job_id} did not start within {_START:g} s."
            raise Unavailable(cause, "The machine may be overloaded, or its disk hang. Try it again when it answers quickly.") from error
        if starter.returncode == supervise.ALREADY:
            raise taken
        if starter.returncode:
            raise Unavailable(
                f"The task {task.job_id} could not be started.",
                f"See that {task.folder} can be written and the disk is not full; docker_sdk_api's own output says more.",
            )

    def _python(self, runtime: str) -> Path:
        python = self.pythons.get(runtime)
        if python is None or not os.access(python, os.X_OK):
            raise Unavailable(
                f"The engine {runtime} is not installed on this machine{f' ({python} is missing)' if python else ''}.",
                "Install it with run/local.sh, or choose another engine.",
            )
        return python

    def poll(self, job_id: str) -> Pulse:
        record = self._read(job_id)
        if record is None:
            return Pulse(alive=False)
        if record.exit_code is None:
            if record.task_lives() or record.supervisor_lives():
                return Pulse(alive=True)
            record = self._read(job_id) or record  # its last word may have come between reading and looking
        return Pulse(alive=False, exit_code=record.exit_code, out_of_memory=record.out_of_memory)

    def stop(self, job_id: str, grace: float) -> None:
        """Returns when the task has ended."""
        self._signal(job_id, signal.SIGTERM)
        if not self._ended_within(job_id, grace):
            self._signal(job_id, signal.SIGKILL)
            self._ended_within(job_id, _FORCED)

    def remove(self, job_id: str) -> None:
        if self.poll(job_id).alive:
            raise Taken(f"The task {job_id} still runs.", "Stop it before removing it.")
        self._folder(job_id).task_file.unlink(missing_ok=True)

    def logs(self, job_id: str) -> Iterator[str]:
        return log_lines(self._folder(job_id))

    def usage(self, job_id: str) -> Usage | None:
        """Of processes that have ended meanwhile, those that were waited for count; memory that several share counts for each."""
        record = self._read(job_id)
        if record is None or not record.task_lives():
            return None
        seconds, memory = 0.0, 0
        with suppress(psutil.NoSuchProcess):
            task = psutil.Process(record.pid)
            for process in (task, *task.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    times = process.cpu_times()
                    seconds += times.user + times.system
                    memory += process.memory_info().rss
            ended = task.cpu_times()
            return Usage(seconds + ended.children_user + ended.children_system, memory)
        return None

    def used_ports(self) -> set[int]:
        return {found.laddr.port for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN and found.laddr}

    def gpus(self) -> Gpus:
        return read_gpus()

    def nodes(self) -> int:
        return 1

    def running(self) -> set[str]:
        ids = {file.parent.name for file in self.checkpoints.glob("*/task.json")}
        return {job_id for job_id in ids if self.poll(job_id).alive}

    def held(self) -> set[str]:
        return set()

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.checkpoints / job_id)

    def _read(self, job_id: str) -> _Record | None:
        """None: no such task, or one of another launcher's, such as Ray's."""
        try:
            told = json.loads(read_plain(self._folder(job_id).task_file))
        except FileNotFoundError:
            return None
        return _Record(**told) if "supervisor" in told else None

    def _signal(self, job_id: str, number: signal.Signals) -> None:
        """Signal the task and all it started, if it is there."""
        record = self._read(job_id)
        if record is not None and record.task_lives():
            with suppress(ProcessLookupError):
                os.killpg(record.pid, number)

    def _ended_within(self, job_id: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.poll(job_id).alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True


def _end_all(starter: "subprocess.Popen[bytes]") -> None:
    """What was to start a task, and what it has started by now: the one that starts goes before what it started."""
    first = psutil.Process(starter.pid)
    for process in (first, *first.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    starter.wait()


def process_environment(task: Task, sources: Path) -> dict[str, str]:
    """This process's environment, without its secrets and what would lead the task to other packages or GPUs, and the task's own."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_FOR_TASKS}
    return {
        **kept,
        "PYTHONPATH": str(sources),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA's own order is by speed: GPU 0 would not be nvidia-smi's GPU 0
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, task.gpus)),
        **({"LISTEN": f"127.0.0.1:{task.port}"} if task.port is not None else {}),
        **common_environment(task),
        **task.environment,
    }
