"""How a network learns: losses, schedules, parts of a batch, numbers, memory, and an end that comes early."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annotations.dataset import IGNORE, open_dataset
from contracts.errors import Invalid
from contracts.events import fold
from contracts.hyperparameters import Hyperparameters, describe_hyperparameters, read_hyperparameters
from contracts.networks import find_network
from tests.conftest import ROOT
from tests.test_training import SMALL, run, states, write_job
from training_api.data import Crops
from training_api.engines import Plan
from training_api.engines.pytorch import PytorchEngine
from training_api.engines.pytorch_losses import cross_entropy, dice_loss, known_weight, lovasz_loss
from training_api.engines.pytorch_memory import Fit, parts_that_fit
from training_api.engines.pytorch_networks import build_network
from training_api.memory import free_memory
from training_api.schedule import learning_rate, momentum

WEIGHTS = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
TINY = {**SMALL, "epochs": 3, "workers": 0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures are so small here that threads wait for one another most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def engine_for(dataset: Path, **settings: object) -> PytorchEngine:
    opened = open_dataset(dataset)
    values = Hyperparameters.model_validate({**TINY, **settings})
    crops = Crops(list(opened.pairs), values, seed=3)
    network = find_network("pytorch", "unet", "resnet18")
    return PytorchEngine(Plan(network, values, len(opened.classes), [0.8, 0.15, 0.05], crops, gpus=[], seed=3))


def learn(engine: PytorchEngine, *epochs: int) -> list[float]:
    return [float(step.loss) for epoch in epochs for step in engine.train_epoch(epoch)]


def some_scores() -> tuple[Tensor, Tensor]:
    """Scores of 4 crops and their masks; a part of the second one nobody knows."""
    torch.manual_seed(1)
    masks = torch.randint(0, 3, (4, 8, 8))
    masks[1, :5] = IGNORE
    return torch.randn(4, 3, 8, 8, dtype=torch.float64), masks


@pytest.mark.parametrize("recipe", [{}, {"smoothing": 0.1}, {"focal": 2.0}, {"smoothing": 0.2, "focal": 1.0}], ids=str)
def test_the_cross_entropy_of_the_parts_adds_up_to_that_of_the_batch(recipe: dict[str, float]):
    scores, masks = some_scores()
    whole = known_weight(masks, WEIGHTS)
    at_once = cross_entropy(scores, masks, WEIGHTS, whole, **recipe)
    parts = [cross_entropy(scores[some], masks[some], WEIGHTS, whole, **recipe) for some in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), at_once)


def test_plain_settings_give_the_cross_entropy_that_everybody_knows():
    scores, masks = some_scores()
    known = nn.functional.cross_entropy(scores, masks, WEIGHTS, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(scores, masks, WEIGHTS, known_weight(masks, WEIGHTS)), known)


def test_a_focal_loss_counts_a_pixel_by_what_is_missing_to_certainty():
    scores, masks = torch.tensor([[[[0.0]], [[2.0]]]]), torch.ones(1, 1, 1, dtype=torch.long)
    certainty = scores.softmax(1)[0, 1, 0, 0]
    loss = cross_entropy(scores, masks, torch.ones(2), torch.tensor(1.0), focal=2.0)
    torch.testing.assert_close(loss, -((1 - certainty) ** 2) * certainty.log())


def losses(scores: Tensor, masks: Tensor) -> Tensor:
    entropy = cross_entropy(scores, masks, WEIGHTS, known_weight(masks, WEIGHTS), smoothing=0.1, focal=2.0)
    return torch.stack([entropy, dice_loss(scores, masks), lovasz_loss(scores, masks)])


def test_pixels_that_nobody_knows_are_no_part_of_any_loss():
    scores, masks = some_scores()
    others = scores.clone()
    others[1, :, :5] = 9 * torch.randn(3, 5, 8)
    torch.testing.assert_close(losses(others, masks), losses(scores, masks))


def test_a_batch_that_nobody_knows_anything_of_teaches_nothing_and_breaks_nothing():
    scores, masks = some_scores()
    scores.requires_grad_()
    loss = losses(scores, torch.full_like(masks, IGNORE))
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0]
    assert not scores.grad.any()


def test_the_lovasz_loss_of_a_certain_answer_is_one_minus_its_iou():
    """Hard answers: the extension meets the loss that it extends."""
    _, masks = some_scores()
    answers = masks.where(masks != IGNORE, 0).roll(1, dims=2)
    hard = 200 * nn.functional.one_hot(answers, 3).permute(0, 3, 1, 2).double()
    expected = []
    for mask, answer in zip(masks, answers, strict=True):
        for kind in range(3):
            truth, seen = mask == kind, (answer == kind) & (mask != IGNORE)
            if truth.any():
                expected.append(1 - ((truth & seen).sum() / (truth | seen).sum()).double())
    torch.testing.assert_close(lovasz_loss(hard, masks), torch.stack(expected).mean())


def test_one_cycle_swings_the_momentum_against_the_rate_and_ends_next_to_nothing():
    settings = Hyperparameters(schedule="one_cycle", learning_rate=1.0, warm_up=0.3)
    rates, kept = ([curve(settings, step, 1000) for step in range(1000)] for curve in (learning_rate, momentum))
    assert max(rates) == pytest.approx(1, rel=0.01)
    assert rates[-1] < 2e-4
    assert (min(kept), kept[0], kept[-1]) == (pytest.approx(0.85, abs=1e-3), pytest.approx(0.95, abs=1e-3), pytest.approx(0.95, abs=1e-3))
    assert np.corrcoef(rates, kept)[0, 1] < -0.999
    assert {momentum(Hyperparameters(schedule="cosine"), step, 10) for step in range(10)} == {0.9}


def test_the_optimiser_follows_the_schedule(dataset: Path):
    for optimizer, read in (("adamw", lambda group: group["betas"][0]), ("sgd", lambda group: group["momentum"])):
        engine = engine_for(dataset, optimizer=optimizer, schedule="one_cycle", warm_up=0.0)
        learn(engine, 1)
        last = engine.step - 1
        for group in engine.optimizer.param_groups:
            assert group["lr"] == learning_rate(engine.settings, last, engine.steps)
            assert read(group) == momentum(engine.settings, last, engine.steps)


def test_a_batch_in_parts_makes_the_step_of_the_whole_batch(dataset: Path):
    """Batch norm is held still, which sees each part by itself, and Dice left out, which is a mean over the parts."""
    after = []
    for parts in (1, 3):
        engine = engine_for(dataset, accumulate=parts, optimizer="sgd", dice=0.0, balance=0.5, precision="float32")
        for module in engine.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().train = lambda _mode: None
        after.append((learn(engine, 1), torch.cat([value.detach().flatten() for value in engine.network.parameters()])))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    torch.testing.assert_close(after[0][1], after[1][1], rtol=1e-4, atol=1e-6)


BUNDLES = [
    {"accumulate": 2, "schedule": "one_cycle", "focal": 1.0, "lovasz": 0.5, "label_smoothing": 0.1, "balance": 0.5},
    {"optimizer": "sgd", "schedule": "poly", "average": 0.0, "dice": 0.0, "clip": 0.0, "precision": "bfloat16"},
]


@pytest.mark.parametrize("settings", BUNDLES, ids=("every loss in parts", "sgd in bfloat16"))
def test_what_is_resumed_after_an_epoch_of_three_ends_at_the_same_bits(tmp_path: Path, dataset: Path, settings: dict[str, object]):
    whole, broken = engine_for(dataset, **settings), engine_for(dataset, **settings)
    expected = learn(whole, 1, 2, 3)
    begun = learn(broken, 1)
    broken.save(tmp_path)
    torch.manual_seed(99)
    resumed = engine_for(dataset, **settings)
    resumed.load(tmp_path)
    assert begun + learn(resumed, 2, 3) == expected
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.averaged[name], resumed.averaged[name]), name


def test_trying_a_batch_out_changes_neither_weights_nor_what_is_drawn_next(dataset: Path):
    engine = engine_for(dataset)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    untried = build_network("unet", "resnet18", 3)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in untried.state_dict().items():
        assert torch.equal(value, engine.network.state_dict()[name]), name


def test_what_is_learnt_in_narrow_numbers_answers_in_float32(tmp_path: Path, dataset: Path):
    narrow, wide = engine_for(dataset, precision="bfloat16"), engine_for(dataset, precision="float32")
    assert ("bfloat16" in narrow.device, "float32" in wide.device) == (True, True)
    assert learn(narrow, 1) != learn(wide, 1)
    narrow.save(tmp_path)
    wide.load(tmp_path)
    picture = np.random.default_rng(0).normal(size=(1, 3, 48, 64)).astype(np.float32)
    np.testing.assert_array_equal(narrow.predict(picture), wide.predict(picture))


def test_float16_is_refused_on_a_processor(dataset: Path):
    with pytest.raises(Invalid, match=r"float16 needs a GPU.* Set precision to auto"):
        engine_for(dataset, precision="float16")


def test_a_setting_that_the_engine_does_not_heed_is_refused_and_shown_as_such():
    assert read_hyperparameters({"lovasz": 0.5}, {}, "pytorch").lovasz == 0.5
    assert read_hyperparameters({"lovasz": 0.0}, {}, "gluon").lovasz == 0.0
    with pytest.raises(Invalid, match=r"The engine gluon does not heed the setting lovasz. .* choose the engine pytorch"):
        read_hyperparameters({"lovasz": 0.5}, {}, "gluon")
    with pytest.raises(Invalid, match=r"majority does not heed the setting dice. .* pytorch or gluon"):
        read_hyperparameters({"dice": 0.5}, {}, "majority")
    heeded = {row["name"]: row["engines"] for row in describe_hyperparameters()}
    assert (heeded["lovasz"], heeded["dice"], heeded["epochs"]) == (["pytorch"], ["pytorch", "gluon"], [])


def test_a_batch_has_no_more_parts_than_crops():
    with pytest.raises(Invalid, match="A batch of 4 crops cannot be taken in 5 parts"):
        read_hyperparameters({"accumulate": 5, "batch_size": 4}, {})


def test_a_training_out_of_patience_ends_early_and_publishes_its_best(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=9, patience=2, validate_every=2)
    result = run(folder)
    assert "Ended early, after epoch 6 of 9: the last 2 scorings brought nothing better than epoch 2." in result.stdout
    status = fold(folder.events())
    assert (status.state, status.epoch, status.epochs, status.best.epoch) == ("finished", 6, 6, 2)
    assert "Ended early" in status.warnings[-1]
    assert folder.model.exists()


BREAKS = """
import sys; from pathlib import Path
from contracts.job_folder import JobFolder
from training_api import train as t
from training_api.figures import Events
original = t.Training.{method}
def ends(self, *given):
    result = original(self, *given)
    {condition} and sys.exit(9)
    return result
t.Training.{method} = ends
folder = JobFolder(Path(sys.argv[1])); t.train(folder, Events(folder))
"""


def run_until(folder, method: str, condition: str) -> None:
    script = BREAKS.format(method=method, condition=condition)
    result = subprocess.run([sys.executable, "-c", script, str(folder.path)], cwd=ROOT, timeout=120, check=False)
    assert result.returncode == 9


def test_a_training_that_ended_early_and_was_broken_off_learns_no_more(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=9, patience=2)
    run_until(folder, "_end_early", "True")
    assert run(folder).returncode == 0
    status = fold(folder.events())
    assert (status.state, status.epochs, [scores.epoch for scores in status.history]) == ("finished", 3, [1, 2, 3])
    assert sum("Ended early" in message for message in status.warnings) == 1


def test_the_figures_of_an_epoch_that_was_broken_off_are_not_there_twice(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "majority", epochs=3, batch_size=1, crops_per_picture=2)
    run_until(folder, "_score", "given[0].epoch == 2")
    half = list(csv.DictReader(folder.figures_file.read_text().splitlines()))
    assert half[-1]["epoch"] == "2"
    assert run(folder).returncode == 0
    rows = [(row["epoch"], row["step"]) for row in csv.DictReader(folder.figures_file.read_text().splitlines())]
    steps = len(half) // 2
    assert rows == [(str(epoch), str(step) if step <= steps else "") for epoch in (1, 2, 3) for step in range(1, steps + 2)]


LIMITED = """
import re, resource, sys
from pathlib import Path
from training_api import train
from training_api.__main__ import main
from training_api.engines import pytorch  # its libraries are counted before the limit is drawn
held = int(re.search(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (held + {room} * 2**20, hard))
publish = train._publish
def unlimited(*given):
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return publish(*given)
train._publish = unlimited
sys.exit(main())
"""


def run_within(room: int, folder) -> subprocess.CompletedProcess[str]:
    """A training that may take `room` MB beyond its libraries, until it publishes: that brings libraries of its own."""
    command = [sys.executable, "-c", LIMITED.format(room=room), str(folder.path)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_a_batch_that_does_not_fit_is_refused_before_the_first_epoch_with_what_does(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "pytorch", batch_size=512, crop=256, short_side=256, epochs=1)
    assert run_within(2000, folder).returncode == 1
    assert states(folder)[-1] == "failed"
    assert "started" not in states(folder)
    failed = folder.events()[-1]
    assert failed.cause.startswith("512 crops of 256 × 256 pixels at once need about ")
    assert 4 <= int(failed.cure.split()[4]) <= 64, failed.cure


def test_a_batch_that_does_not_fit_is_taken_in_parts_where_that_is_wished(tmp_path: Path, dataset: Path):
    settings = {"batch_size": 56, "crop": 128, "short_side": 128, "epochs": 1, "crops_per_picture": 1, "workers": 0}
    folder = write_job(tmp_path / "ck" / "m", dataset, "pytorch", **settings, fit_memory=True)
    result = run_within(800, folder)
    assert result.returncode == 0, result.stderr
    assert any("56 crops at once do not fit into memory" in message for message in fold(folder.events()).warnings)


def test_a_machine_that_cannot_compile_says_so_and_learns_without(tmp_path: Path, dataset: Path):
    folder = write_job(tmp_path / "ck" / "m", dataset, "pytorch", **SMALL, epochs=1, compile="on")
    command = [sys.executable, "-m", "training_api", str(folder.path)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "CXX": "/no/compiler"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert "compiling does not work here (InductorError" in result.stdout
    assert states(folder)[-1] == "finished"


def test_parts_and_sentences_follow_from_what_fits():
    size = (64, 128)
    assert parts_that_fit(Fit(8, 10**9), 8, size, wish=1, may_split=False, processes=1) == 1
    assert parts_that_fit(Fit(3, 10**9), 8, size, wish=1, may_split=True, processes=1) == 3
    assert parts_that_fit(Fit(4, 10**9), 8, size, wish=2, may_split=False, processes=1) == 2
    with pytest.raises(Invalid, match=r"4 crops of 128 × 64 pixels at once need about 5\.0 GB.* A batch size of 24 fits"):
        parts_that_fit(Fit(3, 4 * 10**9, fixed=10**9, each=10**9), 8, size, wish=2, may_split=False, processes=4)
    with pytest.raises(Invalid, match=r"do not fit into the memory, and 1\.0 GB are free. Not even one fits"):
        parts_that_fit(Fit(0, 10**9), 8, size, wish=1, may_split=True, processes=1)


@pytest.mark.parametrize(
    ("line", "group", "files"),
    [
        ("0::/job", "sys/fs/cgroup/job", {"memory.max": "3000\n", "memory.current": "2500\n", "memory.stat": "inactive_file 400\n"}),
        (
            "4:cpu,memory:/of/the/host",
            "sys/fs/cgroup/memory",
            {"memory.limit_in_bytes": "3000", "memory.usage_in_bytes": "2500", "memory.stat": "cache 1\ntotal_inactive_file 400\n"},
        ),
    ],
    ids=("cgroup 2", "cgroup 1, in a container"),
)
def test_the_limit_of_a_container_is_heeded(tmp_path: Path, line: str, group: str, files: dict[str, str]):
    for name, content in {"proc/self/cgroup": f"1:cpu:/\n{line}\n", "proc/meminfo": "MemAvailable: 7 kB\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert free_memory(tmp_path) == 7 * 1024
    (tmp_path / group).mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / group / name).write_text(content)
    assert free_memory(tmp_path) == 900
