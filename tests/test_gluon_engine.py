"""The gluon engine keeps its promises. MXNet needs packages of its own, so that every check runs in its own Python.

MASKWRIGHT_GLUON_PYTHON names that Python; without it, .venv-gluon in the repository (build/requirements/gluon.txt).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("MASKWRIGHT_GLUON_PYTHON", REPOSITORY / ".venv-gluon" / "bin" / "python"))
NETWORKS = ["fastscnn/fastscnn", "fcn/resnet50"]

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=f"no Python with MXNet at {PYTHON} (MASKWRIGHT_GLUON_PYTHON)")

PREAMBLE = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
from annotations.dataset import Pair
from contracts.hyperparameters import Hyperparameters
from contracts.networks import find_network
from training_api.data import Crops
from training_api.engines import Plan, create_engine

place, name = Path(sys.argv[1]), sys.argv[2]

def pair(stem, ignored=False):
    numbers = np.random.default_rng(len(stem))
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 20:60] = 1
    picture = numbers.integers(0, 90, (64, 96, 3), np.uint8)
    picture[mask == 1] += 120
    mask[:, 60:] = 255
    files = place / f"{stem}.png", place / f"{stem}.mask.png"
    Image.fromarray(picture).save(files[0])
    Image.fromarray(np.full_like(mask, 255) if ignored else mask).save(files[1])
    return Pair(stem, *files)

def engine(pairs, **changes):
    values = dict(epochs=2, batch_size=2, crop=64, short_side=64, crops_per_picture=2, workers=0, rare_class_share=0)
    settings = Hyperparameters(**(values | changes))
    network = find_network("gluon", *name.split("/"))
    return create_engine(Plan(network, settings, 2, [0.7, 0.3], Crops(pairs, settings, 3), [], 3))

def learn(engine, epoch):
    return [float(step.loss) for step in engine.train_epoch(epoch)]

def weights(engine):
    return [value.data().asnumpy() for value in engine.network._collect_params_with_prefix().values()]

pairs = [pair("a"), pair("bb")]
answer = {}
"""


def check(script: str, place: Path, network: str) -> dict[str, object]:
    """Run a script in the Python with MXNet; it fills `answer`."""
    program = PREAMBLE + script + "\nprint(json.dumps(answer))"
    command = [str(PYTHON), "-c", program, str(place), network]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is printed beside the answer"
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


LIFE = """
import onnx, onnxruntime

def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))

unbroken = engine(pairs)
before = weights(unbroken)
answer["losses"] = learn(unbroken, 1)
answer["moved"] = any(not np.array_equal(old, new) for old, new in zip(before, weights(unbroken), strict=True))
saved, model = place / "last", place / "model"
saved.mkdir(), model.mkdir()
unbroken.save(saved)
answer["unbroken"] = learn(unbroken, 2)

resumed = engine(pairs)
resumed.load(saved)
answer["resumed"] = learn(resumed, 2)
answer["same weights"] = same(unbroken, resumed)
tile = np.random.default_rng(0).normal(size=(1, 3, *resumed.geometry.tile)).astype(np.float32)
scores = resumed.predict(tile)
answer["same scores"] = bool(np.array_equal(scores, unbroken.predict(tile)))
answer["shape"], answer["kind"] = scores.shape, str(scores.dtype)

resumed.export(model)
answer["files"] = sorted(path.name for path in model.iterdir())
session = onnxruntime.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
answer["inputs"] = [(value.name, value.shape) for value in session.get_inputs()]
answer["outputs"] = [(value.name, value.shape) for value in session.get_outputs()]
served = session.run(["scores"], {"picture": tile})[0]
answer["difference"] = float(np.abs(served - scores).max() / np.abs(scores).max())
answer["equal pixels"] = float((served.argmax(1) == scores.argmax(1)).mean())
"""


@pytest.mark.parametrize("network", NETWORKS)
def test_learns_goes_on_to_the_bit_and_exports_what_it_predicts(tmp_path: Path, network: str) -> None:
    answer = check(LIFE, tmp_path, network)
    assert len(answer["losses"]) == 2
    assert all(0 < loss < 100 for loss in answer["losses"])
    assert answer["moved"]
    assert answer["resumed"] == answer["unbroken"]
    assert answer["same weights"]
    assert answer["same scores"]
    assert (answer["shape"], answer["kind"]) == ([1, 2, 64, 96], "float32")
    assert answer["files"] == ["model.onnx", "model_best.params"]
    assert answer["inputs"] == [["picture", [1, 3, 64, 96]]]
    assert answer["outputs"] == [["scores", [1, 2, 64, 96]]]
    assert answer["difference"] < 1e-4
    assert answer["equal pixels"] > 0.999


IGNORED = """
unknown = engine([pair("a", ignored=True)], weight_decay=0)
trained = {name for name, value in unknown.network._collect_params_with_prefix().items() if value.grad_req != "null"}
def learnt():
    parameters = unknown.network._collect_params_with_prefix()
    return {name: parameters[name].data().asnumpy() for name in trained}
before = learnt()
answer["losses"] = learn(unknown, 1)
answer["moved"] = [name for name, value in learnt().items() if not np.array_equal(value, before[name])]

from training_api.engines import gluon
mx = gluon.mx
loss = gluon.SegmentationLoss(np.ones(2), 1.0)
loss.initialize()
scores = mx.nd.random.normal(shape=(1, 2, 8, 8))
scores.attach_grad()
mask = np.zeros((1, 8, 8), np.float32)
mask[:, :4], mask[:, :, 5:] = 1, 255
with gluon.autograd.record():
    value = loss(scores, mx.nd.array(mask))
value.backward()
gradient = np.abs(scores.grad.asnumpy()).sum(axis=1)
answer["ignored"], answer["known"] = float(gradient[mask == 255].max()), float(gradient[mask != 255].min())
"""


def test_a_pixel_that_nobody_knows_teaches_nothing(tmp_path: Path) -> None:
    answer = check(IGNORED, tmp_path, NETWORKS[0])
    assert answer["losses"] == [0]
    assert answer["moved"] == []
    assert answer["ignored"] == 0
    assert answer["known"] > 0


SETTINGS = """
from training_api.engines import gluon
runs = [dict(optimizer="sgd", schedule="poly", clip=0), dict(balance=1.0, dice=0, average=0)]
answer["losses"] = [learn(engine(pairs, **changes), 1) for changes in runs]
answer["again"] = learn(engine(pairs, **runs[1]), 1)

from training_api.engines.gluon_onnx import averaging
def pool(length, bins):
    line = gluon.mx.nd.arange(length).reshape((1, 1, 1, length))
    return gluon.mx.nd.contrib.AdaptiveAvgPooling2D(line, output_size=(1, bins)).asnumpy().ravel().tolist()
answer["pools"] = [pool(7, 3), pool(2, 6)]
answer["matrices"] = [(averaging(length, bins) @ np.arange(length)).tolist() for length, bins in ((7, 3), (2, 6))]
try:
    engine(pairs).predict(np.zeros((1, 3, 32, 32), np.float32))
except ValueError as error:
    answer["refused"] = str(error)
"""


def test_other_settings_learn_too_and_the_same_seed_gives_the_same_losses(tmp_path: Path) -> None:
    answer = check(SETTINGS, tmp_path, NETWORKS[0])
    assert all(0 < loss < 100 for losses in answer["losses"] for loss in losses)
    assert answer["again"] == answer["losses"][1]
    assert answer["matrices"] == [pytest.approx(line) for line in answer["pools"]]
    assert "(64, 96)" in answer["refused"]
