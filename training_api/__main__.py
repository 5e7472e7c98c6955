"""The training job's process: `python -m training_api JOB_FOLDER`. Exit code 0 only for a job that ended as asked.

A job of several processes starts here too: this process then leads them (engines/pytorch_parallel.py), and each is this again.
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from contracts.errors import Problem, sayable
from contracts.events import Failed, now
from contracts.job_folder import JobFolder, write_aside
from contracts.room import is_full
from training_api.artefact import convert
from training_api.figures import Events
from training_api.group import ALONE, Group
from training_api.train import train

NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
"""How PyTorch says so where it raises a plain RuntimeError."""

WORDS = "MASKWRIGHT_WORDS"
"""The environment variable with the file into which one of several nodes writes why it fails (docker_sdk_api/launchers/over_nodes.py)."""

NO_ROOM = Failed(cause="The disk is full.", cure="Make room where the checkpoints lie, then resume the job: what was saved is intact.")


def main() -> int:
    folder = JobFolder(Path(sys.argv[1]))
    events = Events(folder)
    say = _last_words(events)
    say_what_kills(say)
    job = folder.job()
    if job.imported:
        return say_what_fails(lambda: convert(folder, events), events.say)
    if job.together == 1 and not (job.engine == "pytorch" and os.environ.get("TORCHRUN")):
        return _learn(folder, events, ALONE, events.say)
    from training_api.engines import pytorch_parallel as parallel

    if not parallel.launched():
        return parallel.lead(folder, job.together, say)
    parallel.follow_leader()
    say_what_kills(parallel.leave_words)
    group = parallel.TorchGroup(gpus=bool(job.gpus))
    if not group.first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # one log is enough; what goes wrong is printed to stderr
    return parallel.end(_learn(folder, Events(folder, writes=group.first), group, parallel.leave_words))


def _last_words(events: Events) -> Callable[[Failed], None]:
    """Where to say why this fails. On one of several nodes it only seems so: over_nodes.py, which sees all of them, reads it there."""
    file = os.environ.get(WORDS)
    return events.say if file is None else lambda failed: write_aside(Path(file), failed.model_dump_json())


def _learn(folder: JobFolder, events: Events, group: Group, say: Callable[[Failed], None]) -> int:
    return say_what_fails(lambda: train(folder, events, group), say)


def say_what_fails(work: Callable[[], None], say: Callable[[Failed], None]) -> int:
    """The exit code of a job's work: 1 where it ends with a problem, which is then told as an event."""
    try:
        work()
    except Problem as problem:
        say(Failed(cause=problem.cause, cure=problem.cure))
        print(f"failed: {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(NO_ROOM.model_copy(update={"at": now()}))
        return 1
    return 0


def say_what_kills(say: Callable[[Failed], None]) -> None:
    """An error that nobody foresaw is told as an event too, before Python prints its traceback into train.log."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        say(_said_of(kind, error))
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


def _said_of(kind: type[BaseException], error: BaseException) -> Failed:
    if isinstance(error, MemoryError) or kind.__name__ == "OutOfMemoryError" or any(words in str(error) for words in NO_MEMORY):
        return Failed(cause="The training ran out of memory.", cure="Choose a smaller batch size, crop or short side, or set fit_memory.")
    if is_full(error, Path(sys.argv[1])):
        return NO_ROOM
    return Failed(cause=f"The training broke with {kind.__name__}: {sayable(str(error))}.", cure="The log's last lines show where.")


if __name__ == "__main__":
    # Lines reach train.log as they are printed, not when a buffer is full.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
