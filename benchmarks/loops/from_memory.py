"""The steps of an engine fed with one batch from memory, again and again: what the loop around them may not slow down.

python from_memory.py FOLDER KEY [key=value …]: each line that it reads says how many steps to train, and is
answered with the seconds that they took. Runs under the engine's Python.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from annotations.dataset import open_dataset
from contracts.hyperparameters import read_hyperparameters
from contracts.networks import find_network
from training_api.data import Batch, Crops
from training_api.engines import Plan, create_engine


class OneBatch(Crops):
    """An epoch of so many times the same batch, after one to begin with."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        batch = next(super().epoch(epoch))
        for _ in range(1 + self.repeats):
            yield batch

    repeats = 1


def main() -> None:
    folder, key, *pairs = sys.argv[1:]
    network = find_network(*key.split("/"))
    values = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    settings = read_hyperparameters(values, network.defaults)
    dataset = open_dataset(Path(folder))
    crops = OneBatch(dataset.pairs, settings, 0)
    classes = len(dataset.classes)
    plan = Plan(network=network, settings=settings, classes=classes, class_shares=[1 / classes] * classes, crops=crops, gpus=[], seed=0)
    engine = create_engine(plan)
    print("ready", flush=True)
    for round_, line in enumerate(sys.stdin, start=1):
        crops.repeats = int(line)
        learning = engine.train_epoch(round_)
        first = next(learning)  # drawn and learnt before the clock starts
        float(first.loss)
        started = time.monotonic()
        for step in learning:
            last = step
        float(last.loss)
        print(time.monotonic() - started, flush=True)


if __name__ == "__main__":
    main()
