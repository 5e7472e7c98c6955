"""Whose turn it is at a size that no test of the whole product has: quickly told, and as if the plan were made again at every end."""

import random
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from docker_sdk_api.plan import Entry, Room, in_order, plan, starts
from docker_sdk_api.queue import Queue


def jobs(numbers: random.Random, count: int) -> list[Entry]:
    """Some run, and hold no GPU twice; the others wait for one or two GPUs, for a place on the CPU, or for memory alone."""
    entries, free = [], set(range(4))
    for number in range(count):
        gpus = tuple(numbers.sample(range(4), numbers.choice([0, 0, 1, 2])))
        runs = numbers.random() < 0.2 and free.issuperset(gpus)
        free -= set(gpus) if runs else set()
        entries.append(
            Entry(
                job=f"job-{number}",
                state="launched" if runs else numbers.choice(["waiting", "waiting", "waiting", "held"]),
                priority=numbers.randrange(3),
                rank=numbers.randrange(5),
                gpus=gpus,
                memory=numbers.choice([1, 3, 20]),
                counted=numbers.random() < 0.9,
                until=numbers.choice([0.0, 100.0]),
            )
        )
    return entries


def again_and_again(entries: list[Entry], room: Room, seconds: dict[str, float | None]) -> dict[str, float]:
    """The plan made anew whenever a job ends."""
    length = {job: inf if value is None else value for job, value in seconds.items()}
    present = [replace(entry, until=0.0) for entry in entries]
    ends, found, now = {entry.job: length[entry.job] for entry in present if entry.runs}, {}, 0.0
    while now < inf:
        given = [job for job, reason in plan(present, replace(room, free=room.memory, refused={}), now).items() if not reason]
        found |= dict.fromkeys(given, now)
        ends |= {job: now + length[job] for job in given}
        present = [replace(entry, state="launched") if entry.job in given else entry for entry in present]
        now = min(ends.values(), default=inf)
        present = [entry for entry in present if ends.get(entry.job) != now or now == inf]
        ends = {job: end for job, end in ends.items() if end != now}
    return found


@pytest.mark.parametrize("seed", range(60))
def test_the_plan_run_ahead_is_the_plan_made_anew_at_every_end(seed: int):
    numbers = random.Random(seed)
    entries = jobs(numbers, 25)
    room = Room(parallel=numbers.randrange(1, 4), memory=10, free=5, refused={0: "other programs hold it"})
    seconds = {entry.job: numbers.choice([None, 0.0, 1.0, 2.0, 5.0, 5.0, 5.0]) for entry in entries}
    assert starts(entries, room, seconds, seconds) == again_and_again(entries, room, seconds)


def test_five_thousand_jobs_that_wait_for_a_hundred_places_are_each_told_when_they_start():
    entries = [Entry(f"job-{number:05}", rank=number) for number in range(5000)]
    told = starts(entries, Room(parallel=100, memory=1, free=1), {}, dict.fromkeys((entry.job for entry in entries), 60.0))
    assert [told[f"job-{number:05}"] for number in (0, 99, 100, 4999)] == [0.0, 0.0, 60.0, 49 * 60.0]


def test_a_database_that_was_deleted_is_made_anew_by_whoever_had_it_open(tmp_path: Path):
    one, other = Queue(tmp_path), Queue(tmp_path)
    one.put(Entry("former"))
    assert other.entries() == one.entries() != []
    for file in one.file.parent.iterdir():
        file.unlink()
    other.put(Entry("present"))
    assert [entry.job for entry in one.entries()] == ["present"]


def test_a_move_past_many_moves_nobody_else(tmp_path: Path):
    queue = Queue(tmp_path)
    for number in range(20):
        queue.put(Entry(f"job-{number:02}", rank=5.0))
    queue.move("job-15", 3)
    names = [entry.job for entry in in_order(queue.entries())]
    assert names[2] == "job-15"
    assert sorted(names) == names[:2] + names[3:16] + ["job-15"] + names[16:]
