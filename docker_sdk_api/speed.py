"""How fast trainings go on this machine: as jobs that ran here went, else the catalogue's figure scaled by a short probe.

The catalogue's seconds were measured on one machine (docs/networks.md). A finished job says what they are worth here.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import numpy as np

from annotations.split import Split
from contracts.answers import Speed
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job, JobStatus
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE, Network, find_network
from contracts.plain import read_plain
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.recommend import Place

SIDE = 256
"""Of the crop that the catalogue's seconds are for, in pixels."""
REFERENCE, CORES = 78e9, 2
"""What the probe finds on a core like those that the catalogue was measured on, held to AVX2, and how many of them there were."""
GAIN = 0.8
"""A processor that is so many times as fast in the probe is as fast to this power for a network, which also waits for memory."""
BFLOAT16 = 0.5
"""Of the time that a step takes where pytorch can multiply in bfloat16 on the CPU."""
ONLY_FORWARD = 1 / 3
"""Share of a training step that scoring the same pixels takes."""
ASPECT = 4 / 3
SHORTEST = 1.0
"""Seconds of an epoch below which it says more of the beginning and end of an epoch than of the network."""
LOOKED_AT, COUNTED = 40, 5
"""Jobs that are looked at, the newest first, and those of them that count."""
SECONDS_BETWEEN_LOOKS = 1.0
"""The wizard asks for every network at once."""
PROBE_SIDE, PROBE_STACK, PROBE_SECONDS = 64, 8, 0.1


@dataclass(frozen=True)
class Ran:
    """A finished job: what ran where, and how many times the catalogue's seconds it took."""

    key: str
    engine: str
    place: str
    ratio: float


class Speeds:
    """What the jobs of a checkpoints folder tell of this machine. Each is read once."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._read: dict[tuple[str, int], Ran | None] = {}
        self._looked: tuple[float, list[Ran]] = (-SECONDS_BETWEEN_LOOKS, [])

    def of(self, network: Network, place: Place, narrow: bool) -> Speed:
        """`narrow`: whether it learns in 16 bits there."""
        return speed_of(network, self.ran(), place, narrow)

    def ran(self) -> list[Ran]:
        """The newest jobs that have finished here and took long enough to tell something."""
        if time.monotonic() - self._looked[0] < SECONDS_BETWEEN_LOOKS:
            return self._looked[1]
        found: dict[tuple[str, int], Ran | None] = {}
        for name in self.jobs.names()[:LOOKED_AT]:
            folder = JobFolder(self.jobs.settings.checkpoints / name)
            if not folder.model.is_dir():
                continue
            key = (name, folder.job_file.stat().st_mtime_ns)
            found[key] = self._read[key] if key in self._read else read_ran(folder.job(), self.jobs.status(name), _sides(folder))
        self._read = found
        self._looked = (time.monotonic(), [row for row in found.values() if row is not None])
        return self._looked[1]


def speed_of(network: Network, ran: Sequence[Ran], place: Place, narrow: bool) -> Speed:
    """The best that is known: this network's own jobs, then those of others on its engine, then the probe."""
    if network.engine == "majority":
        return Speed(seconds=0.0, basis="There is nothing to learn, only pixels to count.")
    if not network.seconds:
        return Speed(seconds=None, basis="Nobody has measured this network yet.")
    gpu = place.gpu
    here = [row for row in ran if row.engine == network.engine and row.place == gpu]
    same = [row.ratio for row in here if row.key == network.key][:COUNTED]
    where = f"on the {gpu}" if gpu else "on this machine"
    if same:
        jobs = "the last training" if len(same) == 1 else f"the last {len(same)} trainings"
        return Speed(seconds=network.seconds * median(same), basis=f"As {jobs} of this network {where} took.")
    if here:
        ratio = median(row.ratio for row in here[:COUNTED])
        rough = " On a GPU networks differ, so that this is rough." if gpu else ""
        return Speed(seconds=network.seconds * ratio, basis=f"As measured elsewhere, scaled by what other trainings {where} took.{rough}")
    if gpu:
        return Speed(seconds=None, basis=f"No training has finished on the {gpu} yet: the first one tells how fast it is.")
    factor = (REFERENCE * CORES / (probe() * place.cores)) ** GAIN * (BFLOAT16 if narrow and network.engine == "pytorch" else 1)
    basis = "As measured elsewhere, scaled by a short probe of this processor: good to a factor of two, while nothing else runs."
    return Speed(seconds=network.seconds * factor, basis=basis)


def training_seconds(step: float, settings: Hyperparameters, training: int, validation: int) -> float:
    """Seconds of a whole training with so many pictures on each side, from those of a step on one crop of 256 × 256 pixels."""
    return step * settings.epochs * _crops(settings, training, validation)


def job_seconds(step: float, job: Job, split: Split) -> float:
    """Seconds of a whole job: its GPUs and its nodes share the work, while processes on one processor share that."""
    return training_seconds(step, job.hyperparameters, len(split.training), len(split.validation)) / ((len(job.gpus) or 1) * job.nodes)


def read_ran(job: Job, status: JobStatus, sides: tuple[int, int]) -> Ran | None:
    """What a finished job tells; None where it tells nothing: too short an epoch, several processes, a network that is gone."""
    rows = {row.key for row in CATALOGUE if row.seconds}
    key = f"{job.engine}/{job.network}/{job.backbone}"
    epochs = [scores.seconds for scores in status.history][1:]  # the first one also warms up
    if key not in rows or job.waggle or job.together > 1 or not epochs or median(epochs) < SHORTEST or not all(sides):
        return None
    network = find_network(job.engine, job.network, job.backbone)
    place = status.device.rsplit(", ", 1)[0] if job.gpus else ""
    return Ran(key, job.engine, place, median(epochs) / (network.seconds * _crops(job.hyperparameters, *sides)))


@lru_cache
def probe() -> float:
    """Multiplications and additions a second of one core, by products of matrices so small that one thread makes them: 0.1 s, once.

    It counts the thread's own processor time and takes the median, so that other programs do not count.
    """
    one = np.ones((PROBE_STACK, PROBE_SIDE, PROBE_SIDE), np.float32)
    other, product, times = one.copy(), np.empty_like(one), [0.0]
    while sum(times) < PROBE_SECONDS:
        started = time.thread_time()
        np.matmul(one, other, out=product)
        times.append(time.thread_time() - started)
    return 2 * PROBE_STACK * PROBE_SIDE**3 / median(times[2:])  # the first one reads the library


def _crops(settings: Hyperparameters, training: int, validation: int) -> float:
    """What an epoch costs, in training steps on one crop of 256 × 256 pixels."""
    learning = training * settings.crops_per_picture * settings.crop**2
    scoring = validation * settings.short_side**2 * ASPECT * ONLY_FORWARD / settings.validate_every
    return (learning + scoring) / SIDE**2


def _sides(folder: JobFolder) -> tuple[int, int]:
    """How many pictures taught and how many scored."""
    try:
        split = json.loads(read_plain(folder.split_file))
    except FileNotFoundError:
        return 0, 0
    return len(split["training"]), len(split["validation"])
