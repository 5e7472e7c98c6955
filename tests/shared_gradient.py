"""Run by torchrun in test_parallel.py: by how much gradients and running statistics of shared batches differ from one process's."""

import copy

import torch
from torch import Tensor, nn

from training_api.engines import pytorch_parallel as parallel
from training_api.engines.pytorch_losses import Total, cross_entropy, dice_loss, identity, known_weight, lovasz_loss
from training_api.engines.pytorch_networks import PooledBatchNorm, build_network

CPU = torch.device("cpu")


def learn(network: nn.Module, pixels: Tensor, masks: Tensor, weights: Tensor, total: Total = identity) -> None:
    scores = network.train()(pixels)
    whole = total(known_weight(masks, weights))
    loss = cross_entropy(scores, masks, weights, whole, total, focal=2.0)
    (loss + dice_loss(scores, masks, total) + lovasz_loss(scores, masks, total)).backward()


def main() -> None:
    group = parallel.TorchGroup(gpus=False)
    torch.manual_seed(0)
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    for whole in (build_network("unet", "resnet18", 3).double(), with_activations().double()):
        parts = parallel.synchronised(copy.deepcopy(whole), CPU)
        learner = parallel.distributed(parts, CPU)
        for crops in (4, 3):
            pixels, masks = torch.randn(crops, 3, 64, 64, dtype=torch.float64), torch.randint(0, 3, (crops, 64, 64))
            masks[0, :40] = 255
            for module in (whole, parts):
                module.zero_grad()
            learn(whole, pixels, masks, weights)
            mine = list(group.share(crops))
            learn(learner, pixels[mine], masks[mine], weights, parallel.total)
            if group.first:
                print(type(whole).__name__, crops, _difference(whole, parts))
    group.leave()
    parallel.end(0)


def with_activations() -> nn.Module:
    """timm's batch norm holds the activation that follows it; a pooled one has a single number of each crop."""
    from timm.layers import BatchNormAct2d  # once build_network has brought torchvision in

    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), PooledBatchNorm(8), nn.Upsample(scale_factor=64))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), BatchNormAct2d(8), pooled, nn.Conv2d(8, 3, 1))


def _difference(whole: nn.Module, parts: nn.Module) -> float:
    pairs = [(one.grad, other.grad) for one, other in zip(whole.parameters(), parts.parameters(), strict=True) if one.grad is not None]
    pairs += [(one, other) for one, other in zip(whole.buffers(), parts.buffers(), strict=True) if one.is_floating_point()]
    return max(float((one - other).abs().max() / one.abs().max().clamp_min(1e-6)) for one, other in pairs)


if __name__ == "__main__":
    main()
