"""The work of a check: every pair of a dataset read in parallel processes, and again only where a file has changed since."""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from annotations.dataset import Dataset, Pair, open_dataset
from annotations.doctor.examine import Facts, Side, examine
from annotations.doctor.fingerprint import file_digest, fingerprint, stored_split
from contracts.errors import Invalid, Unavailable
from contracts.job_folder import write_aside

OWN = ".maskwright"
"""The folder inside a dataset that belongs to Maskwright: what it knows of the files, and what it needs to undo a cure."""
VERSION = 1
"""Of what is kept; another one is read anew."""
ENOUGH_FOR_PROCESSES = 256
"""For fewer pairs (or BYTES) the start of processes takes longer than they save."""
BYTES = 64 * 2**20
MOST_PROCESSES = 8
AT_ONCE = 16

Progress = Callable[[int, int], None]
Stamp = list[str | int]


class Checker:
    """Facts about every pair of a dataset, kept in <folder>/.maskwright/check.json by size and time of the files."""

    def __init__(self, dataset: Dataset, processes: int | None = None) -> None:
        self.dataset = dataset
        self.processes = processes or min(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1, MOST_PROCESSES)
        self.file = dataset.folder / OWN / "check.json"
        self._kept_classes = 0

    def examine(self, progress: Progress) -> list[Facts]:
        """Facts in the order of the pairs; `progress` is told how many of them are done, and of how many.

        Raises Unavailable where a process of the check was killed.
        """
        stamps = {pair.stem: stamp_of(pair) for pair in self.dataset.pairs}
        kept = self._kept()
        facts = {stem: entry[1] for stem, entry in kept.items() if stamps.get(stem) == entry[0]}
        fresh = [pair for pair in self.dataset.pairs if pair.stem not in facts]
        progress(len(facts), len(stamps))
        for found in self._examine(fresh, sum(int(stamps[pair.stem][1]) for pair in fresh)):
            facts[found.stem] = found
            progress(len(facts), len(stamps))
        if fresh or len(kept) != len(facts):
            self._keep({pair.stem: (stamps[pair.stem], facts[pair.stem]) for pair in self.dataset.pairs})
        return [facts[pair.stem] for pair in self.dataset.pairs]

    def fingerprint(self) -> str:
        """The fingerprint of the dataset as it is now: only files that have changed since the last check are read.

        Empty where there was no check before.
        """
        kept = self._read()
        if not kept:
            return ""
        rows = []
        for pair in self.dataset.pairs:
            stamp, facts = kept.get(pair.stem, (None, None))
            if facts is not None and stamp == stamp_of(pair):
                rows.append((pair.stem, facts.picture.digest, facts.mask.digest))
            else:
                rows.append((pair.stem, file_digest(pair.picture), file_digest(pair.mask)))
        return fingerprint(self.dataset.classes, stored_split(self.dataset.folder), rows)

    def _examine(self, pairs: list[Pair], size: int) -> Iterator[Facts]:
        classes = len(self.dataset.classes)
        if self.processes == 1 or (len(pairs) < ENOUGH_FOR_PROCESSES and size < BYTES):
            yield from _examine_all(pairs, classes)
            return
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["annotations.doctor.examine"])
        portions = [pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE)]
        done = 0
        try:
            with ProcessPoolExecutor(self.processes, mp_context=context) as pool:
                for portion in pool.map(_examine_portion, portions, [classes] * len(portions)):
                    yield from portion
                    done += len(portion)
        except BrokenProcessPool:
            raise Unavailable(
                "A process of the check was ended from outside, most likely because memory ran out.",
                "Free memory, or look for a picture that is far larger than the others; then check again.",
            ) from None
        except OSError:  # no room for the processes' pipes or locks, as in a container without /tmp or /dev/shm
            yield from _examine_all(pairs[done:], classes)

    def _kept(self) -> dict[str, tuple[Stamp, Facts]]:
        """What the last check wrote down, nothing where it was for another number of classes."""
        kept = self._read()
        return kept if self._kept_classes == len(self.dataset.classes) else {}

    def _read(self) -> dict[str, tuple[Stamp, Facts]]:
        """What the last check wrote down, nothing where it cannot be read."""
        try:
            content = json.loads(self.file.read_bytes())
            if content["version"] != VERSION:
                return {}
            self._kept_classes = int(content["classes"])
            return {row["stem"]: (row.pop("stamp"), _facts(row)) for row in content["pairs"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _keep(self, entries: dict[str, tuple[Stamp, Facts]]) -> None:
        rows = [
            {"stamp": stamp, **vars(facts), "picture": vars(facts.picture), "mask": vars(facts.mask)} for stamp, facts in entries.values()
        ]
        content = {"version": VERSION, "classes": len(self.dataset.classes), "pairs": rows}
        try:
            self.file.parent.mkdir(exist_ok=True)
            write_aside(self.file, json.dumps(content))
        except OSError:
            return  # A dataset on a read-only disk is checked in full every time.


def fingerprint_now(folder: Path) -> str:
    """The fingerprint of a dataset as it is now; empty where it was never checked, “gone” where there is no dataset any more."""
    try:
        return Checker(open_dataset(folder)).fingerprint()
    except Invalid:
        return "gone"


def stamp_of(pair: Pair) -> Stamp:
    """Name, size in bytes and time in nanoseconds of a pair's two files."""
    stamp: Stamp = []
    for path in (pair.picture, pair.mask):
        state = path.stat()
        stamp += [path.name, state.st_size, state.st_mtime_ns]
    return stamp


def _examine_all(pairs: list[Pair], classes: int) -> Iterator[Facts]:
    return (examine(pair.stem, pair.picture, pair.mask, classes) for pair in pairs)


def _examine_portion(pairs: list[Pair], classes: int) -> list[Facts]:
    return list(_examine_all(pairs, classes))


def _facts(row: dict[str, Any]) -> Facts:
    places = {value: (place[0], place[1]) for value, place in row["places"].items()}
    return Facts(row["stem"], Side(**row["picture"]), Side(**row["mask"]), row["look"], row["counts"], places)
