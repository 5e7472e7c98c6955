"""What networks of the gluon engine cost: runs under its Python, and prints a line of JSON for each: name, millions of parameters,
GFLOPs a picture, processor seconds a crop over threads, seconds a crop by the clock.

python gluon_networks.py SIDE CROPS THREADS [NETWORK/BACKBONE …]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from annotations.dataset import Pair
from contracts.hyperparameters import Hyperparameters
from contracts.networks import CATALOGUE, Network
from training_api.data import Batch, Crops
from training_api.engines import Plan, create_engine
from training_api.engines.gluon import mx
from training_api.engines.gluon_networks import RECIPES

CLASSES = 2


class Drawn(Crops):
    """Batches of noise."""

    steps = 2

    def epoch(self, epoch: int):
        numbers = np.random.default_rng(epoch)
        shape = (self.settings.batch_size, self.settings.crop, self.settings.crop)
        for _ in range(self.steps):
            yield Batch(numbers.normal(size=(shape[0], 3, *shape[1:])).astype(np.float32), numbers.integers(0, CLASSES, shape, np.uint8))


def measure(row: Network, pair: Pair, side: int, crops: int, threads: int) -> list[object]:
    settings = Hyperparameters(batch_size=crops, crop=side, short_side=side, dice=0, average=0)
    engine = create_engine(Plan(row, settings, CLASSES, [0.5, 0.5], Drawn([pair], settings, 0), [], 0))
    passed = []
    wall, work = time.monotonic(), time.process_time()
    for step in engine.train_epoch(1):
        float(step.loss)
        mx.nd.waitall()
        passed.append((time.monotonic() - wall, time.process_time() - work))
        wall, work = time.monotonic(), time.process_time()
    clock, processor = (min(times) / crops for times in zip(*passed, strict=True))
    parameters = sum(int(np.prod(value.shape)) for value in engine.learning) / 1e6
    return [f"{row.network}/{row.backbone}", parameters, gflops(row, side), processor / threads, clock]


def gflops(row: Network, side: int) -> float:
    """Multiplications and additions of convolutions and products, of one picture."""
    network = RECIPES[row.network, row.backbone].make(CLASSES, height=side, width=side, aux=False)
    symbol = network(mx.sym.var("picture"))[0].get_internals()
    inputs, outputs, _ = symbol.infer_shape(picture=(1, 3, side, side))
    shapes = dict(zip(symbol.list_outputs(), outputs, strict=True)) | dict(zip(symbol.list_arguments(), inputs, strict=True))
    nodes = json.loads(symbol.tojson())["nodes"]
    count = 0.0
    for node in nodes:
        ends = [nodes[place]["name"] for place, *_ in node["inputs"]]
        result = int(np.prod(shapes.get(f"{node['name']}_output", (0,))))
        if node["op"] == "Convolution":
            count += 2 * result * int(np.prod(shapes[ends[1]][1:]))
        elif node["op"] == "batch_dot":
            first = shapes.get(f"{ends[0]}_output", (1, 1, 1))
            count += 2 * result * first[1 if node.get("attrs", {}).get("transpose_a") == "True" else 2]
    return count / 1e9


def main() -> None:
    side, crops, threads, *asked = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair("drawn", Path(folder) / "picture.png", Path(folder) / "mask.png")
        Image.new("L", (int(side), int(side))).save(pair.mask)  # the size that the network is served at
        for row in CATALOGUE:
            if row.engine == "gluon" and (not asked or f"{row.network}/{row.backbone}" in asked):
                print(json.dumps(measure(row, pair, int(side), int(crops), int(threads))), flush=True)


if __name__ == "__main__":
    main()
