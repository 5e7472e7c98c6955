"""Whose turn it is: functions of what waits, what runs and what room there is. Nothing is read or written here.

A job passes one before it only where it takes nothing from it: the GPUs that one waits for, a place on the CPU, or memory. So the
machine is kept busy, and no job waits for ever because smaller ones keep passing it.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from sys import maxsize
from typing import Literal

from contracts.queue import Priority

State = Literal["waiting", "held", "launching", "launched"]
PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high")
NAMED = 3
"""Jobs that are named in one sentence."""


@dataclass(frozen=True)
class Entry:
    """A job in the queue, or one that has had its turn and runs. `memory` in bytes; `until` in unix seconds: not tried again before; while
    it is being launched, for how long its launcher is believed to do so; then, for how long it is still taking its memory. `counted`:
    whether it takes a place on the CPU. `turn` tells one launch from the next."""

    job: str
    state: State = "waiting"
    priority: int = 1
    rank: float = 0.0
    gpus: tuple[int, ...] = ()
    memory: int = 0
    counted: bool = True
    turn: str = ""
    owner: str = ""
    until: float = 0.0
    trouble: str = ""

    @property
    def runs(self) -> bool:
        return self.state in ("launching", "launched")


@dataclass(frozen=True)
class Room:
    """What jobs can be given. Memory in bytes: what they may take together, and what is free at this moment. `refused`: why a GPU that
    none of them holds cannot be given. `asked`: the GPUs that were looked at, None: all; a job that came since then and wants another one
    waits for the next look."""

    parallel: int
    memory: int
    free: int
    refused: Mapping[int, str] = field(default_factory=dict)
    asked: frozenset[int] | None = None


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Those that wait, the next one first."""
    return sorted((entry for entry in entries if not entry.runs), key=_place)


def _place(entry: Entry) -> tuple[int, float, str]:
    return -entry.priority, entry.rank, entry.job


def plan(entries: Sequence[Entry], room: Room, now: float) -> dict[str, str]:
    """What each job that waits waits for, in order; empty: its turn has come."""
    return {entry.job: reason for entry, reason in turns(entries, room, now)}


def turns(entries: Sequence[Entry], room: Room, now: float) -> Iterator[tuple[Entry, str]]:
    """The same one by one: who looks for the next turn alone need not hear of thousands behind it."""
    tally = _Tally(entries, room, now)
    for entry in in_order(entries):
        if entry.state == "held":
            yield entry, "on hold"
        elif entry.until > now:
            yield entry, entry.trouble
        else:
            yield entry, tally.ask(entry)


class _Tally:
    """What is left of the room while one job after the other is given its part of it."""

    def __init__(self, entries: Iterable[Entry], room: Room, now: float) -> None:
        self.room = room
        self.holders: dict[int, str] = {}
        self.on_cpu: dict[str, None] = {}
        self.taken = self.learning = self.coming = 0
        self.look_again()
        for entry in entries:
            if entry.runs:
                self.give(entry)
                self.coming += self._part(entry) if entry.until > now else 0

    def look_again(self) -> None:
        """From the first job that waits on: nothing is kept for anybody yet."""
        self.promised: dict[int, str] = {}
        self.next_on_cpu = self.next_for_memory = ""

    def give(self, entry: Entry) -> None:
        self.holders |= dict.fromkeys(entry.gpus, entry.job)
        if entry.counted and not entry.gpus:
            self.on_cpu[entry.job] = None
        self.taken, self.learning = self.taken + self._part(entry), self.learning + _learns(entry)

    def take_back(self, entry: Entry) -> None:
        self.holders = {gpu: job for gpu, job in self.holders.items() if job != entry.job} if entry.gpus else self.holders
        self.on_cpu.pop(entry.job, None)
        self.taken, self.learning = self.taken - self._part(entry), self.learning - _learns(entry)

    def ask(self, entry: Entry) -> str:
        """Give the job its part, or say what it waits for and keep that for it."""
        reason = self._gpus(entry) if entry.gpus else self._cpu(entry)
        reason = reason or self._memory(entry)
        if reason:
            self.promised |= {gpu: entry.job for gpu in entry.gpus if gpu not in self.promised}
            if entry.counted and not entry.gpus:
                self.next_on_cpu = self.next_on_cpu or entry.job
            return reason
        self.give(entry)
        self.coming += self._part(entry)
        return ""

    def _gpus(self, entry: Entry) -> str:
        for gpu in entry.gpus:
            if gpu in self.holders:
                return f"waits for GPU {gpu}, held by {self.holders[gpu]}"
            if gpu in self.promised:
                return f"waits for GPU {gpu}, after {self.promised[gpu]}"
            if gpu in self.room.refused:
                return f"waits for GPU {gpu}: {self.room.refused[gpu]}"
            if self.room.asked is not None and gpu not in self.room.asked:
                return f"waits for GPU {gpu}, which is being looked at"
        return ""

    def _cpu(self, entry: Entry) -> str:
        if not entry.counted:
            return ""
        if self.next_on_cpu:
            return f"waits for {self.next_on_cpu}, which is before it"
        if len(self.on_cpu) >= self.room.parallel:
            names = ", ".join(islice(self.on_cpu, NAMED)) + (" and others" if len(self.on_cpu) > NAMED else "")
            return f"waits for a place on the CPU, held by {names}"
        return ""

    def _part(self, entry: Entry) -> int:
        """Of the memory, what a job takes: never more than there is for jobs, for which it would wait for ever."""
        return min(entry.memory, self.room.memory)

    def _memory(self, entry: Entry) -> str:
        """The first job always has enough: it would wait for ever for what nobody here can free."""
        if not self.learning:
            return ""
        if self.next_for_memory:
            return f"waits for memory, after {self.next_for_memory}"
        left = min(self.room.free - self.coming, self.room.memory - self.taken)  # what was given just now is still seen as free
        if self._part(entry) > left:
            self.next_for_memory = entry.job
            return f"waits for memory: it takes about {entry.memory / 1e9:.1f} GB, and {max(left, 0) / 1e9:.1f} GB are free for it"
        return ""


def _learns(entry: Entry) -> bool:
    """Not one that only converts a model or waits for an old client, which may do so for days."""
    return entry.counted or bool(entry.gpus)


def starts(entries: Sequence[Entry], room: Room, left: Mapping[str, float | None], lasts: Mapping[str, float | None]) -> dict[str, float]:
    """In how many seconds each job's turn comes, by the plan run ahead. Missing: nothing says.

    `left`: seconds that each running job has left; `lasts`: seconds that each waiting one will take. None: not known.
    """
    roomy = replace(room, free=maxsize, refused={}, asked=None)  # of other programs nobody knows when they end
    tally, lanes = _Tally(entries, roomy, inf), _lanes(entries)
    ends = [(_or_never(left.get(entry.job)), number, entry) for number, entry in enumerate(entries) if entry.runs]
    heapify(ends)
    found: dict[str, float] = {}
    now = 0.0
    while True:
        for entry in _turns_of(lanes, tally):
            found[entry.job] = now
            heappush(ends, (now + _or_never(lasts.get(entry.job)), len(entries) + len(found), entry))
        now = ends[0][0] if ends else inf
        if now == inf or not lanes:
            return found
        while ends and ends[0][0] == now:
            tally.take_back(heappop(ends)[2])


def _lanes(entries: Sequence[Entry]) -> list[deque[Entry]]:
    """Jobs that want the very same places, in order: where one of them is refused, so are all behind it."""
    lanes: defaultdict[tuple[tuple[int, ...], bool], deque[Entry]] = defaultdict(deque)
    for entry in in_order(entries):
        if entry.state != "held":
            lanes[entry.gpus, entry.counted].append(entry)
    return list(lanes.values())


def _turns_of(lanes: list[deque[Entry]], tally: _Tally) -> list[Entry]:
    """Those whose turn has come, taken out of their lanes: what `turns` says without a word on each of those that wait."""
    tally.look_again()
    heads = [(_place(lane[0]), number) for number, lane in enumerate(lanes)]
    heapify(heads)
    found = []
    while heads and not tally.next_for_memory:  # of which nobody is given any past that one
        _, number = heappop(heads)
        if not tally.ask(lanes[number][0]):
            found.append(lanes[number].popleft())
            if lanes[number]:
                heappush(heads, (_place(lanes[number][0]), number))
    lanes[:] = [lane for lane in lanes if lane]
    return found


def _or_never(seconds: float | None) -> float:
    return inf if seconds is None else max(seconds, 0.0)
