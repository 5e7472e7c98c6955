"""How each job stands, kept from one look to the next: of a file that grows only what is new is read, of one that rests nothing."""

import os
import pickle
import signal
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from contracts.events import Failed, Stopped, apply, boot_id, read_events
from contracts.job import ENDED, Job, JobStatus
from contracts.job_folder import JobFolder
from contracts.plain import open_plain, size_of
from docker_sdk_api.launchers import Pulse
from docker_sdk_api.logs import LineReader

ENDED_FROM_OUTSIDE = {signal.SIGTERM, signal.SIGINT}
OUT_OF_MEMORY = "The training ran out of memory and was ended."
MEMORY = "Start it anew with a smaller batch size, crop or short side, or give it more (JOB_MEMORY, if that is set)."
LENGTHS = (2**12, 2**24)
"""Bytes that most events fit into, and that any does."""
RESUME = "Resume it: it goes on after its last whole epoch."


@dataclass
class _Kept:
    """Of one job. `mark` tells its files from those of a later job of the same name."""

    mark: tuple[int, int]
    job: Job
    reader: LineReader
    status: JobStatus | bytes = field(default_factory=JobStatus)
    """Packed once the job has ended: as objects, an epoch takes some 2 KB."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    end: tuple[int, str] = (-1, "")
    """How long the events were when they were last looked at, and the kind of the last one where that is an end."""


class Standing:
    """Jobs and their statuses by name. What it gives belongs to the caller. Safe in threads."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def job(self, folder: JobFolder) -> Job:
        return self._of(folder).job

    def status(self, folder: JobFolder) -> JobStatus:
        """The fold of all events so far."""
        kept = self._of(folder)
        with kept.lock:
            size = size_of(folder.events_file)
            if size < kept.reader.offset:  # rewritten by hand
                kept.reader, kept.status = LineReader(folder.events_file), JobStatus()
            status = kept.status
            if isinstance(status, bytes):
                status = _unpacked(status)
                if size == kept.reader.offset:
                    return status
                kept.status = status  # at once: what is read from here on is not read again
            at = -1
            while kept.reader.offset > at:  # it may have passed over a line, and given none
                at, lines = kept.reader.offset, kept.reader.read()
                for event in read_events(line for line, _ in lines if line):
                    apply(status, event)
            kept.status = _packed(status) if status.ended_already else status
            lists = {name: list(getattr(status, name)) for name in ("history", "previews", "warnings")}
            return status.model_copy(update=lists)

    def all(self, checkpoints: Path) -> list[Job]:
        """Every job of a folder. Of a thousand jobs it looks at a thousand dates: no more paths are made than that takes."""
        jobs, seen = [], set()
        with os.scandir(checkpoints) as entries:
            for entry in entries:
                # ValueError: a damaged job.json; PermissionError: a folder such as lost+found. The others are none the worse for it.
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
                    if not entry.name.startswith("."):
                        jobs.append(self._kept_of(entry.name, entry.path).job)
                        seen.add(entry.name)
        for gone in set(self._kept) - seen:  # its folder was removed, by another service or by hand
            self.forget(gone)
        return jobs

    def end(self, name: str) -> str:
        """The kind of a known job's last event where that is an end, else "": by the file's last bytes, for a look at many jobs."""
        kept = self._kept.get(name)
        if kept is None:
            return ""
        try:
            size = kept.reader.file.stat().st_size
        except FileNotFoundError:
            return ""
        if kept.end[0] != size:
            last = last_event(kept.reader.file)
            kept.end = (size, last if last in ENDED else "")
        return kept.end[1]

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)

    def _of(self, folder: JobFolder) -> _Kept:
        return self._kept_of(folder.name, str(folder.path))

    def _kept_of(self, name: str, path: str) -> _Kept:
        """Raises FileNotFoundError where there is no such job."""
        stat = os.stat(f"{path}/job.json")  # noqa: PTH116 - asked for each of a thousand jobs
        mark = (stat.st_ino, stat.st_mtime_ns)
        kept = self._kept.get(name)
        if kept is None or kept.mark != mark:
            folder = JobFolder(Path(path))
            kept = self._kept[name] = _Kept(mark, folder.job(), LineReader(folder.events_file))
        return kept


def _packed(status: JobStatus) -> bytes:
    return zlib.compress(pickle.dumps(status), level=1)


def _unpacked(packed: bytes) -> JobStatus:
    status: JobStatus = pickle.loads(zlib.decompress(packed))
    return status


def end_of(status: JobStatus, pulse: Pulse, asked_to_stop: bool) -> Failed | Stopped:
    """The end of a job whose task is gone although its events do not end, by what is known of it."""
    number = _signal(pulse.exit_code)
    if pulse.out_of_memory:
        return Failed(cause=f"{OUT_OF_MEMORY} {pulse.note}".strip(), cure=MEMORY)
    if asked_to_stop and (pulse.exit_code is None or number in (*ENDED_FROM_OUTSIDE, signal.SIGKILL)):
        return Stopped()
    if pulse.note:
        return Failed(cause=pulse.note, cure=RESUME)
    if status.boot and status.boot != boot_id():
        return Failed(cause="The machine was started anew while the training ran.", cure=RESUME)
    if pulse.exit_code is None:
        return Failed(cause="The training is gone, and nobody saw it end: its process or the machine was stopped.", cure=RESUME)
    if number in ENDED_FROM_OUTSIDE:
        return Failed(cause="The training was ended from outside, for instance because Maskwright or the machine was stopped.", cure=RESUME)
    if number == signal.SIGKILL:
        cure = f"{RESUME} Where it happens again, choose a smaller batch size, crop or short side."
        return Failed(cause="The training was killed, by somebody or because the machine ran out of memory.", cure=cure)
    if number is not None:
        cure = f"{RESUME} Where it happens again, the log's last lines may show where: it is a fault of the framework or of a driver."
        return Failed(cause=f"The training crashed with {number.name}, inside its framework or a driver.", cure=cure)
    cure = "The log's last lines may show why. Then resume it."
    return Failed(cause=f"The training ended without a word, with exit code {pulse.exit_code}.", cure=cure)


def _signal(exit_code: int | None) -> signal.Signals | None:
    """The signal that ended a task: a process says minus its number, a container 128 and its number."""
    number = 0 if exit_code is None else -exit_code if exit_code < 0 else exit_code - 128
    return signal.Signals(number) if number in set(signal.Signals) else None


def written(folder: JobFolder) -> tuple[int, int]:
    """When the job's events and its log were last written to."""
    return changed(folder.events_file), changed(folder.log_file)


def changed(file: Path) -> int:
    """When a file was last written to, in nanoseconds; 0: there is none."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def last_event(file: Path) -> str:
    """The kind of the last whole event; empty where there is none, or where it is longer than any event is."""
    lines: list[bytes] = []
    try:
        with open_plain(file) as opened:
            size = opened.seek(0, 2)
            for length in LENGTHS:
                opened.seek(max(0, size - length))
                lines = opened.read(length).split(b"\n")
                if len(lines) > 2 or length >= size:
                    break
    except FileNotFoundError:
        return ""
    if len(lines) < 2 or not lines[-2].startswith(b"{"):
        return ""
    return next(read_events([lines[-2].decode(errors="replace")])).event
