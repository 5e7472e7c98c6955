"""MXNet's own forward pass, the way the original serves it, to compare with: runs under the gluon engine's Python.

python served_gluon.py PARAMETERS CLASSES HEIGHT WIDTH: for every line, which names a float32 array (1, 3, height, width) on disk,
answers the seconds from the array in memory to the scores in memory, and writes the mask beside it as *.mask.npy. GluonCV's network as it
is loaded (not hybridised), `predict`, waited for.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mxnet as mx
    from gluoncv.model_zoo.fcn import FCN


def main() -> None:
    parameters, classes, height, width = sys.argv[1], *map(int, sys.argv[2:5])
    network = FCN(classes, backbone="resnet50", pretrained_base=False, aux=False, height=height, width=width)
    network.load_parameters(parameters)
    print("ready", flush=True)
    for line in sys.stdin:
        file = Path(line.strip())
        picture = np.load(file)
        started = time.perf_counter()
        scores = network.predict(mx.nd.array(picture))[0].asnumpy()
        seconds = time.perf_counter() - started
        np.save(file.with_suffix(".mask.npy"), scores[0].argmax(0).astype(np.uint8))
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
