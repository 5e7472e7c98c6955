"""Pictures a second of FCN-ResNet50 at 480²: ./run/bench.sh training [FOLDER] [--rounds 2] [--crop 480] [--batch 2]

The product's whole loop with the pytorch engine (a real job: reading, augmenting, learning, logging) against a plain GluonCV loop
on MXNet (hybridised, oneDNN) and against the very same step fed with one batch from memory; in turn, A B C A B C. No auxiliary
heads, the same size, the same batch. FOLDER: a dataset with pictures of 480 pixels and more; without one it is drawn.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from loops.compare import compare, photographs, report_figures

KEY = "pytorch/fcn/resnet50"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--crop", type=int, default=480)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder.resolve() if asked.folder else photographs(Path(scratch) / "photographs")
        job, memory, plain = compare(folder, KEY, sys.executable, asked.rounds, asked.crop, asked.batch)
    report_figures("vs_mxnet", job, memory, plain)


if __name__ == "__main__":
    main()
