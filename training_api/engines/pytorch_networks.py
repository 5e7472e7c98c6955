"""The networks of the pytorch engine: from a row of the catalogue to a module, float (n, 3, h, w) → scores (n, classes, h, w).

What weights can be put into, whatever the family:

- `backbone_of(module)` is the encoder. Its state dict has the names of the published file: of torchvision's classifiers (and
  without `features.` before a mobilenet's), of smp's files as they are; what comes from timm lies one level deeper, in `model.`,
  with timm's own names for `features_only` (a stage is `stages_0` where the file has `stages.0`). The file may hold more than the
  encoder (a classifier, a stage that the network cuts off), never less.
- A torchvision network is named as torchvision names it (`backbone.`, `classifier.`), without the auxiliary head.
- `head_names(module)` are the parameters whose shape depends on the classes. All others fit whatever the classes are.
"""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

DEPTH = 4
DECODER = (128, 64, 32, 16)
"""Four of the encoder's five stages and half the usual width of U-Net's decoder: a step costs a third less, and what a few
dozen pictures teach from scratch fits in (docs/first-model.md)."""
ENCODERS = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "mobilenet_v2": "mobilenet_v2",
    "efficientnet_b0": "tu-efficientnet_b0.ra_in1k",
    "efficientnet_b3": "tu-efficientnet_b3.ra2_in1k",
    "mobilenet_v3_large": "tu-mobilenetv3_large_100.ra_in1k",
    "mobilenet_v4_medium": "tu-mobilenetv4_conv_medium.e500_r256_in1k",
    "convnext_nano": "tu-convnext_nano.in12k_ft_in1k",
    "convnext_tiny": "tu-convnext_tiny.in12k_ft_in1k",
    "convnext_small": "tu-convnext_small.in12k_ft_in1k",
    "pvt_v2_b0": "tu-pvt_v2_b0.in1k",
    "pvt_v2_b2": "tu-pvt_v2_b2.in1k",
}
"""What segmentation_models_pytorch calls a backbone. After `tu-` comes timm's name with the tag of its weights; for the others the
published weights are smp's `imagenet`. torchvision's networks bring their own (`torchvision.models`)."""
SETTINGS: dict[str, dict[str, Any]] = {
    "unet/resnet18": {"encoder_depth": DEPTH, "decoder_channels": DECODER},
    "pspnet": {"encoder_depth": 5, "output_stride": 8},  # all stages, dilated, as published; smp by itself stops after the third
}
TORCHVISION = ("fcn", "deeplabv3", "lraspp")
HEADS = {
    "fcn": ("classifier.4.",),
    "deeplabv3": ("classifier.4.",),
    "lraspp": ("classifier.low_classifier.", "classifier.high_classifier."),
}


def build_network(network: str, backbone: str, classes: int) -> nn.Module:
    """An untrained network. h and w of what it reads are multiples of the catalogue's `multiple_of`."""
    module = _torchvision(network, backbone, classes) if network in TORCHVISION else _smp(network, backbone, classes)
    _mend(module)
    return module


def backbone_of(module: nn.Module) -> nn.Module:
    """The encoder of a network, which weights learnt on ImageNet fit into."""
    encoder = module.backbone if isinstance(module, TorchvisionNetwork) else module.encoder
    assert isinstance(encoder, nn.Module)
    return encoder


def head_names(module: nn.Module) -> list[str]:
    """The names, in its state dict, of what depends on the number of classes: to be left untrained where the classes differ."""
    prefixes = HEADS[module.family] if isinstance(module, TorchvisionNetwork) else ("segmentation_head.",)
    return [name for name in module.state_dict() if name.startswith(prefixes)]


class TorchvisionNetwork(nn.Module):
    """One of torchvision's networks, as one tensor instead of a dict, at the size of the picture."""

    def __init__(self, family: str, network: Any) -> None:
        super().__init__()
        self.family = family
        self.backbone = network.backbone
        self.classifier = network.classifier

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.backbone(pixels)
        scores = self.classifier(features if self.family == "lraspp" else features["out"])
        return functional.interpolate(scores, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def _torchvision(network: str, backbone: str, classes: int) -> nn.Module:
    _import_smp()
    from torchvision.models import segmentation

    build = getattr(segmentation, f"{network}_{backbone}")
    return TorchvisionNetwork(network, build(weights=None, weights_backbone=None, num_classes=classes))


def _smp(network: str, backbone: str, classes: int) -> nn.Module:
    smp = _import_smp()
    family = {
        "unet": smp.Unet,
        "unetplusplus": smp.UnetPlusPlus,
        "fpn": smp.FPN,
        "pspnet": smp.PSPNet,
        "deeplabv3plus": smp.DeepLabV3Plus,
        "upernet": smp.UPerNet,
        "segformer": smp.Segformer,
    }[network]
    settings = SETTINGS.get(f"{network}/{backbone}", SETTINGS.get(network, {}))
    module: Any = family(ENCODERS[backbone], encoder_weights=None, classes=classes, **settings)
    if settings.get("encoder_depth") == DEPTH:
        module.encoder.layer4 = nn.Identity()  # beyond DEPTH it is never run, but would be averaged, saved and shipped
    return module


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch norm behind a global pool: a batch of one leaves one number a channel, which has no deviation, so the running
    statistics serve. The names and shapes are those of the batch norm in whose place it stands."""

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features.numel() == features.shape[1]:
            return functional.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(features)


class ExportablePool(nn.AdaptiveAvgPool2d):
    """Adaptive pooling to `size` × `size`, as a product of matrices where it is exported: ONNX has no adaptive pooling, and the
    size of the picture is not known yet."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        if not torch.onnx.is_in_onnx_export():
            return super().forward(features)
        rows, columns = (self._shares(features.shape[side]) for side in (2, 3))
        return rows @ features @ columns.T

    def _shares(self, length: int) -> Tensor:
        """(size, length): how much each pixel counts in the mean of each bin."""
        bins, pixels = torch.arange(self.size)[:, None], torch.arange(length)[None]
        inside = (pixels >= bins * length // self.size) & (pixels < ((bins + 1) * length + self.size - 1) // self.size)
        return inside.float() / inside.sum(1, keepdim=True)


class PyramidBlock(nn.Module):
    """A level of PSPNet's pyramid: smp's, under the same names, but what is exported has a pool of its own."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.pool = block.pool

    def forward(self, features: Tensor) -> Tensor:
        return functional.interpolate(self.pool(features), size=features.shape[2:], mode="bilinear", align_corners=True)


def _mend(module: nn.Module) -> None:
    """Put in what trains from a batch of one and what can be exported, wherever something is pooled to a few pixels."""
    for parent in list(module.modules()):
        if isinstance(parent, nn.Sequential) and any(isinstance(child, nn.AdaptiveAvgPool2d) for child in parent):
            for norm in parent.modules():
                if type(norm) is nn.BatchNorm2d:
                    norm.__class__ = PooledBatchNorm
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "PSPBlock":
                setattr(parent, name, PyramidBlock(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d):
                size: Any = child.output_size
                setattr(parent, name, ExportablePool(size if isinstance(size, int) else size[0]))


def _import_smp() -> Any:
    """segmentation_models_pytorch, also beside a torchvision whose compiled operators were built for another PyTorch.

    torchvision declares fakes of two of its operators at import and fails where they are not registered. Nothing here uses them,
    so they are declared by name where its library cannot be loaded; where it can, declaring them first would break it.
    """
    global _placeholders
    torchvision = importlib.util.find_spec("torchvision")
    if torchvision and torchvision.origin and _placeholders is None:
        for library in Path(torchvision.origin).parent.glob("_C*.so"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(library)
        if not hasattr(torch.ops.torchvision, "nms"):
            _placeholders = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                _placeholders.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import segmentation_models_pytorch

    return segmentation_models_pytorch


_placeholders: torch.library.Library | None = None
