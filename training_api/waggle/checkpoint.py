"""Reading a checkpoint.pth.tar, this product's or the plugin's own, without running anything that is in it.

A file of tensors and plain data is read by PyTorch's own restricted reader (weights_only). The plugin pickles the whole model
object; of such a file a reader that knows no class but tensors and plain data makes inert shells, and the weights are taken
out of these: no code of the file, and no class that it names, is ever called.
"""

import collections
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contracts.errors import Invalid

FILE = "checkpoint.pth.tar"
BEST = "model_best.pth.tar"
SCALAR = np.float64(0).__reduce__()[0]
NUMPY: list[Any] = [
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]
"""The plugin's best_mean_iu is a number of numpy's, which old and new versions name differently."""
STORAGES = [f"{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")]
HEADS_LEFT_OUT = ("aux_classifier.", "fc.")
"""torchvision's second head, which helps to learn and answers nothing, and the head of a classifier."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. `iteration`: steps that were taken; 0 where it does not say."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    iteration: int
    best_mean_iu: float | None


def read_checkpoint(file: Path) -> Checkpoint:
    """Raises Invalid for a file that holds no weights, or cannot be read."""
    content = _read(file)
    values = content if isinstance(content, Mapping) else {"model_state_dict": content}
    weights = next((found for key in ("model_state_dict", "state_dict", "model") if (found := _tensors(values.get(key)))), None)
    weights = weights or _tensors(values)
    if not weights:
        cure = "Save it with torch.save({'model_state_dict': model.state_dict()}, file)."
        raise Invalid(f"The checkpoint {file.name} holds no weights that can be read safely.", cure)
    optimizer = values.get("optim_state_dict")
    best = values.get("best_mean_iu")
    return Checkpoint(
        weights={name.removeprefix("module."): value for name, value in weights.items()},
        optimizer=dict(optimizer) if isinstance(optimizer, Mapping) else None,
        iteration=int(values.get("iteration") or 0),
        best_mean_iu=float(best) if isinstance(best, int | float | np.floating) else None,
    )


def put_weights(network: nn.Module, checkpoint: Checkpoint, file: Path) -> list[str]:
    """Put a checkpoint's weights into a network; gives what stays untrained because its shape differs: the head of other classes.

    A backbone alone, under a classifier's names, will do. Raises Invalid where hardly anything fits.
    """
    own = network.state_dict()
    weights = {name: value for name, value in checkpoint.weights.items() if not name.startswith(HEADS_LEFT_OUT)}
    if not any(name in own for name in weights):
        weights = {f"backbone.{name}": value for name, value in weights.items()}
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    untrained = [name for name in own if name not in fitting]
    strange = [name for name in untrained if name.startswith("backbone.")]
    if strange:
        raise Invalid(
            f"The weights in {file.name} are of another network: {len(strange)} of its {len(own)} parts do not fit, such as {strange[0]}.",
            "Choose the fcn in config.list that the checkpoint was trained with: 50 or 101.",
        )
    network.load_state_dict(fitting, strict=False)
    return untrained


def _read(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals(NUMPY):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass  # it holds more than plain data
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise _unreadable(file, error) from None
    try:
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_Inert)
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, pickle.UnpicklingError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: BaseException) -> Invalid:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return Invalid(f"The checkpoint {file.name} cannot be read: {reason}.", "Copy it again, or take it out of the folder to start anew.")


class _Shell:
    """Stands for an object of any class; keeps the state that the object had, and does nothing."""

    def __new__(cls, *_arguments: Any, **_named: Any) -> "_Shell":
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_arguments: Any, **_named: Any) -> "_Shell":
        return _Shell()

    def __setitem__(self, key: Any, value: Any) -> None:
        """What a kind of dict would be filled with is dropped."""

    def extend(self, values: Any) -> None:
        """And so is what a kind of list would be."""

    append = extend


PLAIN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): lambda value, _gradient, _hooks: value,
    ("torch", "Size"): torch.Size,
    ("numpy.core.multiarray", "scalar"): SCALAR,
    ("numpy._core.multiarray", "scalar"): SCALAR,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin1"),
}
"""What tensors and plain data are made with. Of all else, a shell."""


class _Inert:
    """What torch.load takes for the module `pickle`: one that finds tensors and plain data, and shells for all else."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module in ("torch", "torch.storage") and name in STORAGES:
                return getattr(torch, name)
            return PLAIN.get((module, name), _Shell)

    @classmethod
    def load(cls, file: Any, **settings: Any) -> Any:
        return cls.Unpickler(file, **settings).load()


def _tensors(value: Any) -> dict[str, Tensor]:
    """The weights in a state dict, or in what was a module: its own, its buffers, and those of the modules in it."""
    if isinstance(value, _Shell) and isinstance(value.state, dict):
        own = {**(value.state.get("_parameters") or {}), **(value.state.get("_buffers") or {})}
        modules = (value.state.get("_modules") or {}).items()
        inner = {f"{name}.{key}": tensor for name, module in modules for key, tensor in _tensors(module).items()}
        return {**{name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}, **inner}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    return {}
