"""The PyTorch engine: channels-last, bfloat16 where the processor has it, weights averaged over the last steps."""

import copy
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from annotations.dataset import IGNORE
from annotations.whole_picture import IMAGENET
from contracts.hyperparameters import Hyperparameters
from contracts.model import Geometry
from training_api.data import Batch
from training_api.engines import Plan, Step
from training_api.engines.pytorch_losses import dice_loss
from training_api.engines.pytorch_networks import build_network
from training_api.schedule import average_decay, learning_rate

STATE = "state.pt"


class PytorchEngine:
    normalisation = IMAGENET

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        random.seed(plan.seed)
        torch.set_flush_denormal(True)
        self.settings = plan.settings
        self.crops = plan.crops
        self.place = torch.device("cuda" if plan.gpus else "cpu")
        self.precision = _precision(self.place)
        self.device = _describe(self.place, self.precision)
        self.geometry = Geometry(short_side=plan.settings.short_side, multiple_of=plan.network.multiple_of)
        self.network = build_network(plan.network.network, plan.network.backbone, plan.classes)
        self.network.to(self.place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = _optimizer(self.network, plan.settings, self.place)
        self.class_weights = _class_weights(plan.class_shares, plan.settings.balance).to(self.place)
        self.step = 0
        self.steps = plan.crops.steps * plan.settings.epochs

    def train_epoch(self, epoch: int) -> Iterator[Step]:
        for batch in self.crops.epoch(epoch):
            rate = learning_rate(self.settings, self.step, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._learn(batch)
            self._average()
            self.step += 1
            yield Step(loss=loss, crops=len(batch.masks), learning_rate=rate)

    def _learn(self, batch: Batch) -> Tensor:
        self.network.train()
        pixels = torch.from_numpy(batch.pixels).to(self.place, memory_format=torch.channels_last, non_blocking=True)
        masks = torch.from_numpy(batch.masks).to(self.place, non_blocking=True).long()
        with self._autocast():
            scores = self.network(pixels)
        loss = self._loss(scores.float(), masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, scores: Tensor, masks: Tensor) -> Tensor:
        loss = functional.cross_entropy(scores, masks, self.class_weights, ignore_index=IGNORE)
        if self.settings.dice:
            loss = loss + self.settings.dice * dice_loss(scores, masks)
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights, and the statistics of batch norm with them, towards the present ones."""
        share = 1 - average_decay(self.settings, self.step)
        present = self.network.state_dict()
        names = [name for name, value in present.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.averaged[name] for name in names], [present[name] for name in names], share)

    @torch.no_grad()
    def predict(self, batch: np.ndarray) -> np.ndarray:
        self.network.eval()
        pixels = torch.from_numpy(batch).to(self.place, memory_format=torch.channels_last)
        scores = torch.func.functional_call(self.network, self.averaged, (pixels,))  # in float32, as it will be served
        return scores.cpu().contiguous().numpy()

    def save(self, folder: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
        }
        torch.save(state, folder / STATE)

    def load(self, folder: Path) -> None:
        state = torch.load(folder / STATE, map_location=self.place, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        torch.set_rng_state(state["random"].cpu())

    def export(self, folder: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in self.averaged.items()}
        save_file(weights, folder / "weights.safetensors")
        twin = copy.deepcopy(self.network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        twin.load_state_dict(weights)
        example = torch.zeros(1, 3, 2 * self.geometry.multiple_of, 3 * self.geometry.multiple_of)
        height, width = (self.geometry.multiple_of * torch.export.Dim(name, min=1, max=1024) for name in ("rows", "columns"))
        torch.onnx.export(
            twin.eval(),
            (example,),
            folder / "model.onnx",
            input_names=["picture"],
            output_names=["scores"],
            dynamic_shapes=({2: height, 3: width},),
            external_data=False,
            verbose=False,
        )

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.place.type, self.precision or torch.bfloat16, enabled=self.precision is not None)


def _class_weights(shares: list[float], balance: float) -> Tensor:
    """Weights of mean 1 by the inverse of each class's share, to the power of `balance` (0: all alike)."""
    weights = torch.tensor([max(share, 1e-4) ** -balance for share in shares])
    return weights / weights.mean()


def _optimizer(network: nn.Module, settings: Hyperparameters, place: torch.device) -> torch.optim.Optimizer:
    """Weight decay is for what multiplies: norms and biases are left out."""
    groups = [
        {"params": [value for value in network.parameters() if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in network.parameters() if value.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=place.type == "cuda")


def _precision(place: torch.device) -> torch.dtype | None:
    """The narrower numbers that pay on this device, None for float32. Without hardware for it bfloat16 is ten times slower."""
    if place.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else None


def _describe(place: torch.device, precision: torch.dtype | None) -> str:
    numbers = str(precision or torch.float32).removeprefix("torch.")
    name = torch.cuda.get_device_name() if place.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, {numbers}"


def create(plan: Plan) -> PytorchEngine:
    return PytorchEngine(plan)
