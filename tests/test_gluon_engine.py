"""The gluon engine keeps its promises. MXNet needs packages of its own, so that every check runs in its own Python.

MASKWRIGHT_GLUON_PYTHON names that Python; without it, .venv-gluon in the repository (build/requirements/gluon.txt).
"""

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from contracts.events import now
from contracts.hyperparameters import read_hyperparameters
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE, find_network
from contracts.original import BACKBONES, Config
from contracts.original import NETWORKS as KNOWN_NETWORKS
from tests.conftest import draw_dataset, wait_for

REPOSITORY = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("MASKWRIGHT_GLUON_PYTHON", REPOSITORY / ".venv-gluon" / "bin" / "python"))
NETWORKS = ["fastscnn/fastscnn", "psp/resnet50"]
GLUON = [row for row in CATALOGUE if row.engine == "gluon"]
FAMILIES = sorted({row.network for row in GLUON})

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
place.mkdir(exist_ok=True)

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

def engine(pairs, name=name, seed=3, places=None, **changes):
    values = dict(epochs=2, batch_size=2, crop=64, short_side=64, crops_per_picture=2, workers=0, rare_class_share=0)
    settings = Hyperparameters(**(values | changes))
    network = find_network("gluon", *name.split("/"))
    plan = Plan(network, settings, 2, [0.7, 0.3], Crops(pairs, settings, seed), [], seed)
    if places is None:
        return create_engine(plan)
    from training_api.engines.gluon import GluonEngine
    return GluonEngine(plan, places)

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
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
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


EVERY = """
import onnxruntime
from contracts.networks import CATALOGUE

for row in CATALOGUE:
    if (row.engine, row.network) != ("gluon", name):
        continue
    key, folder = f"{row.network}/{row.backbone}", place / row.backbone
    folder.mkdir()
    trained = engine(pairs, key, crops_per_picture=1, batch_size=1, learning_rate=0.001)
    facts = answer[key] = {}
    facts["parameters"] = sum(value.data().size for value in trained.learning) / 1e6
    facts["losses"] = learn(trained, 1)
    trained.save(folder)
    trained.export(folder)
    tile = np.random.default_rng(0).normal(size=(1, 3, *trained.geometry.tile)).astype(np.float32)
    scores = trained.predict(tile)
    for pairs_of in (trained.network, trained.averaged):
        for value in pairs_of._collect_params_with_prefix().values():
            value.set_data(value.data() * 0)
    facts["emptied"] = bool(np.array_equal(trained.predict(tile), scores))
    trained.load(folder)
    facts["same"] = bool(np.array_equal(trained.predict(tile), scores))
    facts["shape"] = scores.shape
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    served = session.run(["scores"], {"picture": tile})[0]
    facts["difference"] = float(np.abs(served - scores).max() / np.abs(scores).max())
    facts["equal pixels"] = float((served.argmax(1) == scores.argmax(1)).mean())
    facts["largest"] = float(np.abs(scores).max())
    for path in folder.iterdir():
        path.unlink()
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_learns_crop_by_crop_is_kept_and_is_served_as_it_was_trained(tmp_path: Path, family: str) -> None:
    rows = {f"{row.network}/{row.backbone}": row for row in GLUON if row.network == family}
    answer = check(EVERY, tmp_path, family)
    assert set(answer) == set(rows)
    for key, facts in answer.items():
        assert facts["parameters"] == pytest.approx(rows[key].parameters, rel=0.01), key
        assert len(facts["losses"]) == 2
        assert all(0 < loss < 100 for loss in facts["losses"]), key
        assert not facts["emptied"]
        assert facts["same"], key
        assert facts["shape"] == [1, 2, 64, 96]
        assert facts["difference"] < 1e-3, key
        assert facts["equal pixels"] > 0.999, key


def test_the_gui_s_networks_are_there_with_the_defaults_that_its_clients_know() -> None:
    known = Config()
    for network in KNOWN_NETWORKS:
        for backbone in BACKBONES:
            settings = read_hyperparameters({}, find_network("gluon", network, backbone).defaults, "gluon")
            assert (settings.learning_rate, settings.momentum, settings.weight_decay) == (known.lr, known.momentum, known.weight_decay)
            assert (settings.batch_size, settings.epochs, settings.workers) == (known.batch_size, known.epochs, known.num_workers)
            assert (settings.crop, settings.short_side, settings.augment) == (known.crop_size, known.base_size, known.augment_data)
            assert (settings.optimizer, settings.schedule) == ("sgd", "poly")


ONE_CROP = """
alone = engine(pairs, batch_size=1)
norm = alone.network.head.psp.conv1[1]
learn(alone, 1)
answer["behind the pooling"] = [float(norm.running_mean.data().abs().max().asscalar()), float(norm.running_var.data().min().asscalar())]
two = engine(pairs)
learn(two, 1)
answer["of two"] = float(two.network.head.psp.conv1[1].running_mean.data().abs().max().asscalar())
"""


def test_one_crop_at_a_time_does_not_ruin_the_statistics_behind_a_pooling_to_one_pixel(tmp_path: Path) -> None:
    answer = check(ONE_CROP, tmp_path, "psp/resnet50")
    assert answer["behind the pooling"] == [0, 1]
    assert answer["of two"] > 0


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
loss = gluon.SegmentationLoss(np.ones(2), 1.0, [mx.cpu()])
scores = mx.nd.random.normal(shape=(1, 2, 8, 8))
scores.attach_grad()
mask = np.zeros((1, 8, 8), np.float32)
mask[:, :4], mask[:, :, 5:] = 1, 255
with gluon.autograd.record():
    value = loss([scores], [mx.nd.array(mask)])
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
mx = gluon.mx

def moved(steps=1, **changes):
    one = engine(pairs, **(dict(average=0, warm_up=0, weight_decay=0) | changes))
    before = [value.data().asnumpy() for value in one.learning]
    rates = []
    for step in one.train_epoch(1):
        rates.append(step.learning_rate)
        if len(rates) == steps:
            break
    after = [value.data().asnumpy() for value in one.learning]
    length = float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True))))
    return length, rates, one, before, after

still = dict(optimizer="sgd", momentum=0.0, learning_rate=0.5, clip=0.0)
answer["unclipped"], (answer["rate"],), first, _, free = moved(**still)
answer["clipped"], *_ = moved(**(still | dict(clip=0.001)))
answer["warm"], (answer["warm rate"],), *_ = moved(**(still | dict(clip=0.001, warm_up=0.9)))
plain = moved(steps=2, **(still | dict(learning_rate=0.001)))[-1]
kept = moved(steps=2, **(still | dict(learning_rate=0.001, momentum=0.9)))[-1]
answer["momentum"] = not all(np.allclose(a, b) for a, b in zip(plain, kept, strict=True))
answer["averaged"] = []
for average in (0.0, 0.9):
    one = moved(steps=2, average=average)[2]
    twin = one.averaged._collect_params_with_prefix()
    now = one.network._collect_params_with_prefix()
    answer["averaged"].append(all(np.array_equal(twin[n].data().asnumpy(), now[n].data().asnumpy()) for n in twin))

unknown = [pair("unknown", ignored=True), pair("unknown-too", ignored=True)]
answer["decay"] = []
for optimizer in ("sgd", "adamw"):
    one = engine(unknown, optimizer=optimizer, momentum=0.0, weight_decay=0.1, learning_rate=0.01, warm_up=0, clip=0, crops_per_picture=1)
    before = {value: value.data().asnumpy() for value in one.learning}
    (step,) = one.train_epoch(1)
    float(step.loss)
    shrunk = [value.data().asnumpy() / (1 - 0.1 * step.learning_rate) for value in before]
    answer["decay"].append([
        all(np.allclose(new, old, atol=1e-7) for value, new, old in zip(before, shrunk, before.values()) if old.ndim > 1),
        all(np.array_equal(value.data().asnumpy(), old) for value, old in before.items() if old.ndim == 1),
    ])

numbers = np.random.default_rng(1)
scores, truth = numbers.normal(size=(2, 3, 8, 8)).astype(np.float32), numbers.choice([0, 1, 2, 255], (2, 8, 8))
weights, known = np.array([0.5, 1.0, 1.5]), truth != 255
chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
each = weights[truth[known]]
entropy = -(each * np.log(np.moveaxis(chances, 1, 3)[known][np.arange(len(each)), truth[known]])).sum() / each.sum()
dice = [(2 * (chances[:, c] * (truth == c)).sum() + 1) / ((chances[:, c] * known).sum() + (truth == c).sum() + 1) for c in range(3)]
answer["expected"] = [float(entropy), float(entropy + 0.7 * (1 - np.mean(dice)))]
answer["losses"] = [
    float(gluon.SegmentationLoss(weights, share, [mx.cpu()])([mx.nd.array(scores)], [mx.nd.array(truth)]).asscalar()) for share in (0, 0.7)
]
answer["weights"] = [gluon._class_weights([0.75, 0.25], balance).tolist() for balance in (0, 1)]
answer["balance"] = [learn(engine(pairs, balance=balance), 1) for balance in (0.0, 1.0)]
answer["seeds"] = [learn(engine(pairs, seed=seed), 1) for seed in (3, 3, 4)]
answer["augment"] = [learn(engine(pairs, augment=augment), 1) for augment in (True, False)]

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


def test_every_setting_does_what_it_says(tmp_path: Path) -> None:
    answer = check(SETTINGS, tmp_path, NETWORKS[0])
    assert answer["rate"] == 0.5
    assert answer["clipped"] == pytest.approx(0.5 * 0.001, rel=0.01)
    assert answer["unclipped"] > 2 * answer["clipped"]
    assert answer["warm rate"] < answer["rate"] / 2
    assert answer["warm"] == pytest.approx(answer["warm rate"] * 0.001, rel=0.01)
    assert answer["momentum"]
    assert answer["averaged"] == [True, False]
    assert answer["decay"] == [[True, True], [True, True]], "what multiplies shrinks, norms and biases do not"
    assert answer["losses"] == pytest.approx(answer["expected"], rel=1e-5)
    assert answer["weights"] == [[1, 1], pytest.approx([0.5, 1.5])]
    assert answer["balance"][0] != answer["balance"][1]
    first, again, other = answer["seeds"]
    assert first == again != other
    assert answer["augment"][0] != answer["augment"][1]
    assert answer["matrices"] == [pytest.approx(line) for line in answer["pools"]]
    assert "(64, 96)" in answer["refused"]


SHARED = """
from training_api.engines import gluon
mx = gluon.mx

def parts(block):
    yield block
    for child in block._children.values():
        yield from parts(child)

def steady(places):
    \"\"\"An engine whose layers do not heed what else is in the batch, and drop nothing.\"\"\"
    one = engine(pairs, places=places, batch_size=4, crops_per_picture=4, learning_rate=0.01, optimizer="sgd", momentum=0.5, balance=0.5)
    for block in parts(one.network):
        if isinstance(block, gluon.gluon.nn.Dropout):
            block._rate = 0
        if isinstance(block, gluon.gluon.nn.BatchNorm):
            block._kwargs["use_global_stats"] = True
    one.network.hybridize(static_alloc=True)
    return one

alone, shared = steady([mx.cpu(0)]), steady([mx.cpu(0), mx.cpu(1)])
answer["losses"] = [learn(alone, 1), learn(shared, 1)]
answer["weights"] = max(float(np.abs(a - b).max()) for a, b in zip(weights(alone), weights(shared), strict=True))
answer["alike"] = all(
    np.array_equal(*(value.data(place).asnumpy() for place in shared.places)) for value in shared.network.collect_params().values()
)
answer["moved"] = float(max(np.abs(a - b).max() for a, b in zip(weights(steady([mx.cpu(0)])), weights(alone), strict=True)))

usual = engine(pairs, places=[mx.cpu(0), mx.cpu(1)], crops_per_picture=3)
saved = place / "last"
saved.mkdir()
learn(usual, 1)
usual.save(saved)
answer["unbroken"] = learn(usual, 2)
answer["statistics"] = all(np.array_equal(*(seen.asnumpy() for seen in value.list_data())) for value in usual.statistics)
resumed = engine(pairs, places=[mx.cpu(0), mx.cpu(1)], crops_per_picture=3)
resumed.load(saved)
answer["resumed"] = learn(resumed, 2)
answer["device"], answer["remarks"] = usual.device, usual.remarks
answer["too many"] = engine(pairs, places=[mx.cpu(place) for place in range(3)]).remarks
"""


def test_two_devices_that_share_a_batch_learn_what_one_learns_from_it(tmp_path: Path) -> None:
    answer = check(SHARED, tmp_path, NETWORKS[0])
    alone, shared = answer["losses"]
    assert len(alone) == 2
    assert shared == pytest.approx(alone, rel=1e-5)
    assert answer["weights"] < 1e-5 < answer["moved"]
    assert answer["alike"]
    assert answer["statistics"]
    assert answer["resumed"] == pytest.approx(answer["unbroken"], rel=1e-4), "what a sum of two is, is not said to the last digit"
    assert answer["device"].startswith("2 CPUs")
    assert "Batch norm averages over the 1 crops" in " ".join(answer["remarks"])
    assert "keeps only 2 of 3 GPUs busy" in " ".join(answer["too many"])


RESIZED = """
from training_api.engines import gluon_networks
mx = gluon_networks.mx
from mxnet import autograd

answer["scores"], answer["gradients"], answer["alike"] = [], [], []
for channels, rows, columns, height, width in ((2, 12, 12, 96, 96), (5, 1, 1, 8, 12), (3, 24, 16, 6, 5)):
    pixels = mx.nd.random.normal(shape=(2, channels, rows, columns))
    pixels.attach_grad()
    gradient = mx.nd.random.normal(shape=(2, channels, height, width))
    def once(function):
        with autograd.record():
            made = function()
        made.backward(gradient)
        return made.asnumpy(), pixels.grad.asnumpy()
    theirs = once(lambda: mx.nd.contrib.BilinearResize2D(pixels, height=height, width=width))
    ours = [once(lambda: gluon_networks.resize(pixels, height, width, F=mx.nd)) for _ in range(5)]
    answer["scores"].append(float(np.abs(theirs[0] - ours[0][0]).max()))
    answer["gradients"].append(float(np.abs(theirs[1] - ours[0][1]).max() / np.abs(theirs[1]).max()))
    answer["alike"].append(all(np.array_equal(ours[0][1], other[1]) for other in ours))
"""


def test_the_resize_to_learn_with_is_mxnet_s_with_the_same_gradient_every_time(tmp_path: Path) -> None:
    answer = check(RESIZED, tmp_path, NETWORKS[0])
    assert max(answer["scores"]) < 1e-4
    assert max(answer["gradients"]) < 1e-4
    assert answer["alike"] == [True, True, True]


# Whole jobs


def write_job(folder: Path, dataset: Path, **settings: object) -> JobFolder:
    folder.mkdir(parents=True)
    small = {"crop": 64, "short_side": 64, "batch_size": 2, "crops_per_picture": 2, "workers": 1, "epochs": 3, "learning_rate": 0.005}
    job = Job(
        name=folder.name,
        dataset=dataset.name,
        engine="gluon",
        network="fastscnn",
        backbone="fastscnn",
        dataset_folder=dataset,
        created=now(),
        hyperparameters=read_hyperparameters({**small, **settings}, {}, "gluon"),
    )
    JobFolder(folder).write_job(job)
    return JobFolder(folder)


def start(folder: JobFolder) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}  # with all processors
    command = [str(PYTHON), "-m", "training_api", str(folder.path)]
    with folder.log_file.open("ab") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=environment)


def run(folder: JobFolder) -> None:
    assert start(folder).wait(240) == 0, folder.log_file.read_text()


def rows(folder: JobFolder) -> list[dict[str, str]]:
    """Of log.csv, without the seconds that an epoch took."""
    lines = folder.figures_file.read_text().splitlines() if folder.figures_file.exists() else []
    return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(lines)]


SLOW = """
import sys, time
from pathlib import Path
from contracts.job_folder import JobFolder
from training_api import train
from training_api.figures import Events

# Slower than the clock that the steps are written down by, so that there is time to kill it in the middle of an epoch.
train.Training._heed = lambda self, step: time.sleep(0.7)
folder = JobFolder(Path(sys.argv[1]))
train.train(folder, Events(folder))
"""


def kill_in(folder: JobFolder, epoch: int) -> None:
    """Start or resume a job, and end it with SIGKILL when the first steps of an epoch were written down and the epoch was not."""
    with folder.log_file.open("ab") as log:
        process = subprocess.Popen([str(PYTHON), "-c", SLOW, str(folder.path)], cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or any(row["epoch"] == str(epoch) for row in rows(folder)), 120)
        assert process.poll() is None, folder.log_file.read_text()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(10)
    assert not any(event.event == "epoch" and event.scores.epoch >= epoch for event in folder.events()), "killed too late"


def test_a_job_that_is_killed_in_an_epoch_and_resumed_ends_with_the_scores_of_an_unbroken_one(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path / "datasets" / "plates", pictures=8)
    whole, broken = (write_job(tmp_path / "checkpoints" / name, dataset) for name in ("whole", "broken"))
    run(whole)
    for epoch in (1, 3):
        kill_in(broken, epoch)
    run(broken)
    histories = [
        [event.scores.model_dump(exclude={"seconds"}) for event in job.events() if event.event == "epoch"] for job in (whole, broken)
    ]
    assert [scores["epoch"] for scores in histories[0]] == [1, 2, 3]
    assert histories[0] == histories[1]
    assert rows(whole) == rows(broken)
    assert rows(whole)[-1]["epoch"] == "3"


def test_a_job_without_gain_ends_early(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path / "datasets" / "plates")
    job = write_job(tmp_path / "checkpoints" / "patient", dataset, patience=1, epochs=9, learning_rate=1e-12)
    run(job)
    (ended,) = [event for event in job.events() if event.event == "ended_early"]
    scores = [event.scores.mean_iou for event in job.events() if event.event == "epoch"]
    assert len(scores) == ended.epoch < 9
    assert scores[-1] <= scores[-2], "the last epoch brought nothing"
