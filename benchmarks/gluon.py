"""Pictures a second of the gluon engine, FCN-ResNet50 at 480²: ./run/bench.sh gluon [FOLDER] [--rounds 2] [--crop 480] [--batch 1]

The product's whole loop (a real job: reading, augmenting, learning, logging) against a plain GluonCV loop (eager, every step waited
for, one worker) and against the very same step fed with one batch from memory; in turn, A B C A B C. No auxiliary heads, the same
size, the same batch. FOLDER: a dataset with pictures of 480 pixels and more; without one it is drawn.
"""

from loops.compare import gluon_python, run

if __name__ == "__main__":
    run(__doc__, "gluon/fcn/resnet50", gluon_python(), 1, "vs_plain_loop", "--eager")
