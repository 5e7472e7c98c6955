"""Where the queue stops keeping up: ./run/bench.sh scale [queue|machines ...] [--machines 10 100 1000] [--seconds 60 600]

queue     one transaction of the queue and one look at it, with 100, 1,000 and 5,000 jobs that wait, in SQLite and PostgreSQL.
machines  10, 100 and 1,000 machines that always have 2,000 jobs waiting. The product's queue, plan and line are really asked, over a
          real database and real job folders, and the time that this takes passes; only what a job learns, and the waiting, is leapt
          over. Launching a task and asking how it is count as long as they take the process launcher, measured before.

`keeps_up_*`: jobs that were given to machines, of as many as became free (1.0: as fast as the machines work).
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from heapq import heappop, heappush
from pathlib import Path

from machine import report, table
from sqlalchemy import delete, insert

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from contracts.events import now as this_moment
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job
from docker_sdk_api.gpus import Gpus
from docker_sdk_api.launchers import Pulse, Task
from docker_sdk_api.launchers.process import ProcessLauncher
from docker_sdk_api.line import Line
from docker_sdk_api.plan import Entry, Room, plan, starts
from docker_sdk_api.queue import ENTRIES, Queue, _row
from docker_sdk_api.settings import Settings
from docker_sdk_api.standing import Standing
from tests.test_queue import postgresql

PARTS = ("queue", "machines")
MACHINES, WAITING, BACKLOG = (10, 100, 1000), (100, 1000, 5000), 2000
BETWEEN = 1.0
"""Seconds between two looks of the thread that launches (docker_sdk_api/dispatch.py)."""
ROOMY = {"memory": 2**60, "free": 2**60}
LONGEST = 15.0
"""Real seconds of one simulation."""


def median_ms(what: Callable[[int], object], times: int = 15) -> float:
    taken = []
    for number in range(times):
        begun = time.perf_counter()
        what(number)
        taken.append(time.perf_counter() - begun)
    return round(statistics.median(taken) * 1000, 2)


def entry(number: int, **facts: object) -> Entry:
    return Entry(f"job-{number:06}", rank=float(number), **facts)  # type: ignore[arg-type]


def databases(stack: ExitStack) -> dict[str, str]:
    """Name → address; PostgreSQL where it is installed."""
    found = {"SQLite": ""}
    with suppress(BaseException):  # pytest's way to say that there is none
        found["PostgreSQL"] = stack.enter_context(postgresql())
    return found


def transactions(home: Path, name: str, url: str, waiting: int) -> list[object]:
    """Milliseconds of each, with so many jobs that wait and four that run."""
    queue, room = Queue(home / f"{name}-{waiting}", url), Room(parallel=4, **ROOMY)
    for known in queue.entries():
        queue.remove(known)
    for number in range(4):
        queue.put(entry(number, state="launched"))
    for number in range(4, waiting + 4):
        queue.put(entry(number))
    later = waiting + 100
    put = median_ms(lambda number: queue.put(entry(later + number), room))
    look = median_ms(lambda _: queue.entries())
    nothing = median_ms(lambda _: queue.take(room))
    taken = deque(known for _ in range(10) if (known := queue.take(Room(parallel=100, **ROOMY))))
    told = [*taken]
    launched = median_ms(lambda _: queue.launched(taken.popleft().job), 10)
    removed = median_ms(lambda _: queue.remove(told.pop()), 10)
    first = median_ms(lambda number: queue.move(f"job-{later + number:06}", 1), 5)
    found = queue.entries()
    planned = median_ms(lambda _: plan(found, room, 0.0))
    ahead = median_ms(lambda _: starts(found, room, {}, {known.job: 60.0 for known in found}), 3)
    return [name, waiting, put, look, nothing, launched, removed, first, planned, ahead]


class Clock:
    """Simulated seconds: real ones while the product works, leaps where it would sleep."""

    def __init__(self) -> None:
        self.base, self.begun = 0.0, time.perf_counter()

    def now(self) -> float:
        return self.base + time.perf_counter() - self.begun

    def spend(self, seconds: float) -> None:
        self.base += seconds

    def leap(self, to: float) -> None:
        self.base, self.begun = max(self.now(), to), time.perf_counter()

    @contextmanager
    def standing(self) -> Iterator[None]:
        """What the simulation itself does takes no time."""
        present = self.now()
        yield
        self.base, self.begun = present, time.perf_counter()


class Machines:
    """A launcher whose tasks do nothing but end in time. `seconds`: of a poll, as measured."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.ends: dict[str, float] = {}

    def poll(self, job_id: str) -> Pulse:
        self.clock.spend(self.seconds)
        alive = self.ends.get(job_id, 0.0) > self.clock.now()
        return Pulse(alive, None if alive else 0)

    def gpus(self) -> Gpus:
        return Gpus([])


class Simulation:
    """Machines with a backlog, and somebody who puts in a new job for each that ends."""

    def __init__(self, home: Path, url: str, machines: int, seconds: float, launch: float, poll: float) -> None:
        self.machines, self.seconds, self.launch = machines, seconds, launch
        self.clock, self.numbers = Clock(), random.Random(1)
        self.launcher = Machines(self.clock, poll)
        self.settings = Settings(checkpoints=home, parallel_jobs=machines, database_url=url, task_python=Path(sys.executable))
        self.line = Line(self.settings, self.launcher, Standing())  # type: ignore[arg-type]
        self.made = self.ended = 0
        self.frees: list[float] = []
        self.idle: list[float] = []
        self.worked = 0.0
        job = Job(
            name="NAME",
            dataset="plates",
            engine="majority",
            network="majority",
            backbone="none",
            dataset_folder=home / "plates",
            created=this_moment(),
            hyperparameters=Hyperparameters(epochs=1),
        )
        self.text = job.model_dump_json()
        with self.line.queue._transaction() as to:  # of another simulation
            to.execute(delete(ENTRIES))
        there = [self._new(state="launched" if number < machines else "waiting") for number in range(machines + BACKLOG)]
        with self.line.queue._transaction() as to:  # what is there at the beginning is not measured
            to.execute(insert(ENTRIES), [_row(known) for known in there])
        self.clock = self.launcher.clock = Clock()
        for known in there[:machines]:
            self._runs(known.job, self.numbers.uniform(0, seconds))

    def _new(self, **facts: object) -> Entry:
        """A job with its folder."""
        with self.clock.standing():
            new = entry(self.made, **facts)
            folder = self.settings.checkpoints / new.job
            folder.mkdir()
            (folder / "job.json").write_text(self.text.replace("NAME", new.job))
            (folder / "events.jsonl").write_text('{"event": "queued", "at": "2026-01-01T00:00:00Z"}\n')
        self.made += 1
        return new

    def _runs(self, job: str, seconds: float) -> None:
        self.launcher.ends[job] = self.clock.now() + seconds
        heappush(self.frees, self.launcher.ends[job])

    def run(self) -> list[object]:
        """Until each machine was given three jobs, or for LONGEST seconds of real time."""
        over = time.perf_counter() + LONGEST
        while len(self.idle) < 3 * self.machines and time.perf_counter() < over:
            begun, before = self.clock.now(), self.ended
            self._look()
            for _ in range(self.ended - before):
                self.line.settle()  # as each request that starts a job does
                if (turn := self.line.queue.put(self._new(), self.line.room())) is not None:
                    self._begin(turn)
            taken = self.clock.now() - begun
            with self.clock.standing():
                still = max(0, int((min(self.launcher.ends.values(), default=0.0) - self.clock.now()) / BETWEEN))
            self.worked += (1 + still) * taken if self.ended == before else taken  # looks at which nothing happens are all alike
            self.clock.leap(self.clock.now() + (1 + still) * BETWEEN)
        gone, wanted = self.clock.now(), self.machines / self.seconds
        given, idle = len(self.idle) / gone, sorted(self.idle) or [0.0]
        figures = (wanted, given, given / wanted, statistics.fmean(idle), idle[int(len(idle) * 0.95)], self.worked / gone)
        return [self.machines, f"{self.seconds:g}", *(f"{figure:.3g}" for figure in figures)]

    def _look(self) -> None:
        """What docker_sdk_api/dispatch.py does once a second."""
        self.line.settle()
        with self.clock.standing():
            for known in [job for job, end in self.launcher.ends.items() if end <= self.clock.now()]:
                del self.launcher.ends[known]
                self.ended += 1
        while (turn := self.line.queue.take(self.line.room())) is not None:
            self._begin(turn)

    def _begin(self, turn: Entry) -> None:
        self.clock.spend(self.launch)
        self.line.queue.launched(turn.job)
        self.line.queue.begun(turn)
        self.idle.append(self.clock.now() - heappop(self.frees))
        self._runs(turn.job, self.numbers.uniform(0.5, 1.5) * self.seconds)


def process_launcher(home: Path) -> tuple[float, float]:
    """Seconds in which it launches a task, and says how one is that runs."""
    launcher = ProcessLauncher(home, {"majority": Path(sys.executable)})
    names = [f"task-{number}" for number in range(5)]
    for name in names:
        (home / name).mkdir()
    wait = ["-c", "import time; time.sleep(60)"]
    launch = median_ms(lambda number: launcher.launch(Task(names[number], "majority", wait, home / names[number])), len(names))
    poll = median_ms(lambda number: launcher.poll(names[number % len(names)]), 50)
    for name in names:
        launcher.stop(name, grace=0)
    return launch / 1000, poll / 1000


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("parts", nargs="*", default=[], help=" ".join(PARTS))
    asked.add_argument("--seconds", type=float, nargs="+", default=[60.0, 600.0], help="how long a job takes")
    asked.add_argument("--machines", type=int, nargs="+", default=MACHINES)
    given = asked.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no database is left behind
    parts, figures, rows = given.parts or PARTS, {}, []
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, ExitStack() as stack:
        home = Path(folder)
        found = databases(stack)
        if "queue" in parts:
            columns = ["database", "waiting", "put", "look", "take, none", "launched", "remove", "move", "plan", "starts"]
            print(f"milliseconds\n{table(columns, [transactions(home, name, url, n) for name, url in found.items() for n in WAITING])}\n")
        if "machines" in parts:
            (home / "tasks").mkdir()
            launch, poll = process_launcher(home / "tasks")
            print(f"the process launcher launches in {launch * 1000:.0f} ms and tells how a task is in {poll * 1000:.2f} ms")
            for name, url in found.items():
                for machines in given.machines:
                    for seconds in given.seconds:
                        place = home / f"{name}-{machines}-{seconds:g}"
                        place.mkdir()
                        rows.append([name, *Simulation(place, url, machines, seconds, launch, poll).run()])
                        figures[f"keeps_up_{name}_{machines}_{seconds:g}"] = float(str(rows[-1][5]))
                        print(*rows[-1], file=sys.stderr, flush=True)
                        shutil.rmtree(place)
    columns = ["database", "machines", "job, s", "free a second", "given", "kept up", "idle before a job, s", "95 %", "busy"]
    report(columns, rows, figures)


if __name__ == "__main__":
    main()
