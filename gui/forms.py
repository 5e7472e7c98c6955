"""What has been chosen in the wizard so far, carried in the address from step to step, and the fields that change it.

Nothing is kept on the server: every step's address holds all values, so Back, reload and bookmarks lose nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from pydantic import ValidationError

from contracts.hyperparameters import Hyperparameters, describe_hyperparameters
from contracts.job import Job, JobRequest, is_name
from contracts.queue import Priority
from contracts.weights import WeightsChoice
from gui.answers import NetworkChoice
from gui.figures import setting

SETTING = "set."
ORIGIN = "from."
LIMITS = ("memory_limit", "cpus", "priority")
"""What the machine gives a training, and when."""
WORDS = ("dataset", "network", "name", "validation", "seed", "preset", "weights", "weights_from", "processes", "nodes", *LIMITS)
LARGEST_SEED = 2**31 - 1
MOST_PROCESSES = MOST_NODES = 256
LEAST_MEMORY, MOST_MEMORY = 16, 10**9
MOST_CPUS = 4096
SCHEMA: dict[str, dict[str, Any]] = Hyperparameters.model_json_schema()["properties"]
KNOWN = {row["name"]: row for row in describe_hyperparameters()}


@dataclass(frozen=True)
class Draft:
    """A training being put together, as typed. `validation` is in per cent; `settings` holds what differs from the preset:
    the recommended values, or with the preset "own" the network's defaults. `gpus` of None: nobody has chosen yet. `name` of "": the
    one that is proposed."""

    dataset: str = ""
    network: str = ""
    name: str = ""
    validation: str = "20"
    seed: str = "0"
    preset: str = ""
    weights: str = ""
    weights_from: str = ""
    processes: str = ""
    nodes: str = ""
    memory_limit: str = ""
    cpus: str = ""
    priority: str = ""
    gpus: tuple[str, ...] | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def gpu_ids(self) -> list[str]:
        return [gpu for gpu in self.gpus or () if gpu.isdigit()]

    def pairs(self, *left_out: str) -> list[tuple[str, str]]:
        """Everything chosen, as fields of a form or words of an address, but for the fields that a step shows itself."""
        words = [(name, getattr(self, name)) for name in WORDS if getattr(self, name)]
        if self.gpus is not None:
            words += [("gpus", gpu) for gpu in self.gpus or [""]]
        kept = [(name, value) for name, value in words if name not in left_out]
        if "settings" in left_out:
            return kept
        return kept + [(SETTING + name, value) for name, value in self.settings.items()]

    def without(self, preset: dict[str, Any]) -> "Draft":
        """Only what differs: a value that equals the preset's follows it when another network or dataset is chosen."""
        return replace(self, settings={name: text for name, text in self.settings.items() if not _same(text, preset[name])})


def read_draft(pairs: Iterable[tuple[str, str]]) -> Draft:
    """From an address or a form. An empty field stands for the default; what is not known is passed over."""
    words: dict[str, str] = {}
    gpus: list[str] | None = None
    origins: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name, value in pairs:
        text = value.strip()
        if name == "gpus":
            gpus = [*(gpus or []), *([text] if text else [])]
        elif name.startswith(ORIGIN):
            origins[name.removeprefix(ORIGIN)] = text
        elif name.startswith(SETTING) and name.removeprefix(SETTING) in KNOWN and text:
            settings[name.removeprefix(SETTING)] = text
        elif name in WORDS and text:
            words[name] = text
    if origins:  # a list for every kind of weights, of which the chosen kind's counts
        words["weights_from"] = origins.get(words.get("weights", ""), "")
    return Draft(**words, gpus=None if gpus is None else tuple(dict.fromkeys(gpus)), settings=settings)


def draft_of(job: Job, defaults: dict[str, Any]) -> Draft:
    """A former training as the start of a new one, under a new name."""
    settings = {name: setting(value) for name, value in job.hyperparameters.model_dump().items()}
    draft = Draft(
        dataset=job.dataset,
        network=f"{job.engine}/{job.network}/{job.backbone}",
        validation=setting(round(job.validation_share * 100, 6)),
        seed=str(job.seed),
        preset="own",
        weights=job.weights,
        weights_from=job.weights_from,
        processes=str(job.processes) if job.processes > 1 else "",
        nodes=str(job.nodes) if job.nodes > 1 else "",
        memory_limit="" if job.memory_limit is None else str(job.memory_limit),
        cpus="" if job.cpus is None else setting(job.cpus),
        priority="" if job.priority == "normal" else job.priority,
        gpus=tuple(str(gpu) for gpu in job.gpus),
        settings=settings,
    )
    return draft.without(defaults)


def read_settings(draft: Draft, preset: dict[str, Any]) -> tuple[Hyperparameters | None, dict[str, str]]:
    """The complete settings, or None and what is allowed for each field that is out of range."""
    try:
        complete = Hyperparameters.model_validate({**preset, **draft.settings})
    except ValidationError as error:
        faults = {str(fault["loc"][0]) if fault["loc"] else "": fault["msg"] for fault in error.errors()}
        return None, {name: allowed(name) if name in KNOWN else f"{message}." for name, message in faults.items()}
    if complete.accumulate > complete.batch_size:
        return None, {"accumulate": f"Give {complete.batch_size} at most: a batch has no more crops to share out."}
    return complete, {}


def settings_faults(draft: Draft, network: NetworkChoice | None, weights: list[WeightsChoice]) -> dict[str, str]:
    """What is wrong with the second step's fields but the name, by field. `weights`: what the network can start from here."""
    faults = {}
    if network is None or not network.available:
        faults["network"] = "Choose a network that can be trained on this machine."
    elif fault := _weights_fault(draft, weights):
        faults["weights"] = fault
    for name, most in (("processes", MOST_PROCESSES), ("nodes", MOST_NODES)):
        count = getattr(draft, name)
        if count and not (count.isascii() and count.isdigit() and 1 <= int(count) <= most):
            faults[name] = f"Give a whole number from 1 to {most}."
    memory = draft.memory_limit
    if memory and not (memory.isascii() and memory.isdigit() and LEAST_MEMORY <= int(memory) <= MOST_MEMORY):
        faults["memory_limit"] = f"Give a whole number from {LEAST_MEMORY} to {MOST_MEMORY}, or nothing."
    if draft.cpus and not (_is_number(draft.cpus) and 0 < float(draft.cpus) <= MOST_CPUS):
        faults["cpus"] = f"Give a number above 0 and up to {MOST_CPUS}, or nothing."
    return faults


def split_faults(draft: Draft) -> dict[str, str]:
    """What is wrong with the first step's fields, by field."""
    faults = {}
    if not is_share(draft.validation):
        faults["validation"] = "Give a share between 1 and 99 %."
    if not draft.seed.isascii() or not draft.seed.isdigit() or int(draft.seed) > LARGEST_SEED:
        faults["seed"] = f"Give a whole number from 0 to {LARGEST_SEED}."
    return faults


def _weights_fault(draft: Draft, weights: list[WeightsChoice]) -> str:
    if not draft.weights:
        return ""
    chosen = next((row for row in weights if row.type == draft.weights), None)
    if chosen is None or not chosen.available:
        return f"{chosen.cause} {chosen.cure}" if chosen else "Choose what it starts from."
    names = [origin.name for origin in chosen.origins if origin.name]
    if draft.weights_from in names or (not draft.weights_from and not chosen.named):
        return ""
    return f"Choose one of: {', '.join(names)}." if names else "These weights have no names to choose from."


def allowed(name: str) -> str:
    """The range of a setting as a sentence, from the same schema that refuses what is outside."""
    schema = SCHEMA[name]
    if "enum" in schema:
        return f"Choose one of: {', '.join(schema['enum'])}."
    if schema["type"] == "boolean":
        return "Choose on or off."
    return f"Give {'a whole number' if schema['type'] == 'integer' else 'a number'} {range_of(name)}."


def range_of(name: str) -> str:
    """The range of a number as words, such as “from 1 to 10000”; empty for what is chosen from a list."""
    schema = SCHEMA[name]
    if "enum" in schema or schema["type"] == "boolean":
        return ""
    low = f"above {setting(schema['exclusiveMinimum'])} and up" if "exclusiveMinimum" in schema else f"from {setting(schema['minimum'])}"
    high = f"to below {setting(schema['exclusiveMaximum'])}" if "exclusiveMaximum" in schema else f"to {setting(schema['maximum'])}"
    multiple = f", a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    return f"{low} {high}{multiple}"


def name_fault(name: str, taken: set[str]) -> str:
    """Why a job cannot have this name; empty where it can."""
    if not is_name(name):
        return "Use 1 to 64 letters, digits, dots, dashes and underscores, starting with a letter or a digit."
    return f"There is a job named {name} already: choose another name." if name in taken else ""


def propose_name(dataset: str, taken: set[str]) -> str:
    """The dataset's name and the next free number, such as pads-3."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-._")[:56] or "job"
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def as_request(draft: Draft, network: NetworkChoice, complete: Hyperparameters) -> JobRequest:
    """What the training API is asked for. The draft has been checked before, but for its name."""
    gpus = [int(gpu) for gpu in draft.gpu_ids]
    alone = network.engine != "pytorch" or bool(gpus)  # there is nothing to choose
    return JobRequest(
        name=draft.name,
        dataset=draft.dataset,
        engine=network.engine,
        network=network.network,
        backbone=network.backbone,
        weights=draft.weights or "from_scratch",
        weights_from=draft.weights_from,
        gpus=gpus,
        processes=1 if alone else int(draft.processes or 1),
        nodes=int(draft.nodes or 1) if network.engine == "pytorch" else 1,
        memory_limit=int(draft.memory_limit) if draft.memory_limit else None,
        cpus=float(draft.cpus) if draft.cpus else None,
        priority=next((priority for priority in get_args(Priority) if priority == draft.priority), "normal"),
        validation_share=float(draft.validation) / 100,
        seed=int(draft.seed),
        hyperparameters={name: value for name, value in complete.model_dump().items() if value != network.defaults[name]},
    )


def is_share(text: str) -> bool:
    """Whether this is a share in per cent, between 0 and 100."""
    return _is_number(text) and 0 < float(text) < 100


def _same(text: str, default: Any) -> bool:
    if isinstance(default, int | float) and not isinstance(default, bool):
        return _is_number(text) and float(text) == float(default)
    return text == setting(default)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
