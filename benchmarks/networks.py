"""What every network costs: ./run/bench.sh networks [NETWORK/BACKBONE …] [--engine gluon]

Parameters, GFLOPs to read one picture of 256 × 256 pixels, and the seconds of a training step (forward, cross-entropy, backward,
AdamW) a crop of that size: float32, two crops a step, two threads held to AVX2, the faster of two steps. `seconds` are processor
time over threads, which is what two idle cores take, so that other programs do not count; `by the clock` is what passed.
"""

import os

os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OMP_WAIT_POLICY": "passive"}
os.environ |= {"DNNL_MAX_CPU_ISA": "AVX2"}  # its name in MXNet's oneDNN

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from loops.compare import gluon_python
from machine import report
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from contracts.networks import CATALOGUE, Network
from training_api.engines.pytorch_networks import build_network

SIDE, CROPS, STEPS, CLASSES, THREADS = 256, 2, 2, 2, 2


def measure(row: Network) -> tuple[float, float, float, float]:
    """Millions of parameters, GFLOPs a picture, processor seconds a crop over threads, seconds a crop by the clock."""
    network = build_network(row.network, row.backbone, CLASSES)
    parameters = sum(value.numel() for value in network.parameters()) / 1e6
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.randn(CROPS, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    masks = torch.randint(0, CLASSES, (CROPS, SIDE, SIDE))
    optimizer = torch.optim.AdamW(network.parameters())
    passed = [_step(network, optimizer, pixels, masks) for _ in range(STEPS)]
    wall, work = (min(times) / CROPS for times in zip(*passed, strict=True))
    return parameters, _gflops(network.to("meta").eval()), work / THREADS, wall


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, pixels: Tensor, masks: Tensor) -> tuple[float, float]:
    wall, work = time.monotonic(), time.process_time()
    optimizer.zero_grad(set_to_none=True)
    functional.cross_entropy(network(pixels), masks).backward()
    optimizer.step()
    return time.monotonic() - wall, time.process_time() - work


def _gflops(network: nn.Module) -> float:
    with FlopCounterMode(display=False) as count:
        network(torch.zeros(1, 3, SIDE, SIDE, device="meta"))
    return count.get_total_flops() / 1e9


def _pytorch(asked: list[str]) -> Iterator[tuple[str, float, float, float, float]]:
    torch.set_num_threads(THREADS)
    for row in CATALOGUE:
        name = f"{row.network}/{row.backbone}"
        if row.engine == "pytorch" and (not asked or name in asked):
            yield name, *measure(row)


def _gluon(asked: list[str]) -> Iterator[tuple[str, float, float, float, float]]:
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(here.parent)}
    command = [str(gluon_python()), str(here / "loops" / "gluon_networks.py"), *map(str, (SIDE, CROPS, THREADS)), *asked]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from (tuple(json.loads(line)) for line in process.stdout)
    if process.returncode:
        raise SystemExit(f"The gluon engine's part ended with exit code {process.returncode}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="such as unet/resnet18; none: all")
    parser.add_argument("--engine", choices=("pytorch", "gluon"), default="pytorch")
    wish = parser.parse_args()
    rows = []
    for name, parameters, gflops, seconds, clock in (_gluon if wish.engine == "gluon" else _pytorch)(wish.networks):
        rows.append((name, f"{parameters:.2f}", f"{gflops:.2f}", f"{seconds:.3f}", f"{clock:.2f}"))
        print(*rows[-1], file=sys.stderr)
    if not rows:
        parser.error(f"none of {', '.join(wish.networks)} is in the catalogue of the {wish.engine} engine")
    columns = ("network", "M parameters", "GFLOPs", "seconds", "by the clock")
    report(columns, rows, {row[0]: float(row[3]) for row in rows})


if __name__ == "__main__":
    main()
