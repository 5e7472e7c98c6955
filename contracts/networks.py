"""The catalogue: every network that can be trained, the engine that trains it, and the defaults it learns well with.

An engine is available where its packages are; that is asked of the machine (docker_sdk_api/machine.py), not said here.
"""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, computed_field

from contracts.errors import Invalid

ENGINES = {
    "pytorch": "PyTorch: the fast one, on any machine.",
    "gluon": "GluonCV on MXNet: the networks of the GluonCV training GUI. Nobody looks after either any more, and of GPUs they know "
    "NVIDIA's from the GTX 900 to the RTX 40 series, none newer. Take pytorch unless you need these very networks, their files or a client "
    "of that GUI.",
    "majority": "Always answers the commonest class: what “no better than nothing” scores. Trains in seconds.",
}
LIGHT, MEDIUM = 10, 30
"""Up to so many GFLOPs a network is light, up to so many it is medium."""


class Network(BaseModel):
    """A row of the catalogue.

    `parameters` in millions, with two classes; `gflops`: 10⁹ multiplications and additions, each counted, to read one picture of
    256 × 256 pixels (0: nobody counted); `seconds`: one training step on one crop of that size in float32 on two cores with AVX2,
    measured (0: nobody did; docs/networks.md, benchmarks/networks.py). `kept`: MB (10⁶ bytes) that such a crop keeps in float32
    while it is learnt from, counted (0: nobody did). `recommended`: for whom, "" for most. `weights_licence`: licence and name of
    the weights that `pre_trained` fetches, "" where there are none. `smallest_crop`: below it the deepest feature map is one pixel,
    and nothing is learnt.
    """

    engine: str
    network: str
    backbone: str
    title: str
    advice: str
    parameters: float
    gflops: float = 0
    seconds: float
    kept: float = 0
    recommended: str = ""
    multiple_of: int = 32
    smallest_crop: int = 32
    weights_licence: str = ""
    defaults: dict[str, Any] = {}

    @property
    def key(self) -> str:
        return f"{self.engine}/{self.network}/{self.backbone}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def group(self) -> str:
        """Where a table puts it: light, medium or heavy, and for the other engines their name."""
        if self.engine != "pytorch":
            return self.engine
        return "light" if self.gflops <= LIGHT else "medium" if self.gflops <= MEDIUM else "heavy"

    def refuse_small_crop(self, crop: int) -> None:
        """Raises Invalid where a crop is too small for this network."""
        if crop < self.smallest_crop:
            raise Invalid(
                f"A crop of {crop} pixels is too small for {self.title}: its deepest feature map would be a single pixel.",
                f"Set crop to {self.smallest_crop} or more, or take another network.",
            )


FAMILIES = {
    "unet": "U-Net",
    "unetplusplus": "U-Net++",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "deeplabv3plus": "DeepLabV3+",
    "upernet": "UPerNet",
    "segformer": "SegFormer’s decoder",
    "fcn": "FCN",
    "deeplabv3": "DeepLabV3",
    "lraspp": "LR-ASPP",
}
MULTIPLES = {"unet/resnet18": 16, "fcn": 8, "deeplabv3": 16, "lraspp": 16, "pspnet": 8, "deeplabv3plus": 16}
KEPT = {
    "unet/resnet18": 82,
    "unet/efficientnet_b0": 166,
    "lraspp/mobilenet_v3_large": 75,
    "deeplabv3plus/resnet50": 160,
    "upernet/convnext_tiny": 200,
    "deeplabv3plus/mobilenet_v2": 152,
    "segformer/pvt_v2_b0": 92,
    "fpn/mobilenet_v3_large": 76,
    "deeplabv3/mobilenet_v3_large": 79,
    "segformer/mobilenet_v4_medium": 96,
    "unet/mobilenet_v3_large": 110,
    "deeplabv3plus/efficientnet_b3": 313,
    "fpn/efficientnet_b3": 240,
    "unet/efficientnet_b3": 274,
    "unetplusplus/efficientnet_b0": 201,
    "segformer/convnext_nano": 118,
    "segformer/pvt_v2_b2": 246,
    "fpn/resnet50": 130,
    "unet/resnet34": 98,
    "deeplabv3plus/resnet34": 75,
    "unet/convnext_tiny": 195,
    "unet/resnet50": 175,
    "pspnet/resnet18": 65,
    "deeplabv3plus/resnet101": 214,
    "unetplusplus/resnet34": 221,
    "upernet/resnet50": 176,
    "upernet/convnext_small": 285,
    "pspnet/resnet50": 273,
    "fcn/resnet50": 258,
    "deeplabv3/resnet50": 269,
    "fcn/resnet101": 472,
    "deeplabv3/resnet101": 484,
}
"""MB that PyTorch keeps of one crop of 256 × 256 pixels for the way back, in float32, weights not counted: the tensors that autograd saves
in a batch of two, by torch.autograd.graph.saved_tensors_hooks on the device `meta`, which computes nothing."""
TORCHVISION = "BSD-3-Clause (torchvision, ImageNet-1k)"
WHOLE = "BSD-3-Clause (torchvision, the whole network: COCO with the classes of Pascal VOC)"
BACKBONES = {
    "resnet18": ("ResNet-18", TORCHVISION),
    "resnet34": ("ResNet-34", TORCHVISION),
    "resnet50": ("ResNet-50", TORCHVISION),
    "resnet101": ("ResNet-101", TORCHVISION),
    "mobilenet_v2": ("MobileNetV2", TORCHVISION),
    "mobilenet_v3_large": ("MobileNetV3-Large", "Apache-2.0 (timm, ImageNet-1k)"),
    "mobilenet_v4_medium": ("MobileNetV4-Medium", "Apache-2.0 (timm, ImageNet-1k)"),
    "efficientnet_b0": ("EfficientNet-B0", "Apache-2.0 (timm, ImageNet-1k)"),
    "efficientnet_b3": ("EfficientNet-B3", "Apache-2.0 (timm, ImageNet-1k)"),
    "convnext_nano": ("ConvNeXt-Nano", "Apache-2.0 (timm, ImageNet-12k, then 1k)"),
    "convnext_tiny": ("ConvNeXt-Tiny", "Apache-2.0 (timm, ImageNet-12k, then 1k)"),
    "convnext_small": ("ConvNeXt-Small", "Apache-2.0 (timm, ImageNet-12k, then 1k)"),
    "pvt_v2_b0": ("PVTv2-B0", "Apache-2.0 (timm, ImageNet-1k)"),
    "pvt_v2_b2": ("PVTv2-B2", "Apache-2.0 (timm, ImageNet-1k)"),
}
"""Of the pytorch engine: what people call it, and whose weights it starts from. None is here whose licence forbids commercial use."""
GENTLE = ("convnext", "pvt")
"""Backbones with layer norm or attention, which a large learning rate ruins."""


def _pytorch(key: str, parameters: float, gflops: float, seconds: float, advice: str, recommended: str = "", **defaults: Any) -> Network:
    """A row of the pytorch engine from its network/backbone and its figures; `defaults` beside those of its size."""
    network, backbone = key.split("/")
    name, licence = BACKBONES[backbone]
    first = key == "unet/resnet18"
    usual: dict[str, Any] = {"short_side": 480, "crop": 256, "crops_per_picture": 2, "epochs": 16}
    usual |= {"learning_rate": 0.0003 if backbone.startswith(GENTLE) else 0.001 if gflops <= MEDIUM else 0.0005}
    usual |= {"batch_size": 8 if gflops <= MEDIUM else 4}
    return Network(
        engine="pytorch",
        network=network,
        backbone=backbone,
        title=f"{FAMILIES[network]} on {name}",
        advice=advice,
        parameters=parameters,
        gflops=gflops,
        seconds=seconds,
        kept=KEPT[key],
        recommended=recommended,
        multiple_of=MULTIPLES.get(key, MULTIPLES.get(network, 32)),
        smallest_crop=32 if first else 64,
        weights_licence=WHOLE if network in ("fcn", "deeplabv3", "lraspp") else licence,
        defaults={} if first else usual | defaults,
    )


KNOWN = {
    "learning_rate": 0.001,
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "batch_size": 1,
    "epochs": 15,
    "workers": 1,
    "crop": 480,
    "short_side": 520,
    "crops_per_picture": 1,
    "optimizer": "sgd",
    "schedule": "poly",
    "warm_up": 0.0,
}
"""The defaults that people know from the GluonCV training GUI."""
GLUON_TITLES = {
    "fastscnn": "Fast-SCNN",
    "fcn": "FCN",
    "psp": "PSPNet",
    "deeplab": "DeepLabV3",
    "deeplabplus": "DeepLabV3+",
    "icnet": "ICNet",
    "danet": "DANet",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet50v1b": "ResNet-50 (v1b)",
    "resnet101v1b": "ResNet-101 (v1b)",
    "xception": "Xception-65",
}


def _gluon(key: str, parameters: float, gflops: float, seconds: float, advice: str) -> Network:
    """A row of the gluon engine from its network/backbone and its figures."""
    network, backbone = key.split("/")
    small = network == "fastscnn"
    return Network(
        engine="gluon",
        network=network,
        backbone=backbone,
        title=GLUON_TITLES[network] if small else f"{GLUON_TITLES[network]} on {GLUON_TITLES[backbone]}",
        advice=advice,
        parameters=parameters,
        gflops=gflops,
        seconds=seconds,
        multiple_of=32 if network in ("fastscnn", "icnet") else 8,
        smallest_crop=64 if network in ("fastscnn", "icnet") else 32,
        defaults={"short_side": 768, "crop": 256, "learning_rate": 0.004, "epochs": 6, "warm_up": 0.15} if small else KNOWN,
    )


CATALOGUE = (
    _pytorch(
        "unet/resnet18",
        3.57,
        8.53,
        0.22,
        "The one to start with: learns from a few dozen pictures, no GPU needed.",
        "Small dataset, no GPU",
    ),
    _pytorch(
        "unet/efficientnet_b0",
        5.83,
        5.78,
        0.24,
        "More detail than the cut-down U-Net where pre-trained weights can be had.",
        "Pre-trained, no GPU",
    ),
    _pytorch(
        "lraspp/mobilenet_v3_large",
        3.22,
        0.98,
        0.11,
        "The fewest computations of all: for small computers and many pictures a second. Coarse edges.",
        "Fastest answers",
    ),
    _pytorch(
        "deeplabv3plus/resnet50",
        26.68,
        18.28,
        0.57,
        "A sound choice for most things, from street scenes to aerial pictures.",
        "All-rounder on one GPU",
    ),
    _pytorch(
        "upernet/convnext_tiny",
        37.04,
        38.21,
        1.16,
        "Modern backbone, all scales put together: takes time and pays with quality.",
        "Best quality on one GPU",
    ),
    _pytorch("deeplabv3plus/mobilenet_v2", 4.38, 2.97, 0.2, "Wide context at little cost; known from many phones."),
    _pytorch(
        "segformer/pvt_v2_b0",
        3.81,
        3.79,
        0.17,
        "The smallest with attention: sees the whole picture at once. Wants pre-trained weights.",
    ),
    _pytorch("fpn/mobilenet_v3_large", 4.89, 4.57, 0.2, "Things of very different sizes, at little cost."),
    _pytorch("deeplabv3/mobilenet_v3_large", 11.02, 4.91, 0.2, "Starts from a whole network that knows twenty everyday things."),
    _pytorch("segformer/mobilenet_v4_medium", 7.86, 5.31, 0.26, "A simple decoder on a quick backbone: a good start for serving on a CPU."),
    _pytorch("unet/mobilenet_v3_large", 6.69, 6.15, 0.22, "Fine edges at little cost."),
    _pytorch(
        "deeplabv3plus/efficientnet_b3",
        11.09,
        5.93,
        0.42,
        "Few parameters and few computations for its quality; slower than they promise.",
    ),
    _pytorch("fpn/efficientnet_b3", 11.88, 6.45, 0.35, "Things of very different sizes, few parameters."),
    _pytorch("unet/efficientnet_b3", 12.56, 7.5, 0.36, "Fine edges with few parameters: often seen in winning entries of contests."),
    _pytorch("unetplusplus/efficientnet_b0", 6.07, 8.07, 0.31, "U-Net with denser connections: small things, thin lines."),
    _pytorch("segformer/convnext_nano", 15.52, 8.85, 0.34, "A modern backbone under a simple decoder. Wants pre-trained weights."),
    _pytorch(
        "segformer/pvt_v2_b2",
        25.38,
        13.04,
        0.46,
        "Attention at full strength, close to SegFormer-B2, without its non-commercial weights.",
    ),
    _pytorch("fpn/resnet50", 26.12, 15.57, 0.45, "Things of very different sizes, on the best-known backbone."),
    _pytorch("unet/resnet34", 24.44, 15.65, 0.39, "The classic U-Net of contests, with all five stages."),
    _pytorch("deeplabv3plus/resnet34", 22.44, 15.77, 0.42, "Wide context and clean edges at a middling cost."),
    _pytorch("unet/convnext_tiny", 31.93, 17.87, 0.52, "Fine edges on a modern backbone. Wants pre-trained weights."),
    _pytorch("unet/resnet50", 32.52, 21.28, 0.66, "Fine edges on the best-known backbone."),
    _pytorch("pspnet/resnet18", 11.97, 25.16, 0.52, "Whole-scene context at a quarter of the cost of its big brother; coarse edges."),
    _pytorch("deeplabv3plus/resnet101", 45.67, 27.98, 0.86, "Deeper than the all-rounder: for datasets of thousands of pictures."),
    _pytorch("unetplusplus/resnet34", 26.08, 36.79, 1.05, "Small things and thin lines, as in medicine; pays for it in time."),
    _pytorch("upernet/resnet50", 37.28, 38.25, 1.21, "All scales put together on the best-known backbone."),
    _pytorch("upernet/convnext_small", 58.68, 49.26, 1.44, "The largest here by quality of its backbone: for a GPU with time to spare."),
    _pytorch("pspnet/resnet50", 29.81, 54.25, 1.21, "Whole-scene context, as published: rooms, streets, land cover."),
    _pytorch("fcn/resnet50", 32.95, 69.16, 1.56, "Starts from a whole network that knows twenty everyday things. Slow without a GPU."),
    _pytorch(
        "deeplabv3/resnet50",
        39.63,
        81.78,
        1.66,
        "Wide context at full depth; starts from a whole network that knows twenty everyday things.",
    ),
    _pytorch("fcn/resnet101", 51.94, 107.95, 2.53, "Deeper FCN: for datasets of thousands of pictures, on a GPU."),
    _pytorch("deeplabv3/resnet101", 58.63, 120.57, 2.51, "The most computations here: thousands of pictures, a GPU and patience."),
    _gluon("fastscnn/fastscnn", 1.14, 0.41, 0.04, "The lightest of GluonCV's networks: for a CPU with the gluon engine."),
    _gluon("fcn/resnet50", 33.07, 72.7, 1.26, "For those who know it from the GluonCV training GUI. Slow without a GPU."),
    _gluon("fcn/resnet50v1b", 32.95, 69.16, 1.18, "As FCN on ResNet-50, with one large first layer: somewhat fewer computations."),
    _gluon("fcn/resnet101", 52.06, 111.49, 2, "Deeper FCN: for datasets of thousands of pictures, on a GPU."),
    _gluon("fcn/resnet101v1b", 51.94, 107.95, 1.91, "Deeper FCN with one large first layer. Pre-trained: the backbone alone."),
    _gluon("psp/resnet50", 46.71, 92.14, 1.62, "Whole-scene context, as published: rooms, streets, land cover."),
    _gluon("psp/resnet50v1b", 46.58, 88.6, 1.58, "As PSPNet on ResNet-50, with one large first layer: somewhat fewer computations."),
    _gluon("psp/resnet101", 65.7, 130.93, 2.32, "Deeper PSPNet: thousands of pictures and a GPU."),
    _gluon("psp/resnet101v1b", 65.57, 127.39, 2.3, "Deeper PSPNet with one large first layer. Pre-trained: the backbone alone."),
    _gluon("deeplab/resnet50", 39.76, 85.32, 1.59, "Context of several widths: things of very different sizes."),
    _gluon(
        "deeplab/resnet50v1b", 39.63, 81.78, 1.56, "As DeepLabV3 on ResNet-50, with one large first layer: somewhat fewer computations."
    ),
    _gluon(
        "deeplab/resnet101", 58.75, 124.11, 2.31, "What old clients ask for where they name no network: thousands of pictures and a GPU."
    ),
    _gluon("deeplab/resnet101v1b", 58.63, 120.57, 2.26, "Deeper DeepLabV3 with one large first layer. Pre-trained: the backbone alone."),
    _gluon("deeplabplus/xception", 54.75, 121.12, 6.3, "DeepLabV3 with finer edges, on a heavy backbone: a GPU and patience."),
    _gluon("icnet/resnet50", 47.48, 8.12, 0.5, "Reads a picture at three sizes, the large one in few layers: for quick answers."),
    _gluon("danet/resnet50", 47.56, 104.65, 2.31, "Attention over the whole picture; much memory where crops are large."),
    _gluon("danet/resnet101", 66.55, 143.44, 2.96, "Attention on the deeper backbone: a GPU with much memory."),
    Network(
        engine="majority",
        network="majority",
        backbone="none",
        title="Majority class",
        advice="Not a model to use: the score that every real model must beat.",
        parameters=0,
        seconds=0,
        multiple_of=1,
        defaults={"epochs": 1},
    ),
)


def find_network(engine: str, network: str, backbone: str) -> Network:
    """The row of the catalogue. Raises Invalid with what comes nearest and what there is to choose from."""
    for row in CATALOGUE:
        if (row.engine, row.network, row.backbone) == (engine, network, backbone):
            return row
    asked = f"{engine}/{network}/{backbone}"
    raise Invalid(f"There is no network {asked}.", _choices(asked, engine, network))


def _choices(asked: str, engine: str, network: str) -> str:
    """What may have been meant, then the backbones of the network, or the networks of the engine, or the engines."""
    nearest = get_close_matches(asked, [row.key for row in CATALOGUE], n=3)
    backbones = [row.backbone for row in CATALOGUE if (row.engine, row.network) == (engine, network)]
    networks = dict.fromkeys(row.network for row in CATALOGUE if row.engine == engine)
    if backbones:
        choices = f"{engine}/{network} is there on: {', '.join(backbones)}."
    elif networks:
        choices = f"The networks of {engine} are: {', '.join(networks)}."
    else:
        choices = f"The engines are: {', '.join(ENGINES)}."
    return f"Did you mean {' or '.join(nearest)}? {choices}" if nearest else choices
