"""What the wizard's later steps look at: the networks, the machine, what is recommended, and what has been chosen among it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from contracts.hyperparameters import Hyperparameters, describe_hyperparameters
from contracts.weights import WeightsChoice, WeightsType
from gui import forms
from gui.answers import DatasetReport, Machine, NetworkChoice, Recommendation, Recommended
from gui.backend import Backend
from gui.estimate import step_seconds, training_seconds
from gui.figures import setting
from gui.forms import Draft

GROUPS = {
    "recommended": "Recommended for other cases",
    "light": "Light",
    "medium": "Medium",
    "heavy": "Heavy, for a GPU",
    "gluon": "Of the GluonCV training GUI",
    "majority": "To compare with",
}
WEIGHT_TITLES: dict[WeightsType, str] = {
    "from_scratch": "Nothing",
    "pre_trained": "Pre-trained",
    "pre_trained_offline": "Pre-trained, from a folder of yours",
    "pre_trained_classifier": "A classifier of yours",
    "from_checkpoint": "An earlier model",
}


@dataclass(frozen=True)
class Choice:
    """A draft beside what there is to choose from. `preset`: the value of every setting that was not changed, {} without a network."""

    draft: Draft
    report: DatasetReport
    machine: Machine
    networks: list[NetworkChoice]
    network: NetworkChoice | None
    weights: list[WeightsChoice]
    advice: Recommendation | None
    preset: dict[str, Any]

    @property
    def recommended(self) -> dict[str, Recommended]:
        return {row.setting: row for row in self.advice.settings} if self.advice else {}

    @property
    def waggle(self) -> Draft | None:
        """The same dataset as the config.list of the Waggle FCN plugin that lies with it asks for; None where there is none."""
        start = self.advice.waggle if self.advice else None
        if start is None:
            return None
        settings = {name: setting(value) for name, value in start.settings.items()}
        return replace(self.draft, network=start.network, preset="own", settings=settings)

    @property
    def complete(self) -> Hyperparameters | None:
        """All settings; None where one is out of range or there is no network."""
        return forms.read_settings(self.draft, self.preset)[0] if self.network else None

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong with the second step's fields."""
        return forms.settings_faults(self.draft, self.network, self.weights)

    @property
    def seconds(self) -> float | None:
        """How long the training takes, about; None where that is not known, as on a GPU."""
        if self.network is None or self.complete is None or self.draft.gpus or self.faults:
            return None
        pictures = self.report.pictures
        kept = min(max(round(pictures * float(self.draft.validation) / 100), 1), max(1, pictures - 1))
        return training_seconds(self.network, self.machine, self.complete, pictures - kept, kept)


async def look(backend: Backend, draft: Draft, report: DatasetReport, propose: bool = False) -> Choice:
    """What there is to choose from, and the draft with what nobody has chosen yet filled in.

    `propose`: take the recommended network where none is chosen.
    """
    networks, machine = await backend.networks(), await backend.machine()
    network = find(networks, draft.network)
    draft = replace(draft, gpus=chosen_gpus(draft, machine, network))
    advice = None
    if any(row.available for row in networks):
        share = float(draft.validation) / 100 if forms.is_share(draft.validation) else 0.2
        gpus = [gpu for gpu in draft.gpus or () if gpu.isdigit()]
        advice = await backend.recommendation(draft.dataset, network.key if network else "", share, gpus)
    if network is None and propose and advice:
        network = find(networks, advice.network)
        draft = replace(draft, network=advice.network)
    weights = await backend.weights(network.key) if network else []
    preset = preset_of(network, advice, draft.preset) if network else {}
    if network:
        heeded = {row["name"] for row in setting_rows(network)}
        draft = replace(draft, settings={name: text for name, text in draft.settings.items() if name in heeded}).without(preset)
    return Choice(draft, report, machine, networks, network, weights, advice, preset)


def find(networks: list[NetworkChoice], key: str) -> NetworkChoice | None:
    return next((row for row in networks if row.key == key), None)


def chosen_gpus(draft: Draft, machine: Machine, network: NetworkChoice | None) -> tuple[str, ...] | None:
    """The GPUs to train on; where nobody has chosen, the one with most memory free, for the engine that always can use it."""
    if draft.gpus is not None or not machine.gpus or (network and network.engine != "pytorch"):
        return draft.gpus
    return (str(max(machine.gpus, key=lambda gpu: gpu.memory_free).id),)


def preset_of(network: NetworkChoice, advice: Recommendation | None, preset: str) -> dict[str, Any]:
    """A value for every setting: the recommended ones over the network's defaults, or those alone with the preset "own"."""
    recommended = {row.setting: row.value for row in advice.settings} if advice and preset != "own" else {}
    return {**network.defaults, **recommended}


def setting_rows(network: NetworkChoice) -> list[dict[str, Any]]:
    """The settings that the network's engine heeds."""
    return [row for row in describe_hyperparameters() if network.engine in (row.get("engines") or [network.engine])]


def network_rows(networks: Sequence[NetworkChoice], machine: Machine) -> list[dict[str, Any]]:
    """The catalogue as the table shows it: each network and the seconds of a step on this machine, about."""
    return [{"network": row, "seconds": step_seconds(row, machine)} for row in networks]


def network_groups(choice: Choice) -> list[dict[str, Any]]:
    """All networks but the recommended one, by what they cost; groups without any are left out."""
    best = choice.advice.network if choice.advice else ""
    groups: dict[str, list[NetworkChoice]] = {group: [] for group in GROUPS}
    for row in choice.networks:
        if row.key != best:
            groups["recommended" if row.recommended else row.group].append(row)
    return [
        {"title": GROUPS[group], "rows": network_rows(rows, choice.machine), "open": choice.draft.network in [row.key for row in rows]}
        for group, rows in groups.items()
        if rows
    ]
