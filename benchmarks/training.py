"""Pictures a second of FCN-ResNet50 at 480²: ./run/bench.sh training [FOLDER] [--rounds 2] [--crop 480] [--batch 2]

The product's whole loop with the pytorch engine (a real job: reading, augmenting, learning, logging) against a plain GluonCV loop
on MXNet (hybridised, oneDNN) and against the very same step fed with one batch from memory; in turn, A B C A B C. No auxiliary
heads, the same size, the same batch. FOLDER: a dataset with pictures of 480 pixels and more; without one it is drawn.
"""

import sys
from pathlib import Path

from loops.compare import run

if __name__ == "__main__":
    run(__doc__, "pytorch/fcn/resnet50", Path(sys.executable), 2, "vs_mxnet")
