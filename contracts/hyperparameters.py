"""Every setting of a training: its default, range, unit and a sentence of help.

The wizard's fields, the command line's `--set`, the API's schema and docs/hyperparameters.md are all made from
this one class, so that they cannot drift apart. A network of the catalogue may bring defaults of its own.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import Invalid

LEARN = ("pytorch", "gluon")
"""The engines whose weights follow a gradient."""
PYTORCH = ("pytorch",)


def _setting(default: Any, help: str, *, level: str = "advanced", unit: str = "", engines: tuple[str, ...] = (), **limits: Any) -> Any:
    """`engines`: those that heed the setting, where not all do."""
    return Field(default, description=help, json_schema_extra={"level": level, "unit": unit, "engines": list(engines)}, **limits)


class Hyperparameters(BaseModel):
    """Settings of one training. Values out of range are refused, never clipped."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epochs: int = _setting(20, "How often every training picture is visited.", level="basic", unit="epochs", ge=1, le=10_000)
    batch_size: int = _setting(
        8, "How many crops one step learns from together. More needs more memory.", level="basic", unit="crops", ge=1, le=512
    )
    learning_rate: float = _setting(
        0.002,
        "The largest step size. Too high and the loss jumps, too low and nothing is learnt.",
        level="basic",
        engines=LEARN,
        gt=0,
        le=10,
    )
    short_side: int = _setting(
        384,
        "Pictures are resized so that their shorter side has this length, both to learn and to predict. Small things need more.",
        level="basic",
        unit="pixels",
        ge=32,
        le=4096,
    )
    crop: int = _setting(
        128,
        "Side of the square that is cut from the resized picture to learn from.",
        level="basic",
        unit="pixels",
        ge=32,
        le=4096,
        multiple_of=32,
    )
    augment: bool = _setting(True, "Flip, scale and recolour at random, so that few pictures teach more.", level="basic")
    crops_per_picture: int = _setting(8, "How many crops are cut from a picture each time it is visited.", unit="crops", ge=1, le=256)
    rare_class_share: float = _setting(
        0.67, "Share of the crops that are centred on a pixel of a class drawn at random; the rest lie anywhere.", ge=0, le=1
    )
    turns: bool = _setting(
        False, "Also turn by quarter turns and flip upside down: for pictures that have no up, such as from a microscope."
    )
    optimizer: Literal["adamw", "sgd"] = _setting(
        "adamw", "How the weights follow the gradient. AdamW forgives more; SGD is what older recipes use.", engines=LEARN
    )
    schedule: Literal["cosine", "one_cycle", "poly"] = _setting(
        "cosine",
        "How the learning rate falls after the warm-up: along a cosine; to next to nothing while the momentum swings against it "
        "(one_cycle); or by a power of 0.9 (poly).",
        engines=LEARN,
    )
    warm_up: float = _setting(0.05, "Share of the training in which the learning rate rises to its full size.", engines=LEARN, ge=0, le=0.9)
    weight_decay: float = _setting(0.01, "How strongly the weights are pulled towards zero.", engines=LEARN, ge=0, le=1)
    momentum: float = _setting(
        0.9, "How much of the last steps the optimiser keeps: SGD's momentum, and AdamW's first beta.", engines=LEARN, ge=0, lt=1
    )
    clip: float = _setting(
        5.0, "Largest length of the gradient; longer ones are shortened. 0 leaves them as they are.", engines=LEARN, ge=0, le=1e6
    )
    dice: float = _setting(
        1.0, "Weight of the Dice loss beside the cross-entropy: helps classes with few pixels.", engines=LEARN, ge=0, le=10
    )
    lovasz: float = _setting(
        0.0,
        "Weight of the Lovász loss beside the cross-entropy: it follows the IoU itself, best late in a training.",
        engines=PYTORCH,
        ge=0,
        le=10,
    )
    focal: float = _setting(
        0.0,
        "How little pixels count that the network is sure of already (focal loss, gamma). 0 is plain cross-entropy.",
        engines=PYTORCH,
        ge=0,
        le=5,
    )
    label_smoothing: float = _setting(
        0.0, "Share of the truth that is spread over all classes: for masks that are not exact.", engines=PYTORCH, ge=0, le=0.5
    )
    balance: float = _setting(
        0.0, "How much rare classes weigh in the cross-entropy: 0 not at all, 1 in full inverse of their share.", engines=LEARN, ge=0, le=1
    )
    average: float = _setting(
        0.98, "Decay of the running average of the weights that is scored and saved. 0 switches it off.", engines=LEARN, ge=0, lt=1
    )
    patience: int = _setting(
        0, "End the training when so many scorings in a row brought nothing better. 0 never does.", unit="scorings", ge=0, le=1000
    )
    validate_every: int = _setting(
        1, "Score the validation pictures after every so many epochs (and after the last).", unit="epochs", ge=1, le=1000
    )
    workers: int = _setting(2, "Threads that prepare crops while the network learns.", ge=0, le=64)
    accumulate: int = _setting(
        1,
        "In how many parts a batch goes through the network, one after the other: less memory, the same batch.",
        unit="parts",
        engines=PYTORCH,
        ge=1,
        le=512,
    )
    fit_memory: bool = _setting(
        False, "Take a batch that does not fit into memory in as many parts as it needs, instead of ending with an error.", engines=PYTORCH
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _setting(
        "auto",
        "The numbers to learn in: narrow ones are faster and need less memory. What is learnt is always scored in float32.",
        engines=PYTORCH,
    )
    compile: Literal["auto", "on", "off"] = _setting(
        "auto",
        "Translate the network for the device first: takes a minute or more, pays in long trainings on a GPU (auto finds out).",
        engines=PYTORCH,
    )


def read_hyperparameters(values: dict[str, Any], defaults: dict[str, Any], engine: str = "") -> Hyperparameters:
    """Settings from what somebody typed over a network's own defaults.

    Raises Invalid, naming the setting, what was given and what is allowed; so too where `engine` would not heed what was typed.
    """
    try:
        settings = Hyperparameters.model_validate({**defaults, **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "hyperparameters"
        if first["type"] == "extra_forbidden":
            raise Invalid(
                f"There is no setting “{name}”.", f"The settings are: {', '.join(sorted(Hyperparameters.model_fields))}."
            ) from None
        raise Invalid(f"The setting {name} cannot be {first['input']!r}.", f"{first['msg']}.") from None
    if settings.accumulate > settings.batch_size:
        raise Invalid(
            f"A batch of {settings.batch_size} crops cannot be taken in {settings.accumulate} parts.",
            f"Set accumulate to {settings.batch_size} at most, or choose a larger batch size.",
        )
    if engine:
        _refuse_unheeded(settings, [name for name in values if name not in defaults], engine)
    return settings


def _refuse_unheeded(settings: Hyperparameters, names: list[str], engine: str) -> None:
    for name in names:
        engines = heeded_by(name)
        if engine not in engines and engines and getattr(settings, name) != Hyperparameters.model_fields[name].default:
            raise Invalid(
                f"The engine {engine} does not heed the setting {name}.", f"Leave it out, or choose the engine {' or '.join(engines)}."
            )


def heeded_by(name: str) -> list[str]:
    """The engines that heed a setting; empty: all of them."""
    extra = Hyperparameters.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return list(extra["engines"])  # type: ignore[arg-type]  # a list of str, as _setting makes it


def describe_hyperparameters() -> list[dict[str, Any]]:
    """One row a setting, for forms and documents: name, kind, default, minimum, maximum, unit, level, help, choices,
    and the engines that heed it (empty: all)."""
    rows = []
    for name, schema in Hyperparameters.model_json_schema()["properties"].items():
        rows.append(
            {
                "name": name,
                "title": name.replace("_", " ").capitalize(),
                "kind": "choice" if "enum" in schema else schema["type"],
                "default": schema["default"],
                "minimum": schema.get("minimum", schema.get("exclusiveMinimum")),
                "maximum": schema.get("maximum", schema.get("exclusiveMaximum")),
                "multiple_of": schema.get("multipleOf"),
                "unit": schema["unit"],
                "level": schema["level"],
                "help": schema["description"],
                "choices": schema.get("enum", []),
                "engines": schema["engines"],
            }
        )
    return rows
