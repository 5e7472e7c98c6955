"""A plain GluonCV training loop, as its users write it, to compare with: runs under the gluon engine's Python.

python plain_gluon.py FOLDER CROP BATCH [--eager]: each line that it reads says how many steps of FCN-ResNet50 to train, and is
answered with the seconds that they took. GluonCV's own dataset and augmentation, one worker, SGD; --eager: not hybridised, and every
step's loss is waited for.
"""

import argparse
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np
from gluoncv.data.segbase import SegmentationDataset
from gluoncv.loss import MixSoftmaxCrossEntropyLoss
from gluoncv.model_zoo.fcn import FCN
from mxnet import autograd, gluon
from mxnet.gluon.data.vision import transforms
from PIL import Image


class Folder(SegmentationDataset):
    """images/ and labels/ of a folder, paired by stem."""

    def __init__(self, root: Path, crop: int) -> None:
        normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
        super().__init__(str(root), "train", "train", normalise, base_size=round(crop * 520 / 480), crop_size=crop)
        masks = {path.stem: path for path in (root / "labels").iterdir()}
        self.pairs = [(path, masks[path.stem]) for path in sorted((root / "images").iterdir())]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple:
        picture, mask = self._sync_transform(*(Image.open(path) for path in self.pairs[index]))
        return self.transform(picture), mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("crop", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--eager", action="store_true")
    asked = parser.parse_args()
    data = Folder(asked.folder, asked.crop)
    classes = 1 + max(int(np.asarray(Image.open(mask)).max()) for _, mask in data.pairs)
    network = FCN(classes, backbone="resnet50", pretrained_base=False, aux=False, height=asked.crop, width=asked.crop)
    network.initialize(mx.init.Xavier())
    if not asked.eager:
        network.hybridize(static_alloc=True)
    loss_of = MixSoftmaxCrossEntropyLoss(aux=False)
    trainer = gluon.Trainer(network.collect_params(), "sgd", {"learning_rate": 0.001, "momentum": 0.9, "wd": 0.0001})
    batches = endless(gluon.data.DataLoader(data, asked.batch, shuffle=True, last_batch="rollover", num_workers=1))
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.monotonic()
        for _ in range(int(line)):
            pixels, masks = (part.as_in_context(mx.cpu()) for part in next(batches))  # out of the memory shared with the worker
            with autograd.record():
                loss = loss_of(*network(pixels), masks)
            loss.backward()
            trainer.step(asked.batch)
            if asked.eager:
                loss.asnumpy()
        mx.nd.waitall()
        print(time.monotonic() - started, flush=True)


def endless(loader: gluon.data.DataLoader):
    while True:
        yield from loader


if __name__ == "__main__":
    main()
