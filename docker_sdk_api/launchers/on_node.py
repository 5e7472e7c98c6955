"""Stands by one task of the Ray launcher, on the node that Ray chose: starts it, tells how it is, ends it when told to.

`python -I on_node.py JOB_FOLDER SUBMISSION`, with the standard library alone: a node's Python knows Ray and none of the project's
packages. What to run stands in the folder's task.json, which only the launcher writes; what became of it is written to pulse.json,
once a second. So docker_sdk_api needs to reach the folder and Ray's head, and no node.

A task.json of another submission, or none, means that the job was taken for lost and goes on elsewhere: what still runs here ends
at once, so that two trainings never write into one folder for long.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
import supervise  # type: ignore[import-not-found]

LOOK = 1.0
"""Seconds between two looks at the task and at what is wanted of it."""
GRACE = 10.0
"""Seconds that a task has to end by itself where Ray was asked to stop it and nobody said how long."""
NODE = "MASKWRIGHT_NODE"
"""The environment variable with the number of this node where several learn one job (over_nodes.py)."""
STORE = "MASKWRIGHT_STORE"
"""The environment variable that on_store.py sets, without which nobody would bring out what a task writes."""
TOLD = {signal.SIGTERM, signal.SIGINT}
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
LIBC = ctypes.CDLL(None)


def main() -> int:
    folder, submission = Path(sys.argv[1]), sys.argv[2]
    if NODE in os.environ or STORE in os.environ:
        LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL)  # Ray ends one part of several by ending its worker
    signal.pthread_sigmask(signal.SIG_BLOCK, {*TOLD, signal.SIGCHLD})  # they are waited for, so that none comes unseen
    return Keeper(folder, submission, os.environ.get(NODE, "")).run()


class Keeper:
    """Of one task, or of the part of it that is a node's where several learn one job: what their ends come to says over_nodes.py."""

    def __init__(self, folder: Path, submission: str, node: str = "") -> None:
        self.folder, self.submission = folder, submission
        suffix = "" if node in ("", "0") else f"-{node}"
        self.log, self.pulse = folder / f"train{suffix}.log", folder / f"pulse{suffix}.json"
        self.last_word = folder / f"pulse-{node}.json" if node else self.pulse
        self.note: dict[str, Any] = {"submission": submission, "node": os.environ.get("MASKWRIGHT_ADDRESS", os.uname().nodename)}
        self.told = False
        self.force_at: float | None = None

    def run(self) -> int:
        """The exit code, as a shell gives it."""
        if self.wanted() is None:
            return 0
        self.tell({})  # first: whoever stops it from now on finds that it has begun, and whoever did so before is heard next
        wanted = self.wanted()
        if wanted is None:
            return 0
        if "grace" in wanted or signal.sigpending() & TOLD:
            return self.end(-signal.SIGTERM)
        kills_before = supervise.out_of_memory_kills()
        try:
            task = self.start(wanted)
        except OSError as error:
            with self.log.open("a") as log:
                log.write(f"{error}\n")
            return self.end(supervise.CANNOT_RUN, missing=wanted["command"][0])
        if not self.watch(task):
            task.wait()
            return 0
        exit_code = supervise._wait(task)
        return self.end(exit_code, out_of_memory=exit_code == -signal.SIGKILL and supervise.out_of_memory_kills() > kills_before)

    def wanted(self) -> dict[str, Any] | None:
        """What the launcher wants of this submission; None: nothing any more."""
        try:
            wanted: dict[str, Any] = json.loads((self.folder / "task.json").read_bytes())
        except FileNotFoundError:
            return None
        return wanted if wanted["submission"] == self.submission else None

    def start(self, wanted: dict[str, Any]) -> "subprocess.Popen[bytes]":
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")}
        if not wanted["gpus"]:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # else it is Ray that says which GPUs are the task's
        leader = os.getpid()

        def begin() -> None:
            LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL)  # with this process, however it ends
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*TOLD, signal.SIGCHLD})
            if os.getppid() != leader:
                os.kill(os.getpid(), signal.SIGKILL)

        with self.log.open("ab") as log:
            return subprocess.Popen(
                wanted["command"],
                cwd=self.folder,
                env={**environment, **wanted["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=begin,
            )

    def watch(self, task: "subprocess.Popen[bytes]") -> bool:
        """Until the task has ended by itself or because it was told to; False: another submission has its folder now."""
        while os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            wanted = self.wanted()
            if wanted is None:
                os.killpg(task.pid, signal.SIGKILL)
                return False
            self.tell(usage(task.pid))
            if "grace" in wanted and not self.told:
                self.stop(task, wanted["grace"])
            if self.force_at is not None and time.monotonic() >= self.force_at:
                os.killpg(task.pid, signal.SIGKILL)
            left = LOOK if self.force_at is None else max(0.01, min(LOOK, self.force_at - time.monotonic()))
            heard = signal.sigtimedwait({*TOLD, signal.SIGCHLD}, left)
            if heard is not None and heard.si_signo in TOLD and not self.told:
                self.stop(task, (self.wanted() or {}).get("grace", GRACE))
        return True

    def stop(self, task: "subprocess.Popen[bytes]", grace: float) -> None:
        """Ray tells this process and all that it started; only of the parts of a job over several nodes it knows nothing."""
        self.told, self.force_at = True, time.monotonic() + grace
        if NODE in os.environ:
            os.killpg(task.pid, signal.SIGTERM)

    def tell(self, more: dict[str, Any]) -> None:
        supervise._write(self.pulse, {**self.note, **more})

    def end(self, exit_code: int, **more: Any) -> int:
        if self.wanted() is not None:
            supervise._write(self.last_word, {**self.note, "exit_code": exit_code, **more})
        return exit_code if exit_code >= 0 else 128 - exit_code


def usage(pid: int) -> dict[str, Any]:
    """Processor seconds, with those of ended processes that were waited for, and bytes of memory of a process and all below it."""
    parents, taken = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
            taken[int(entry.name)] = (sum(map(int, fields[11 : 15 if int(entry.name) == pid else 13])), int(fields[21]))
    family, found = set(), {pid} & set(taken)
    while found:
        family |= found
        found = {child for child, parent in parents.items() if parent in found} - family
    ticks, pages = (sum(taken[member][place] for member in family) for place in (0, 1))
    return {"cpu_seconds": ticks / os.sysconf("SC_CLK_TCK"), "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE"), "at": time.time()}


if __name__ == "__main__":
    sys.exit(main())
