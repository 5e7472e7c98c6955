"""Stands by one task of the process launcher: starts it, notes how to find it again, and notes how it ended.

A process of its own, so that a training outlives docker_sdk_api and its exit code is still known. It is run by path and
imports the standard library alone: it stays in memory for as long as the training does.

It reads a request from standard input (`command`, `folder`, `environment`, `log`, `record`) and ends as soon as the task
is recorded; a copy of it stays. Exit status: 0 it is recorded, ALREADY another task runs in the folder.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ALREADY = 75  # "try again later", as sysexits.h numbers it
CANNOT_RUN = 127  # what a shell answers for a program that cannot be started
BEGINS_WHEN_TOLD = 'read -r _ && exec "$@" </dev/null'
"""A task begins once it is recorded. Where whoever stands by it dies before, or cannot record it, it ends without having begun:
nobody would find it again, and it would run beside the next one."""


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since boot. None: there is none, or it has ended and waits to be reaped.

    A pid alone would one day name somebody else's process; together with this it does not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Which boot of the machine this is: clock ticks start again with the next."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def out_of_memory_kills() -> int:
    """How many processes the kernel has ended for lack of memory since boot."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0


def main() -> int:
    request = json.load(sys.stdin)
    lock = Path(request["log"]).open("ab")  # noqa: SIM115 - held, with its lock, until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ALREADY
    recorded, tell = os.pipe()  # closed unwritten where this process dies before the task is recorded
    if os.fork():
        os.close(tell)
        return 0 if os.read(recorded, 1) else 1
    _detach(lock.fileno())
    _stand_by(request, tell)
    return 0


def _detach(log: int) -> None:
    os.setsid()
    # A handler, not "ignore": a new program would inherit the latter. Only the task's own end ends this process.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(log, 2)


def _stand_by(request: dict[str, Any], tell: int) -> None:
    record = Path(request["record"])
    note: dict[str, Any] = {"boot": boot_id(), "supervisor": os.getpid(), "supervisor_started": started_at(os.getpid())}
    kills_before = out_of_memory_kills()
    gate, begin = os.pipe()
    with Path(request["log"]).open("ab") as log:
        task = subprocess.Popen(
            ["/bin/sh", "-c", BEGINS_WHEN_TOLD, "sh", *request["command"]],
            cwd=request["folder"],
            env=request["environment"],
            stdin=gate,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(gate)
    note |= {"pid": task.pid, "started": started_at(task.pid)}
    _write(record, note)
    with contextlib.suppress(BrokenPipeError):  # it was killed already
        os.write(begin, b"\n")
    os.close(begin)
    os.write(tell, b"1")
    exit_code = _wait(task)
    # The counter is the whole machine's: another program may have been the one. It is the best an unlimited process has.
    out_of_memory = exit_code == -signal.SIGKILL and out_of_memory_kills() > kills_before
    _write(record, {**note, "exit_code": exit_code, "out_of_memory": out_of_memory})


def _wait(task: "subprocess.Popen[bytes]") -> int:
    """Wait for the task, and end what it left running: workers would hold memory and GPUs for ever."""
    os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet, so that nobody can take over its number
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(task.pid, signal.SIGKILL)
    return task.wait()


def _write(path: Path, note: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
