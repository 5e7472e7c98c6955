"""The training job's process: `python -m training_api JOB_FOLDER`. Exit code 0 only for a job that ended as asked."""

import sys
from pathlib import Path
from types import TracebackType

from contracts.errors import Problem
from contracts.events import Failed
from contracts.job_folder import JobFolder
from training_api.figures import Events
from training_api.train import train


def main() -> int:
    folder = JobFolder(Path(sys.argv[1]))
    events = Events(folder)
    _say_what_kills(events)
    try:
        train(folder, events)
    except Problem as problem:
        events.say(Failed(cause=problem.cause, cure=problem.cure))
        print(f"failed: {problem}", file=sys.stderr)
        return 1
    return 0


def _say_what_kills(events: Events) -> None:
    """An error that nobody foresaw is told as an event too, before Python prints its traceback into train.log."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        events.say(_last_words(kind, error))
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


def _last_words(kind: type[BaseException], error: BaseException) -> Failed:
    if isinstance(error, MemoryError) or kind.__name__ == "OutOfMemoryError":
        return Failed(cause="The training ran out of memory.", cure="Choose a smaller batch size, crop or short side.")
    if isinstance(error, OSError) and error.errno == 28:
        return Failed(cause="The disk is full.", cure="Free some space, then resume the job.")
    return Failed(cause=f"The training broke with {kind.__name__}: {error}.", cure="The log's last lines show where.")


if __name__ == "__main__":
    # Lines reach train.log as they are printed, not when a buffer is full.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
