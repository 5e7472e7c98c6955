"""Documents that cannot rot: what they list is what is there."""

import re
from pathlib import Path

from contracts.events import _EVENT
from contracts.hyperparameters import describe_hyperparameters
from contracts.job_folder import JobFolder
from contracts.networks import CATALOGUE
from docker_sdk_api.settings import Settings as SdkSettings
from gui.settings import Settings as GuiSettings
from inference_api.settings import Settings as InferenceSettings
from tests.conftest import ROOT


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_every_setting_of_every_service_is_in_the_settings_page():
    page = text("docs/settings.md")
    for kind in (SdkSettings, InferenceSettings, GuiSettings):
        for field in kind.model_fields:
            assert f"`{field.upper()}`" in page, field


def test_every_hyperparameter_is_in_its_page_with_its_help():
    page = text("docs/hyperparameters.md")
    for row in describe_hyperparameters():
        assert f"| `{row['name']}` | {row['default']} |" in page, row["name"]
        assert row["help"] in page, row["name"]


def test_every_network_is_in_its_page():
    page = text("docs/networks.md")
    for row in CATALOGUE:
        assert f"`{row.key}`" in page
        assert row.advice in page


def test_every_file_of_a_job_and_every_event_is_in_its_page():
    page = text("docs/job-folder.md")
    folder = JobFolder(ROOT)
    places = [place for name in vars(JobFolder) if isinstance(place := getattr(folder, name), Path)]
    assert len(places) > 15
    for path in places:
        assert f"`{path.name}" in page, path.name
    for event in _EVENT.json_schema()["discriminator"]["mapping"]:
        assert f"`{event}`" in page, event


def test_the_tree_in_the_architecture_is_the_tree():
    page = text("ARCHITECTURE.md")
    tree = page[page.index("## The tree") :]
    named = set(re.findall(r"^([a-z_]+)/", tree, re.MULTILINE))
    there = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"build", "run", "docs", "tests", "datasets", "benchmarks"}
    assert there <= named, there - named
    for name in re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", page):
        assert (ROOT / name).is_file(), name
