"""Pictures a second of the gluon engine, FCN-ResNet50 at 480²: ./run/bench.sh gluon [FOLDER] [--rounds 2] [--crop 480] [--batch 1]

The product's whole loop (a real job: reading, augmenting, learning, logging) against a plain GluonCV loop (eager, every step waited
for, one worker) and against the very same step fed with one batch from memory; in turn, A B C A B C. No auxiliary heads, the same
size, the same batch. FOLDER: a dataset with pictures of 480 pixels and more; without one it is drawn.
"""

import argparse
import tempfile
from pathlib import Path

from loops.compare import compare, gluon_python, photographs, report_figures

KEY = "gluon/fcn/resnet50"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--crop", type=int, default=480)
    parser.add_argument("--batch", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder.resolve() if asked.folder else photographs(Path(scratch) / "photographs")
        job, memory, plain = compare(folder, KEY, str(gluon_python()), asked.rounds, asked.crop, asked.batch, "--eager")
    report_figures("vs_plain_loop", job, memory, plain)


if __name__ == "__main__":
    main()
