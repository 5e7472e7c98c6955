"""What the wizard's later steps look at: the networks, the machine, what is recommended, what has been chosen, what would come of it."""

import asyncio
import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from contracts.answers import Forecast, Machine, Recommendation, Recommended, Speed
from contracts.hyperparameters import Hyperparameters, describe_hyperparameters
from contracts.job import JobView
from contracts.weights import WeightsChoice, WeightsType
from gui import forms
from gui.answers import DatasetReport, NetworkChoice
from gui.backend import Backend
from gui.figures import setting
from gui.forms import Draft

T = TypeVar("T")
GROUPS = {
    "recommended": ("pytorch", "Recommended for other cases"),
    "light": ("pytorch", "Light"),
    "medium": ("pytorch", "Medium"),
    "heavy": ("pytorch", "Heavy, for a GPU"),
    "gluon": ("gluon", "Of the GluonCV training GUI"),
    "majority": ("majority", "To compare with"),
}
"""Of the table of networks: the engine that trains them, and a title."""
ORDERS = {"size": "size", "work": "work", "speed": "seconds a crop"}
"""What the table of networks can be sorted by instead of grouped, and its name for people."""
STEP_OF = {"dataset": 1, "validation": 1, "network": 2, "weights": 2, "gpus": 2, "processes": 2, "nodes": 2, "memory_limit": 2, "cpus": 2}
"""The step on which a field is; settings are on the third."""
WEIGHT_TITLES: dict[WeightsType, str] = {
    "from_scratch": "Random weights",
    "pre_trained": "Pre-trained",
    "pre_trained_offline": "Pre-trained, from a folder of yours",
    "pre_trained_classifier": "A classifier of yours",
    "from_checkpoint": "An earlier model",
}


@dataclass(frozen=True)
class Choice:
    """A draft beside what there is to choose from. `preset`: the value of every setting that was not changed, {} without a network.
    `name`: the draft's, or one that is proposed. `users`: the jobs that run on each GPU, by its id. `forecast`: None where something
    is missing or out of range."""

    draft: Draft
    name: str
    name_fault: str
    report: DatasetReport
    machine: Machine
    networks: list[NetworkChoice]
    network: NetworkChoice | None
    weights: list[WeightsChoice]
    advice: Recommendation | None
    preset: dict[str, Any]
    speeds: dict[str, Speed]
    users: dict[int, list[str]]
    forecast: Forecast | None = None

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
    def troubles(self) -> dict[str, str]:
        """What keeps it from starting, by field."""
        return {row.field: f"{row.cause} {row.cure}" for row in self.forecast.obstacles} if self.forecast else {}

    @property
    def nodes_caution(self) -> str:
        """Why it would wait for nodes; empty where it would not."""
        rows = self.forecast.cautions if self.forecast else []
        return next((f"{row.cause} {row.cure}" for row in rows if row.field == "nodes"), "")

    @property
    def processor(self) -> str:
        """Where it would learn, in words."""
        names = [gpu.name for gpu in self.machine.gpus if str(gpu.id) in (self.draft.gpus or ())]
        return " and ".join(names) or "the processor"


async def look(backend: Backend, draft: Draft, report: DatasetReport, propose: bool = False) -> Choice:
    """What there is to choose from, and the draft with what nobody has chosen yet filled in.

    `propose`: take the recommended network where none is chosen.
    """
    networks, machine, names = await asyncio.gather(backend.networks(), backend.machine(), backend.job_names())
    network, taken = find(networks, draft.network), set(names)
    proposed = forms.propose_name(draft.dataset, taken)
    name = "" if draft.name == proposed else draft.name  # what is only proposed follows the dataset
    draft = replace(draft, name=name, gpus=chosen_gpus(draft, machine, network))
    share = float(draft.validation) / 100 if forms.is_share(draft.validation) else 0.2
    key, gpus = network.key if network else "", draft.gpu_ids
    asked = backend.recommendation(draft.dataset, key, share, gpus) if any(row.available for row in networks) else None
    advice, weights, speeds, running = await asyncio.gather(
        _given(asked, None),
        _given(backend.weights(key) if key else None, []),
        backend.speeds(gpus),
        _given(backend.jobs(running=True) if machine.gpus else None, []),
    )
    if network is None and propose and advice:
        network = find(networks, advice.network)
        draft, weights = replace(draft, network=advice.network), await backend.weights(advice.network)
    preset = preset_of(network, advice, draft.preset) if network else {}
    if network:
        heeded = {row["name"] for row in setting_rows(network)}
        draft = replace(draft, settings={name: text for name, text in draft.settings.items() if name in heeded}).without(preset)
    name_fault = forms.name_fault(draft.name or proposed, taken)
    found = Choice(
        draft,
        draft.name or proposed,
        name_fault,
        report,
        machine,
        networks,
        network,
        weights,
        advice,
        preset,
        speeds=speeds,
        users=users_of(running),
    )
    if network is None or found.complete is None or found.faults or forms.split_faults(draft):
        return found
    wish = forms.as_request(replace(draft, name=proposed), network, found.complete)
    return replace(found, forecast=await backend.forecast(wish))


async def _given(asked: Awaitable[T] | None, otherwise: T) -> T:
    """What is asked for, or what stands for it where nothing is asked."""
    return otherwise if asked is None else await asked


def users_of(running: Sequence[JobView]) -> dict[int, list[str]]:
    """The names of the jobs that learn on each GPU, by its id."""
    users: dict[int, list[str]] = {}
    for view in running:
        for gpu in view.job.gpus if view.status.state != "queued" else ():
            users.setdefault(gpu, []).append(view.job.name)
    return users


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
    """The settings that the network's engine heeds, each with its range in words."""
    rows = [row | {"range": forms.range_of(row["name"])} for row in describe_hyperparameters()]
    return [row for row in rows if network.engine in (row.get("engines") or [network.engine])]


def network_groups(choice: Choice, order: str = "") -> list[dict[str, Any]]:
    """All networks but the recommended one, by engine and by what they cost; groups without any are left out.

    `order`: one of ORDERS, by which each engine's networks are then one list, the least first.
    """
    best = choice.advice.network if choice.advice else ""
    others = [row for row in choice.networks if row.key != best]
    if order in ORDERS:
        ordered = sorted(others, key=lambda row: _cost(choice, row, order))
        engines = dict.fromkeys(row.engine for row in others)
        return [_group(engine, "All", [row for row in ordered if row.engine == engine], open=True) for engine in engines]
    groups: dict[str, list[NetworkChoice]] = {group: [] for group in GROUPS}
    for row in others:
        groups["recommended" if row.recommended else row.group].append(row)
    chosen = choice.draft.network
    return [_group(*GROUPS[group], rows, open=chosen in [row.key for row in rows]) for group, rows in groups.items() if rows]


def _group(engine: str, title: str, rows: list[NetworkChoice], open: bool) -> dict[str, Any]:
    return {"engine": engine, "title": title, "rows": rows, "open": open}


def _cost(choice: Choice, row: NetworkChoice, order: str) -> float:
    """Of a network, in the order's own unit; what is not known comes last."""
    speed = choice.speeds.get(row.key)
    known = {"size": row.parameters, "work": row.gflops, "speed": speed.seconds if speed else None}[order]
    return math.inf if known is None else known
