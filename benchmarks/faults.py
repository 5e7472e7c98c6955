"""What is lost when something is killed: ./run/bench.sh faults --rounds 50 [--engine-too "systemctl restart docker"]

Each round submits a short job and then kills, at a random instant, one of the services or a training (half of these while it
writes a checkpoint); with --engine-too trainings are containers, and the engine is restarted by that command, too. Services are
started again, trainings that failed are resumed. In the end every job must have finished with a sound model.
"""

import argparse
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from loops.services import NETWORK, QUICK, SERVICES, Services
from machine import report

from annotations.dataset import open_dataset
from contracts.durable import damage
from contracts.events import EpochDone, Finished, Started
from contracts.job_folder import JobFolder
from contracts.model import read_model

EVERY = 5
"""One job of so many trains a network."""
AT_ONCE = 3
"""So many jobs run at most before the next one is submitted: the machine is to be tried by faults, not by load."""


class Stage(Services):
    """The services, and what was seen of them. `engine`: a command that restarts the engine; trainings are containers then."""

    def __init__(self, folder: Path, engine: str = "") -> None:
        self.engine = engine
        self.submitted: list[str] = []
        self.kills: Counter[str] = Counter()
        self.doubled: set[str] = set()
        self.false: set[str] = set()
        super().__init__(folder, LAUNCHER="container" if engine else "process")

    def submit(self, name: str, wish: dict[str, Any]) -> None:
        super().submit(name, wish)
        self.submitted.append(name)

    def look(self) -> dict[str, str]:
        """The state of every submitted job as the service tells it; what it should not have told is noted."""
        views = self.states()
        for name, pids in self.trainings().items():
            if len(pids) > 1:
                self.doubled.add(name)
        for name, state in views.items():
            if state == "finished" and not (self.ended_well(name) and (self.job(name).model / "model.json").exists()):
                self.false.add(name)
        return {name: views.get(name, "lost") for name in self.submitted}

    def ended_well(self, name: str) -> bool:
        return any(isinstance(event, Finished) for event in self.job(name).events()[-1:])

    def kill(self, chance: random.Random) -> None:
        """One of the services, a training, or the engine."""
        victim = chance.choice([*SERVICES, "training", "training", "training", *(["engine"] if self.engine else [])])
        running = [(name, pids[0]) for name, pids in self.trainings().items()]
        if victim == "training" and running:
            name, pid = chance.choice(running)
            new = self.job(name).last.with_name(".last.new")
            deadline = time.monotonic() + 2 * chance.randrange(2)
            while time.monotonic() < deadline and not new.exists():
                pass  # a checkpoint of these jobs is written within milliseconds
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self.kills["training, in a checkpoint" if new.exists() else "training"] += 1
        elif victim == "engine":
            subprocess.run(shlex.split(self.engine), check=True, timeout=120)
            self.kills[victim] += 1
        elif victim in SERVICES:
            self.processes[victim].kill()
            self.processes[victim].wait()
            self.start(victim)
            self.kills[victim] += 1

    def resume_failed(self) -> None:
        for name, state in self.look().items():
            if state == "failed":
                self.ask("POST", f"/v1/jobs/{name}/resume")

    def end(self) -> None:
        for name, pids in self.trainings().items():
            if name in self.submitted:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
        super().end()


def epochs_lost(folder: JobFolder) -> int:
    """The most epochs that were told as done and had to be learnt again, in one restart."""
    told, most = 0, 0
    for event in folder.events():
        if isinstance(event, Started):
            most, told = max(most, told - event.from_epoch), event.from_epoch
        elif isinstance(event, EpochDone):
            told = event.scores.epoch
    return most


def is_sound(stage: Stage, name: str) -> bool:
    """Whether a finished job's model is the one of its best weights and answers."""
    folder = stage.job(name)
    picture = open_dataset(stage.folder / "datasets" / "plates").pairs[0].picture
    answer = stage.ask("POST", f"/v1/models/{name}/predict", "inference_api", files={"picture": picture.read_bytes()})
    whole = damage(folder.best) == damage(folder.last) == ""
    best = json.loads((folder.best / "progress.json").read_bytes())["best"]["epoch"]
    return answer.status_code == 200 and whole and read_model(folder.model).scores.epoch == best


def play(stage: Stage, rounds: int, chance: random.Random) -> None:
    for number in range(rounds):
        wish = NETWORK if number % EVERY == EVERY - 1 else QUICK
        while sum(state not in ("finished", "stopped") for state in stage.look().values()) >= AT_ONCE:
            stage.resume_failed()
            time.sleep(0.2)
        stage.submit(f"job-{number}", {**wish, "seed": number})
        time.sleep(chance.uniform(0, 3))
        stage.kill(chance)
        stage.resume_failed()


def finish(stage: Stage, minutes: float) -> dict[str, str]:
    """Let all jobs come to their end; how they stand then."""
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        stage.resume_failed()
        states = stage.look()
        if all(state == "finished" for state in states.values()):
            break
        time.sleep(0.5)
    return stage.look()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine-too", default="", metavar="COMMAND", help="trainings as containers; this command restarts their engine")
    parser.add_argument("--minutes", type=float, default=10, help="for the last jobs to end")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        stage = Stage(Path(scratch).resolve(), asked.engine_too)
        try:
            play(stage, asked.rounds, random.Random(asked.seed))
            states = finish(stage, asked.minutes)
            finished = [name for name, state in states.items() if state == "finished"]
            folders = [stage.job(name) for name in states if stage.job(name).exists()]
            twice = {folder.name for folder in folders if sum(isinstance(event, Finished) for event in folder.events()) > 1}
            for name, state in states.items():
                if state != "finished":
                    print(f"{name}: {state}; {stage.ask('GET', f'/v1/jobs/{name}').text[:600]}", file=sys.stderr)
            crashes = sum(len(re.findall("Traceback", (stage.folder / f"{name}.log").read_text())) for name in SERVICES)
            figures = {
                "jobs_lost": len(states) - len(finished),
                "jobs_doubled": len(stage.doubled | twice),
                "false_finished": len(stage.false),
                "damaged_models": sum(not is_sound(stage, name) for name in finished),
                "epochs_lost_max": max(map(epochs_lost, folders), default=0),
                "tracebacks": crashes,
            }
        finally:
            stage.end()
    report(("killed", "times"), [(name, str(count)) for name, count in sorted(stage.kills.items())], figures)


if __name__ == "__main__":
    main()
