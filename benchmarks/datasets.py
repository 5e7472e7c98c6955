"""What the check of a dataset costs: ./run/bench.sh datasets [--pictures 5000]

Draws pictures, then, in turn, merely decodes every picture and mask with Pillow in as many processes as the check has (A), and
checks them without anything kept from before (B). Then changes one file and checks again. `check_vs_decode` is the fastest B
over the fastest A, because whatever else runs on the machine only ever slows. `peak_mb` is the largest memory of the check's
process and all below it (proportional set size, so that pages which several share count once).
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from machine import report
from PIL import Image

from annotations.colours import class_colours
from annotations.doctor.check import check_dataset
from annotations.doctor.checking import AT_ONCE, OWN

ROUNDS = 5
SIZE = (640, 480)
CLASSES = '{"classes": 3, "classesname": ["background", "pad", "circle"]}'


def draw(folder: Path, start: int, stop: int) -> None:
    """Photographs, as JPEG: smooth colours with grain; masks with a few shapes, as PNG."""
    palette = [channel for colour in class_colours(3) for channel in colour]
    for index in range(start, stop):
        numbers = np.random.default_rng(index)
        coarse = Image.fromarray(numbers.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        grain = numbers.integers(-12, 13, (SIZE[1], SIZE[0], 1))
        picture = Image.fromarray(np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8))
        mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        y, x = np.mgrid[: SIZE[1], : SIZE[0]]
        for kind in (1, 2, 1, 2):
            left, top, radius = numbers.integers(0, SIZE[0]), numbers.integers(0, SIZE[1]), numbers.integers(20, 90)
            mask[(x - left) ** 2 + (y - top) ** 2 < radius**2] = kind
        picture.save(folder / "images" / f"p{index:05d}.jpg", quality=90)
        image = Image.fromarray(mask)
        image.putpalette(palette)
        image.save(folder / "labels" / f"p{index:05d}.png")


def decode(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def decode_all(folder: Path, processes: int) -> None:
    """Every picture with its mask, in portions as large as those of the check."""
    pairs = [[path, folder / "labels" / f"{path.stem}.png"] for path in sorted((folder / "images").iterdir())]
    portions = [[path for pair in pairs[start : start + AT_ONCE] for path in pair] for start in range(0, len(pairs), AT_ONCE)]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(decode, portions))


def check_all(folder: Path, processes: int) -> None:
    found = check_dataset(folder, processes=processes)
    if found.errors:
        sys.exit(f"the drawn dataset has errors: {found.errors[0]}")


def seconds(work: Callable[[Path, int], None], folder: Path, processes: int) -> float:
    started = time.perf_counter()
    work(folder, processes)
    return time.perf_counter() - started


class Memory:
    """The largest memory, in MB, of this process and all below it while the block runs."""

    def __enter__(self) -> "Memory":
        self.peak, self._over = 0.0, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            self.peak = max(self.peak, sum(proportional_kb(process) for process in family(os.getpid())) / 1000)


def family(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def proportional_kb(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def recheck(folder: Path, processes: int) -> float:
    """Seconds of a check after one mask has changed."""
    path = folder / "labels" / "p00000.png"
    with Image.open(path) as mask:
        changed = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    changed.save(path)
    return seconds(check_all, folder, processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    asked = parser.parse_args()
    processes = min(len(os.sched_getaffinity(0)), 8)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "drawn"
        for place in ("images", "labels"):
            (folder / place).mkdir(parents=True)
        (folder / "objectclasses.json").write_text(CLASSES)
        edges = np.linspace(0, asked.pictures, processes * 4 + 1).astype(int)
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("forkserver")) as pool:
            list(pool.map(draw, [folder] * (len(edges) - 1), edges[:-1].tolist(), edges[1:].tolist()))
        rows, times, peak = [], {"decode": [], "check": []}, 0.0
        for name, work in (("decode", decode_all), ("check", check_all)) * ROUNDS:
            shutil.rmtree(folder / OWN, ignore_errors=True)
            with Memory() as memory:
                times[name].append(seconds(work, folder, processes))
            peak = max(peak, memory.peak) if name == "check" else peak
            rows.append((name, f"{times[name][-1]:.1f}", f"{asked.pictures / times[name][-1]:.0f}", f"{memory.peak:.0f}"))
        again = recheck(folder, processes)
        rows.append(("check after one change", f"{again:.2f}", "", ""))
    ratio = min(times["check"]) / min(times["decode"])
    medians = statistics.median(times["check"]) / statistics.median(times["decode"])
    figures = {
        "check_vs_decode": round(ratio, 3),
        "check_vs_decode_medians": round(medians, 3),
        "recheck_s": round(again, 2),
        "peak_mb": round(peak),
    }
    report(("work", "seconds", "pictures/s", "MB"), rows, {**figures, "pictures": asked.pictures, "processes": processes})


if __name__ == "__main__":
    main()
