"""Weights from elsewhere into a network of the pytorch engine: where the packages say that they are, read without running any code."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_url
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from contracts.errors import Invalid
from contracts.networks import Network
from contracts.weights import WHOLE_NETWORKS, licence_of
from training_api.downloads import Source
from training_api.engines import Start
from training_api.engines.pytorch_networks import ENCODERS, _import_smp, backbone_of, head_names

INNER = ("averaged", "model_state_dict", "state_dict", "model", "network")
"""Under these keys checkpoints keep the weights; of the engine's own the averaged ones are the model."""
WRAPPERS = ("", "module.", "model.", "encoder.", "backbone.", "features.", "module.encoder.", "module.backbone.", "module.features.")
"""What other programs put before the names of a backbone."""


def sources_of(row: Network) -> list[Source]:
    """torchvision's own for its networks; for the others the encoder's, from where smp or timm fetches it."""
    smp = _import_smp()
    if row.network in WHOLE_NETWORKS:
        from torchvision.models import get_model_weights

        name = f"{row.network}_{row.backbone}"
        address = get_model_weights(name).DEFAULT.url
        file = address.rpartition("/")[2]
        beginning = re.search(r"-([0-9a-f]{8,64})\.", file)
        digest = f"sha256:{beginning.group(1)}" if beginning else ""
        return [Source(name, file, address, licence_of(row), digest, whole=True)]
    encoder = ENCODERS[row.backbone]
    repository, revision = "", None
    if encoder.startswith("tu-"):
        import timm

        settings: Any = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        repository = settings.hf_hub_id
    else:
        settings = smp.encoders.encoders[encoder]["pretrained_settings"]["imagenet"]
        repository, revision = settings["repo_id"], settings["revision"]
    kept = f"{row.backbone}--{repository.replace('/', '--')}{f'--{revision[:8]}' if revision else ''}.safetensors"
    return [Source(row.backbone, kept, hf_hub_url(repository, "model.safetensors", revision=revision), licence_of(row))]


def take_weights(network: nn.Module, start: Start) -> None:
    """Put a file's weights into an untrained network. Raises Invalid where they do not fit; a head that is not to be kept stays
    as it was made."""
    if start.file is None:
        return
    target, chosen = fitting(network, read_tensors(start.file), start)
    # Not the encoder's own method: smp's take names out that are not there any more.
    nn.Module.load_state_dict(target, chosen, strict=False)


def fitting(network: nn.Module, tensors: dict[str, Tensor], start: Start) -> tuple[nn.Module, dict[str, Tensor]]:
    """The part of a network that a file is for, and the file's tensors for it under that part's own names. Raises Invalid."""
    target, left = network, set[str]()
    if start.part == "backbone":
        target = backbone_of(network)
        tensors = _named_alike(target.state_dict(), tensors)
    elif not start.keep_head:
        left = set(head_names(network))
    wanted = {name: value for name, value in target.state_dict().items() if name not in left}
    wrong = [name for name, value in wanted.items() if name not in tensors or tensors[name].shape != value.shape]
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    if wrong:
        file = start.file.name if start.file else "the file"
        raise Invalid(
            f"The weights “{start.name}” do not fit this {start.part}: {len(wrong)} of its {len(wanted)} tensors are missing in "
            f"{file} or have another shape, such as {wrong[0]}.",
            "Choose weights of the same network, or start from_scratch.",
        )
    return target, {name: tensors[name] for name in wanted if name in tensors}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """A state dict by its names, from safetensors or from a PyTorch file without anything but numbers. Raises Invalid."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise Invalid(f"{file.name} cannot be read as weights ({error}).", "Fetch it again, or copy it anew.") from error
    except pickle.UnpicklingError as error:
        raise Invalid(
            f"{file.name} holds more than numbers, and may hold a program: it was not read.",
            "Save its state_dict() alone, best as safetensors.",
        ) from error
    for name in INNER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise Invalid(f"{file.name} holds no state dict.", "Save the network's state_dict(), best as safetensors.")
    return tensors


def _named_alike(wanted: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under the names that a backbone has for them.

    smp puts timm's encoders one level deeper (`model.`), timm's `features_only` writes stages_0 for stages.0, and others have
    wrappers of their own around: names are compared without either, and the wrapper that explains most counts.
    """
    targets = {_plain(name): name for name in wanted}
    found: dict[str, Tensor] = {}
    for wrapper in WRAPPERS:
        plain = {_plain(name.removeprefix(wrapper)): value for name, value in tensors.items() if name.startswith(wrapper)}
        fitting = {name: plain[key] for key, name in targets.items() if key in plain}
        if len(fitting) > len(found):
            found = fitting
    return found


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace(".", "_")
