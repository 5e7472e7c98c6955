"""The networks of the pytorch engine: from a row of the catalogue to a module."""

from typing import Any

import torch
from torch import nn

DEPTH = 4
DECODER = (128, 64, 32, 16)
"""Four of the encoder's five stages and half the usual width of U-Net's decoder: a step costs a third less, and what a few
dozen pictures teach from scratch fits in (docs/first-model.md)."""


def build_network(network: str, backbone: str, classes: int) -> nn.Module:
    """An untrained network: float (n, 3, h, w) → scores (n, classes, h, w); h and w multiples of the catalogue's `multiple_of`."""
    smp = _import_smp()
    if network != "unet":
        raise ValueError(f"no such network: {network}")
    module: Any = smp.Unet(backbone, encoder_depth=DEPTH, encoder_weights=None, classes=classes, decoder_channels=DECODER)
    module.encoder.layer4 = nn.Identity()  # beyond DEPTH it is never run, but would be averaged, saved and shipped
    return module


def _import_smp() -> Any:
    """segmentation_models_pytorch, also beside a torchvision whose compiled operators were built for another PyTorch.

    torchvision declares fakes of two of its operators at import and fails where they are not registered; neither is used
    here, so they are declared by name first.
    """
    global _placeholders
    if _placeholders is None and not hasattr(torch.ops.torchvision, "nms"):
        _placeholders = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            _placeholders.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import segmentation_models_pytorch

    return segmentation_models_pytorch


_placeholders: torch.library.Library | None = None
