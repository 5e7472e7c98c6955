"""What a network starts from: each of the five types ends in a model that says where it came from."""

import fnmatch
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save, save_file

from annotations.whole_picture import IMAGENET
from contracts.errors import Invalid
from contracts.events import now
from contracts.hyperparameters import Hyperparameters
from contracts.job import Job
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE, find_network
from contracts.weights import GLUON_LICENCE, WEIGHTS, WHOLE_NETWORKS, file_patterns, licence_of, types_of
from docker_sdk_api.app import create_app
from docker_sdk_api.launchers import Task
from docker_sdk_api.launchers.container import container_request
from docker_sdk_api.settings import Settings
from docker_sdk_api.weights import add_all_weights, add_weights
from tests.conftest import CLASSES, ROOT, draw_dataset, run_job
from tests.shelf import Shelf, open_shelf
from training_api.downloads import Source
from training_api.engines import Start
from training_api.engines.pytorch_networks import ENCODERS, _import_smp, backbone_of, build_network, head_names
from training_api.engines.pytorch_weights import fitting, read_tensors, sources_of, take_weights
from training_api.weights import main as bake

UNET = {"engine": "pytorch", "network": "unet", "backbone": "resnet18"}
TINY = {"epochs": 1, "crop": 32, "batch_size": 4, "crops_per_picture": 1, "short_side": 48, "workers": 0}
STILL = {**TINY, "learning_rate": 1e-12, "weight_decay": 0}
"""Settings that leave the weights where they are, so that they tell where they came from."""
FIRST = "conv1.weight"


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with open_shelf() as shelf:
        yield shelf


# What the packages say, and what is baked into images


ROWS = [row for row in CATALOGUE if row.engine == "pytorch" and licence_of(row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_every_network_with_pre_trained_weights_has_a_file_where_it_is_looked_for(row):
    sources = sources_of(row)
    assert sources
    for source in sources:
        assert source.address.startswith("https://")
        assert any(fnmatch.fnmatch(source.file, pattern) for pattern in file_patterns(row)), source.file
        assert source.licence == row.weights_licence


def test_what_others_taught_an_encoder_with_is_normalised_as_the_product_does_it():
    _import_smp()
    import timm

    for encoder in (name.removeprefix("tu-") for name in ENCODERS.values() if name.startswith("tu-")):
        settings = timm.get_pretrained_cfg(encoder)
        assert (settings.mean, settings.std) == (IMAGENET.mean, IMAGENET.deviation), encoder
        assert settings.license in ("apache-2.0", "mit", "bsd-3-clause"), encoder


def test_the_list_of_what_to_bake_names_every_network_that_has_weights_and_selects_none():
    chosen = json.loads((ROOT / "training_api" / "assets" / "networks.json").read_text())
    assert chosen == {"select_all": False, "networks": {row.key: False for row in CATALOGUE if licence_of(row)}}


def test_what_is_selected_is_fetched_into_an_image(
    shelf: Shelf, tmp_path: Path, encoder: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    shelf.files[path_of(sources_of(find_network("pytorch", "unet", "resnet18"))[0])] = save(encoder)
    (tmp_path / "networks.json").write_text('{"select_all": false, "networks": {"pytorch/unet/resnet18": true}}')
    monkeypatch.setenv("WEIGHTS_URL", shelf.address)
    monkeypatch.setattr(sys, "argv", ["weights", "--bake", str(tmp_path / "networks.json"), "--to", str(tmp_path / "baked")])
    assert bake() == 0
    kept = [path.name for path in (tmp_path / "baked").iterdir() if path.suffix == ".safetensors"]
    assert kept == [sources_of(find_network("pytorch", "unet", "resnet18"))[0].file]


def path_of(source: Source) -> str:
    return "/" + source.address.split("/", 3)[3]


# Into a network


@pytest.fixture(scope="module")
def encoder() -> dict[str, torch.Tensor]:
    """What others taught the encoder of U-Net on ResNet-18, here: numbers that are known again."""
    torch.manual_seed(77)
    return {name: value.clone() for name, value in backbone_of(build_network("unet", "resnet18", 2)).state_dict().items()}


@pytest.mark.parametrize("wrapper", ["", "module.", "encoder."])
def test_a_backbone_is_known_under_the_names_that_other_programs_give_it(tmp_path: Path, encoder: dict[str, torch.Tensor], wrapper: str):
    torch.save({"state_dict": {f"{wrapper}{name}": value for name, value in encoder.items()}, "epoch": 3}, tmp_path / "weights.pth")
    network = build_network("unet", "resnet18", 2)
    take_weights(network, Start(tmp_path / "weights.pth", "x", "backbone"))
    assert all(torch.equal(value, encoder[name]) for name, value in backbone_of(network).state_dict().items())


def as_published(row) -> dict[str, torch.Tensor]:
    """The names in the file of a row's pre-trained weights: of what the package itself builds to have them loaded."""
    smp = _import_smp()
    import timm
    from torchvision.models import segmentation

    if row.network in WHOLE_NETWORKS:
        auxiliary = {} if row.network == "lraspp" else {"aux_loss": True}  # the files have it, the product's networks do not
        return getattr(segmentation, f"{row.network}_{row.backbone}")(weights=None, weights_backbone=None, **auxiliary).state_dict()
    encoder = ENCODERS[row.backbone]
    if encoder.startswith("tu-"):
        return timm.create_model(encoder.removeprefix("tu-"), pretrained=False).state_dict()
    return smp.encoders.get_encoder(encoder, weights=None).state_dict()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_the_published_weights_of_every_network_fit_into_it(row):
    with torch.device("meta"):
        network, published = build_network(row.network, row.backbone, 4), as_published(row)
    whole = row.network in WHOLE_NETWORKS
    target, chosen = fitting(network, published, Start(Path("file"), row.key, "network" if whole else "backbone"))
    left = set(target.state_dict()) - set(chosen)
    assert left == (set(head_names(network)) if whole else set())


class Intruder:
    """A pickle that runs a program when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_a_file_that_could_run_a_program_is_not_read(tmp_path: Path):
    torch.save({"state_dict": Intruder(tmp_path / "harm")}, tmp_path / "weights.pth")
    with pytest.raises(Invalid, match="may hold a program"):
        read_tensors(tmp_path / "weights.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Intruder(tmp_path / "harm"), protocol=2))
    with pytest.raises(Invalid):
        read_tensors(tmp_path / "raw.pth")
    assert not (tmp_path / "harm").exists()


def test_weights_of_another_shape_are_refused_with_an_example(tmp_path: Path, encoder: dict[str, torch.Tensor]):
    save_file({**encoder, FIRST: torch.zeros(8, 3, 7, 7)}, tmp_path / "weights.safetensors")
    with pytest.raises(Invalid, match=r"another shape, such as conv1\.weight"):
        take_weights(build_network("unet", "resnet18", 2), Start(tmp_path / "weights.safetensors", "x", "backbone"))


# The five types, through the front door


class Workshop:
    """docker_sdk_api with folders of its own and a server to fetch from, and a first model that started from pre-trained weights."""

    def __init__(self, place: Path, shelf: Shelf, encoder: dict[str, torch.Tensor]) -> None:
        self.place, self.shelf, self.encoder = place, shelf, encoder
        draw_dataset(place / "datasets" / "plates")
        other = draw_dataset(place / "datasets" / "others")
        (other / "objectclasses.json").write_text(CLASSES.replace("circle", "hole"))
        self.settings = Settings(
            datasets=place / "datasets",
            checkpoints=place / "checkpoints",
            classifiers=place / "classifiers",
            weights=place / "weights",
            weights_mirror=place / "mirror",
            weights_url=shelf.address,
            task_python=Path(sys.executable),
            parallel_jobs=8,
        )
        (place / "mirror").mkdir()
        self.api = TestClient(create_app(self.settings))
        self.source = sources_of(find_network("pytorch", "unet", "resnet18"))[0]

    def train(self, name: str, weights: str, settings: dict = STILL, seconds: float = 120, **wish: object) -> dict:
        return run_job(
            self.api, seconds, **{**UNET, "dataset": "plates", "name": name, "weights": weights, "hyperparameters": settings, **wish}
        )

    def choice(self, kind: str, network: str = "pytorch/unet/resnet18") -> dict:
        return next(row for row in self.api.get("/v1/weights", params={"network": network}).json() if row["type"] == kind)

    def model(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(JobFolder(self.settings.checkpoints / name).model / "weights.safetensors")

    def encoder_of(self, name: str) -> torch.Tensor:
        return self.model(name)[f"encoder.{FIRST}"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, encoder: dict[str, torch.Tensor]) -> Iterator[Workshop]:
    with open_shelf() as shelf:
        yield Workshop(tmp_path_factory.mktemp("workshop"), shelf, encoder)


@pytest.fixture(scope="module")
def first(workshop: Workshop) -> dict:
    """A training from weights that are fetched over a line that is cut."""
    assert workshop.choice("from_checkpoint")["available"] is False
    workshop.shelf.files[path_of(workshop.source)] = save(workshop.encoder)
    workshop.shelf.cuts = 1
    return workshop.train("first", "pre_trained")


def test_pre_trained_weights_are_fetched_taken_in_and_named_with_their_licence(workshop: Workshop, first: dict):
    assert first["status"]["state"] == "finished", first["status"]
    assert torch.allclose(workshop.encoder_of("first"), workshop.encoder[FIRST], atol=1e-6)
    folder = JobFolder(workshop.settings.checkpoints / "first")
    stages = [event.stage for event in folder.events() if event.event == "stage"]
    assert "fetching resnet18 weights, 11 of 11 MB" in stages, stages
    assert "the line was cut" in folder.log_file.read_text()
    assert "on this machine already" in workshop.choice("pre_trained")["about"]
    model = workshop.api.get("/v1/models/first").json()
    assert (model["weights"], model["weights_from"]) == ("pre_trained", "resnet18")
    assert model["weights_licence"] == find_network("pytorch", "unet", "resnet18").weights_licence
    assert model["weights_licence"] in (folder.model / "README.md").read_text()
    assert json.loads(folder.weights_file.read_text())["sha256"] == hashlib.sha256(save(workshop.encoder)).hexdigest()


def test_offline_weights_come_from_a_mirror_and_without_them_the_job_says_where_to_get_them(workshop: Workshop):
    settings = workshop.settings.model_copy(update={"weights": workshop.place / "empty"})
    api, wish = TestClient(create_app(settings)), {**UNET, "dataset": "plates", "weights": "pre_trained_offline", "hyperparameters": STILL}
    row = next(row for row in api.get("/v1/weights?network=pytorch/unet/resnet18").json() if row["type"] == "pre_trained_offline")
    assert not row["available"]
    assert "resnet18--" in row["cause"]
    status = run_job(api, 120, name="lost", **wish)["status"]
    assert status["state"] == "failed"
    assert workshop.source.file in status["cause"]
    assert workshop.source.address in status["cure"]
    save_file(workshop.encoder, workshop.settings.weights_mirror / workshop.source.file)
    asked = len(workshop.shelf.asked)
    view = run_job(api, 120, name="mirrored", **wish)
    assert view["status"]["state"] == "finished", view["status"]
    assert torch.allclose(workshop.encoder_of("mirrored"), workshop.encoder[FIRST], atol=1e-6)
    assert any("take care where it came from" in warning for warning in view["status"]["warnings"]), "a copied file has no known hash"
    assert len(workshop.shelf.asked) == asked, "nothing is fetched"


def test_a_classifiers_backbone_is_taken_in_and_one_of_another_network_is_refused(workshop: Workshop):
    for name, network in (("cats", "resnet18"), ("dogs", "resnet50")):
        (workshop.settings.classifiers / name).mkdir(parents=True)
        (workshop.settings.classifiers / name / "config.json").write_text(json.dumps({"network": network, "licence": "CC0"}))
        save_file({**workshop.encoder, "fc.weight": torch.zeros(5, 512)}, workshop.settings.classifiers / name / "weights.safetensors")
    assert [origin["name"] for origin in workshop.choice("pre_trained_classifier")["origins"]] == ["cats"]
    view = workshop.train("from-cats", "pre_trained_classifier", weights_from="cats")
    assert view["status"]["state"] == "finished", view["status"]
    assert torch.allclose(workshop.encoder_of("from-cats"), workshop.encoder[FIRST], atol=1e-6)
    assert workshop.api.get("/v1/models/from-cats").json()["weights_licence"] == "CC0"
    refused(workshop, 400, "is a resnet50", weights="pre_trained_classifier", weights_from="dogs")


def test_a_checkpoint_goes_on_with_its_head_where_the_classes_are_the_same(workshop: Workshop, first: dict):
    assert [origin["name"] for origin in workshop.choice("from_checkpoint")["origins"]][-1] == "first"
    view = workshop.train("again", "from_checkpoint", weights_from="first")
    assert view["status"]["state"] == "finished", view["status"]
    before, after = workshop.model("first"), workshop.model("again")
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items() if name.endswith("weight"))
    assert not any("head" in warning for warning in view["status"]["warnings"])
    model = workshop.api.get("/v1/models/again").json()
    assert (model["weights_from"], model["weights_licence"]) == ("first", find_network("pytorch", "unet", "resnet18").weights_licence)


def test_a_checkpoint_of_other_classes_gives_all_but_its_head_and_the_job_says_so(workshop: Workshop, first: dict):
    view = workshop.train("changed", "from_checkpoint", weights_from="first", dataset="others", seed=5)
    assert view["status"]["state"] == "finished", view["status"]
    before, after = workshop.model("first"), workshop.model("changed")
    kept = {name for name, value in before.items() if name.endswith("weight") and torch.allclose(after[name], value, atol=1e-6)}
    assert {name for name in before if name.endswith("weight")} - kept == {"segmentation_head.0.weight"}
    warnings = " ".join(view["status"]["warnings"])
    assert "background, pad, circle, and are now background, pad, hole" in warnings
    assert "head was replaced" in JobFolder(workshop.settings.checkpoints / "changed").log_file.read_text()


def refused(workshop: Workshop, status: int, word: str, **wish: object) -> None:
    body = {**UNET, "name": "never", "dataset": "plates", **wish}
    answer = workshop.api.post("/v1/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"], answer.text
    assert not (workshop.settings.checkpoints / "never").exists()


def test_weights_that_cannot_be_are_refused_before_a_job_begins(workshop: Workshop):
    refused(workshop, 400, "needs the name of a job", weights="from_checkpoint")
    refused(workshop, 404, "There is no job “nobody”", weights="from_checkpoint", weights_from="nobody")
    refused(workshop, 404, "There is no classifier “../weights”", weights="pre_trained_classifier", weights_from="../weights")
    refused(workshop, 400, "Leave the name out", weights="pre_trained", weights_from="other")
    majority = {"engine": "majority", "network": "majority", "backbone": "none"}
    refused(workshop, 400, "no weights pre_trained for majority", weights="pre_trained", **majority)
    refused(workshop, 400, "weights", weights="from_the_moon")
    assert [row["available"] for row in workshop.api.get("/v1/weights?network=majority/majority/none").json()] == [True] + [False] * 4
    assert workshop.api.get("/v1/weights?network=unet").status_code == 400


def test_a_job_that_was_asked_to_stop_fetches_no_further(workshop: Workshop, tmp_path: Path):
    folder = JobFolder(tmp_path / "slow")
    folder.path.mkdir()
    facts = {"dataset_folder": workshop.settings.datasets / "plates", "created": now(), "hyperparameters": Hyperparameters()}
    folder.write_job(Job(name="slow", dataset="plates", weights="pre_trained", **facts))
    folder.ask_to_stop(keep_best=False)
    workshop.shelf.files[path_of(workshop.source)] = save(workshop.encoder)
    environment = {**os.environ, "WEIGHTS": str(tmp_path / "weights"), "WEIGHTS_URL": workshop.shelf.address}
    done = subprocess.run(
        [sys.executable, "-m", "training_api", str(folder.path)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert folder.events()[-1].event == "stopped"
    assert not (tmp_path / "weights" / workshop.source.file).exists()


def test_only_a_job_that_may_have_to_fetch_gets_a_network_and_the_folders_that_it_needs(tmp_path: Path):
    settings = Settings(weights=tmp_path / "weights", weights_mirror=tmp_path / "mirror")
    job = Job(
        name="j",
        dataset="d",
        dataset_folder=tmp_path,
        created=now(),
        hyperparameters=Hyperparameters(),
        weights_folder=tmp_path / "earlier",
    )

    def request(**changes: object) -> dict:
        task = add_weights(Task("j", "pytorch", [], tmp_path / "j"), job.model_copy(update=changes), settings)
        made = container_request(task, "image", lambda path: path, "1:1")
        return {"network": made["network_mode"], **{Path(m["Target"]).name: m["ReadOnly"] for m in made["mounts"]}}

    assert request(weights="from_checkpoint") == {"network": "none", "j": False, "earlier": True}
    assert request(weights="from_scratch", weights_folder=None) == {"network": "none", "j": False}
    folders = {"j": False, "weights": False, "mirror": True}
    assert request(weights="pre_trained", weights_folder=None) == {"network": "bridge", **folders}
    assert request(weights="pre_trained_offline", weights_folder=None) == {"network": "none", **folders}


def test_a_job_that_waits_for_an_old_client_sees_weights_it_may_choose_and_nothing_else_of_other_jobs(tmp_path: Path):
    settings = Settings(checkpoints=tmp_path / "checkpoints", classifiers=tmp_path / "classifiers", weights=tmp_path / "weights")
    made = ("early/model/model_best.params", "early/previews/p.png", "other/model/weights.safetensors", ".maskwright/tokens.json")
    for file in (*made, "early/job.json", "other/job.json", "waits/job.json", "waits/best/averaged.params"):
        (settings.checkpoints / file).parent.mkdir(parents=True, exist_ok=True)
        (settings.checkpoints / file).write_text("x")
    job = Job(
        name="waits", dataset="d", dataset_folder=tmp_path / "d", created=now(), engine="gluon", network="fcn", backbone="resnet50",
        hyperparameters=Hyperparameters(), api_port=5000, waiting=True,
    )  # fmt: skip
    task = add_all_weights(Task("waits", "gluon", [], settings.checkpoints / "waits"), job, settings)
    mounts = {m["Target"]: m["ReadOnly"] for m in container_request(task, "image", lambda path: path, "1:1")["mounts"]}
    early = settings.checkpoints / "early"
    read_only = [str(path) for path in (early / "job.json", early / "model")]
    writable = [str(path) for path in (settings.checkpoints / "waits", settings.weights)]
    assert mounts == {**dict.fromkeys(writable, False), **dict.fromkeys(read_only, True)}


def test_every_network_says_which_weights_it_knows():
    assert types_of(find_network("pytorch", "unet", "resnet18")) == list(WEIGHTS)
    assert types_of(find_network("gluon", "fcn", "resnet50")) == list(WEIGHTS)
    assert types_of(find_network("gluon", "fastscnn", "fastscnn")) == [
        "from_scratch",
        "pre_trained",
        "pre_trained_offline",
        "from_checkpoint",
    ]
    assert types_of(find_network("majority", "majority", "none")) == ["from_scratch"]


# The gluon engine, in its own Python: MXNet needs packages that no other part can live with

GLUON_PYTHON = Path(os.environ.get("MASKWRIGHT_GLUON_PYTHON", ROOT / ".venv-gluon" / "bin" / "python"))
GLUON = {"engine": "gluon", "network": "fastscnn", "backbone": "fastscnn"}

PUBLISH = """
import sys
from pathlib import Path
from training_api.engines import gluon
network = gluon.RECIPES["fastscnn", "fastscnn"].make(7, height=64, width=64, aux=True)
network.initialize(gluon.mx.init.Constant(0.25))
network(gluon.mx.nd.zeros((1, 3, 64, 64)))
network.save_parameters(sys.argv[1])
"""

TRAIN = """
import hashlib, sys
from pathlib import Path
from gluoncv.model_zoo import model_store
from contracts.job_folder import JobFolder
from training_api.figures import Events
from training_api.train import train
model_store._model_sha1["fastscnn_citys"] = sys.argv[2]
folder = JobFolder(Path(sys.argv[1]))
train(folder, Events(folder))
"""

BAKE = """
import sys
from gluoncv.model_zoo import model_store
from training_api.weights import main
model_store._model_sha1["fastscnn_citys"] = sys.argv.pop(1)
sys.exit(main())
"""

CLASSIFIER = """
import sys
from pathlib import Path
from gluoncv.model_zoo.resnetv1b import resnet50_v1s
from training_api.engines import Start, gluon
from training_api.engines.gluon_weights import head_names, take_weights
classifier = resnet50_v1s(classes=5)
classifier.initialize(gluon.mx.init.Constant(0.25))
classifier(gluon.mx.nd.zeros((1, 3, 64, 64)))
classifier.save_parameters(sys.argv[1])
recipe = gluon.RECIPES["fcn", "resnet50"]
network = recipe.make(3, height=64, width=64, aux=False)
network.initialize()
network(gluon.mx.nd.zeros((1, 3, 64, 64)))
heads = head_names(network, recipe.make(4, height=64, width=64, aux=False))
take_weights(network, Start(Path(sys.argv[1]), "cats", "backbone"), heads)
values = {name: value.data().asnumpy().mean() for name, value in network._collect_params_with_prefix().items() if name.endswith("weight")}
assert {name for name, mean in values.items() if mean != 0.25} == {"head.block.0.weight", "head.block.4.weight"}, values
assert heads == {"head.block.4.weight", "head.block.4.bias"}, heads
"""

LOOK = """
import json, sys
from training_api.engines import gluon
from contracts.networks import CATALOGUE
from contracts.weights import file_patterns, licence_of
from fnmatch import fnmatch
from training_api.engines.gluon_weights import sources_of
first, second = (gluon.mx.nd.load(path) for path in sys.argv[1:3])
both = {name: (first[name].asnumpy(), second[name].asnumpy()) for name in first if name in second}
same = [name for name, (one, other) in both.items() if one.shape == other.shape and gluon.np.allclose(one, other, atol=1e-6)]
rows = [row for row in CATALOGUE if row.engine == "gluon" and licence_of(row)]
found = [any(fnmatch(source.file, pattern) for pattern in file_patterns(row)) for row in rows for source in sources_of(row)]
print(json.dumps({"other": sorted(name for name in set(second) - set(same) if name.endswith("weight")), "found": found}))
"""


def gluon(script: str, *arguments: object, **environment: str) -> str:
    """What a script printed in the Python with MXNet."""
    command = [str(GLUON_PYTHON), "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not GLUON_PYTHON.exists(), reason=f"no Python with MXNet at {GLUON_PYTHON} (MASKWRIGHT_GLUON_PYTHON)")
def test_the_gluon_engine_starts_from_the_zoo_with_a_new_head_and_goes_on_from_its_own_model(workshop: Workshop, tmp_path: Path):
    zoo, packed = tmp_path / "zoo.params", io.BytesIO()
    gluon(PUBLISH, zoo)
    digest = hashlib.sha1(zoo.read_bytes()).hexdigest()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(zoo, f"fastscnn_citys-{digest[:8]}.params")
    workshop.shelf.files[f"/gluon/models/fastscnn_citys-{digest[:8]}.zip"] = packed.getvalue()
    folder = JobFolder(workshop.settings.checkpoints / "zoo")
    folder.path.mkdir(parents=True)
    still = Hyperparameters(**{**STILL, "crop": 64, "short_side": 64})
    facts = {"dataset": "plates", "dataset_folder": workshop.settings.datasets / "plates", "created": now(), "hyperparameters": still}
    folder.write_job(Job(name="zoo", weights="pre_trained", **GLUON, **facts))
    gluon(TRAIN, folder.path, digest, WEIGHTS=str(workshop.settings.weights), WEIGHTS_URL=workshop.shelf.address)
    model = workshop.api.get("/v1/models/zoo").json()
    assert (model["weights"], model["weights_from"], model["weights_licence"]) == ("pre_trained", "fastscnn_citys", GLUON_LICENCE)
    looked = json.loads(gluon(LOOK, zoo, folder.model / "model_best.params"))
    assert [name for name in looked["other"] if "classifier" in name] == looked["other"] != []
    assert looked["found"]
    assert all(looked["found"])

    wish = {**GLUON, "settings": still.model_dump(exclude_defaults=True), "weights_from": "zoo"}
    view = workshop.train("zoo-again", "from_checkpoint", **wish)
    assert view["status"]["state"] == "finished", view["status"]
    both = [JobFolder(workshop.settings.checkpoints / name).model / "model_best.params" for name in ("zoo", "zoo-again")]
    assert json.loads(gluon(LOOK, *both))["other"] == []


@pytest.mark.skipif(not GLUON_PYTHON.exists(), reason=f"no Python with MXNet at {GLUON_PYTHON} (MASKWRIGHT_GLUON_PYTHON)")
def test_a_classifier_of_gluoncv_gives_a_network_its_backbone(tmp_path: Path):
    gluon(CLASSIFIER, tmp_path / "model_best.params")


@pytest.mark.skipif(not GLUON_PYTHON.exists(), reason=f"no Python with MXNet at {GLUON_PYTHON} (MASKWRIGHT_GLUON_PYTHON)")
def test_weights_of_the_zoo_that_are_selected_are_fetched_into_an_image(shelf: Shelf, tmp_path: Path):
    numbers, packed, chosen = b"what the zoo taught", io.BytesIO(), tmp_path / "networks.json"
    digest = hashlib.sha1(numbers).hexdigest()
    file = f"fastscnn_citys-{digest[:8]}"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{file}.params", numbers)
    shelf.files[f"/gluon/models/{file}.zip"] = packed.getvalue()
    chosen.write_text('{"select_all": false, "networks": {"gluon/fastscnn/fastscnn": true, "pytorch/unet/resnet18": true}}')
    order = ("--engine", "gluon", "--bake", chosen, "--to", tmp_path / "baked")
    assert f"gluon/fastscnn/fastscnn: {file}.params" in gluon(BAKE, digest, *order, WEIGHTS_URL=shelf.address)
    assert [path.read_bytes() for path in (tmp_path / "baked").glob("*.params")] == [numbers]
    assert [path for path, _ in shelf.asked] == [f"/gluon/models/{file}.zip"]
