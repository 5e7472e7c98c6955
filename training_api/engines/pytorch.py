"""The PyTorch engine: channels-last, bfloat16 where the processor has it, weights averaged over the last steps."""

import copy
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from annotations.whole_picture import IMAGENET
from contracts.hyperparameters import Hyperparameters
from contracts.model import Geometry
from training_api.data import Batch
from training_api.engines import Plan, Step
from training_api.engines.pytorch_device import choose_precision, compiling_pays, describe
from training_api.engines.pytorch_losses import Total, cross_entropy, dice_loss, identity, known_weight, lovasz_loss
from training_api.engines.pytorch_memory import Attempt, find_fit, parts_that_fit
from training_api.engines.pytorch_networks import build_network
from training_api.engines.pytorch_onnx import write_onnx
from training_api.engines.pytorch_weights import take_weights
from training_api.schedule import average_decay, learning_rate, momentum

STATE = "state.pt"


class PytorchEngine:
    normalisation = IMAGENET

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        random.seed(plan.seed)
        torch.set_flush_denormal(True)
        self.settings = plan.settings
        self.crops = plan.crops
        self.group = plan.group
        self.place = torch.device("cuda", plan.group.local_rank) if plan.gpus else torch.device("cpu")
        self.precision = choose_precision(self.place, plan.settings.precision)
        self.device = describe(self.place, self.precision, plan.group.size)
        self.remarks: list[str] = []
        self.geometry = Geometry(short_side=plan.settings.short_side, multiple_of=plan.network.multiple_of)
        self.network = build_network(plan.network.network, plan.network.backbone, plan.classes)
        take_weights(self.network, plan.start)
        self.network.to(self.place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.class_weights = _class_weights(plan.class_shares, plan.settings.balance).to(self.place)
        self.step = 0
        self.steps = plan.crops.steps * plan.settings.epochs
        self.learner: Any = self.network
        self.total: Total = identity
        self.parts = min(plan.settings.accumulate, max(1, plan.settings.batch_size // self.group.size))
        self._try_out()
        if self.group.size > 1:
            self._share()
        self.averaged = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = _optimizer(self.network, plan.settings)
        self.scaler = torch.amp.GradScaler(self.place.type, enabled=self.precision == torch.float16)

    def _try_out(self) -> None:
        """Steps on a copy of the network, before the first epoch: whether a batch fits into memory, and whether compiling pays."""
        largest = self.crops.largest()
        if largest is None:
            return
        torch.backends.cudnn.benchmark = True  # all crops have one size
        twin = copy.deepcopy(self.network).train()
        optimizer = _optimizer(twin, self.settings)

        def learn(network: nn.Module, crops: int, size: tuple[int, int]) -> None:
            pixels = torch.zeros(crops, 3, *size, device=self.place).to(memory_format=torch.channels_last)
            masks = torch.zeros(crops, *size, dtype=torch.long, device=self.place)
            self._loss(network, pixels, masks, known_weight(masks, self.class_weights), 1.0).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        with torch.random.fork_rng(devices=[self.place] if self.place.type == "cuda" else []):
            self._fit(lambda crops, size: learn(twin, crops, size), *largest)
            at_once, steps = -(-largest[0] // self.parts), self.steps * self.parts
            if compiling_pays(twin, lambda network: learn(network, at_once, largest[1]), self._compile(), self.place, steps):
                self.learner = torch.compile(self.network, dynamic=False)

    def _compile(self) -> str:
        if self.group.size > 1 and self.settings.compile == "on":
            self.remarks.append("Processes that learn together learn without compiling.")
        return self.settings.compile if self.group.size == 1 else "off"

    def _fit(self, attempt: Attempt, crops: int, size: tuple[int, int]) -> None:
        """Decide in how many parts a batch goes through the network; all processes the same. Raises Invalid where it does not fit."""
        at_once = -(-crops // self.parts)
        fit = find_fit(attempt, at_once, size, self.place, self.group.local_size)
        if fit is None:
            return
        wished = self.parts
        self.parts = parts_that_fit(fit, crops, size, wished, self.settings.fit_memory, self.group.size)
        self.parts = min(self.group.most(self.parts), max(1, self.settings.batch_size // self.group.size))
        if self.parts > wished:
            self.remarks.append(
                f"{at_once} crops at once do not fit into memory: each batch goes through the network in {self.parts} parts. It stays the "
                "same batch, but batch norm sees each part by itself."
            )
        if fit.each:
            self.crops.cache_bytes = min(self.crops.cache_bytes, max(0, fit.free - fit.need(-(-crops // self.parts))))

    def _share(self) -> None:
        """Learn together with the other processes of the group."""
        from training_api.engines import pytorch_parallel as parallel

        self.network = parallel.synchronised(self.network, self.place)
        self.learner, self.total = parallel.distributed(self.network, self.place), parallel.total

    def train_epoch(self, epoch: int) -> Iterator[Step]:
        if self.group.size > 1:
            torch.manual_seed(self.group.own_seed(self.crops.seed, epoch))
        for batch in self.crops.epoch(epoch):
            rate = self._follow_schedule()
            loss = self._learn(batch)
            self._average()
            self.step += 1
            yield Step(loss=loss, crops=self.settings.batch_size, learning_rate=rate)

    def _follow_schedule(self) -> float:
        """Set the optimiser to this step's momentum and learning rate; the latter is returned."""
        rate = learning_rate(self.settings, self.step, self.steps)
        kept = momentum(self.settings, self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if "betas" in group:
                group["betas"] = (kept, group["betas"][1])
            else:
                group["momentum"] = kept
        return rate

    def _learn(self, batch: Batch) -> Tensor:
        """One step of the optimiser, by a batch in one part or several. The loss stays on the device: nothing here waits for it."""
        self.network.train()
        pixels, masks = self._upload(batch.pixels), self._upload(batch.masks).long()
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        whole = self.total(known_weight(masks, self.class_weights))
        loss = torch.zeros((), device=self.place)
        self.optimizer.zero_grad(set_to_none=True)
        parts = zip(pixels.tensor_split(self.parts), masks.tensor_split(self.parts), strict=True)
        for number, (some_pixels, some_masks) in enumerate(parts, start=1):
            with self._apart(number < self.parts):
                part = self._loss(self.learner, some_pixels, some_masks, whole, 1 / self.parts)
                self.scaler.scale(part).backward()
            loss += part.detach()
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _upload(self, array: np.ndarray) -> Tensor:
        """To the device, from memory that it can read by itself while this process goes on."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.place, non_blocking=True) if self.place.type == "cuda" else tensor

    def _apart(self, apart: bool) -> AbstractContextManager[None]:
        """Other processes are asked for their gradients with the last part of a batch only."""
        return self.learner.no_sync() if apart and isinstance(self.learner, DistributedDataParallel) else nullcontext()

    def _loss(self, network: nn.Module, pixels: Tensor, masks: Tensor, whole: Tensor, share: float) -> Tensor:
        """What a part of a batch adds to the batch's loss. The cross-entropy is that of all known pixels, of `whole` weight; the
        others, which no part can know by itself, are the mean over the parts: each counts by its `share`."""
        settings = self.settings
        with self._autocast():
            scores = network(pixels)
        scores = scores.float()
        loss = cross_entropy(scores, masks, self.class_weights, whole, self.total, settings.label_smoothing, settings.focal)
        if settings.dice:
            loss = loss + settings.dice * share * dice_loss(scores, masks, self.total)
        if settings.lovasz:
            loss = loss + settings.lovasz * share * lovasz_loss(scores, masks, self.total)
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
        # Pictures have many sizes: nothing to benchmark. TF32, which GPUs take for float32 of themselves, has three digits.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            scores = torch.func.functional_call(self.network, self.averaged, (pixels,))
        return scores.cpu().contiguous().numpy()

    def save(self, folder: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
        }
        if self.place.type == "cuda":
            state["random_of_gpu"] = torch.cuda.get_rng_state(self.place)
        torch.save(state, folder / STATE)

    def load(self, folder: Path) -> None:
        state = torch.load(folder / STATE, map_location=self.place, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        if state.get("scaler"):  # one that was saved in wider numbers has none, and float16 then begins with a new one
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"].cpu())
        if self.place.type == "cuda" and "random_of_gpu" in state:
            torch.cuda.set_rng_state(state["random_of_gpu"].cpu(), self.place)

    def export(self, folder: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in self.averaged.items()}
        save_file(weights, folder / "weights.safetensors")
        twin = copy.deepcopy(self.network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        twin.load_state_dict(weights)
        write_onnx(twin.eval(), folder / "model.onnx")

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.place.type, self.precision or torch.bfloat16, enabled=self.precision is not None)


def _class_weights(shares: list[float], balance: float) -> Tensor:
    """Weights of mean 1 by the inverse of each class's share, to the power of `balance` (0: all alike)."""
    weights = torch.tensor([max(share, 1e-4) ** -balance for share in shares])
    return weights / weights.mean()


def _optimizer(network: nn.Module, settings: Hyperparameters) -> torch.optim.Optimizer:
    """Weight decay is for what multiplies: norms and biases are left out."""
    groups = [
        {"params": [value for value in network.parameters() if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in network.parameters() if value.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        rate, kept = settings.learning_rate, settings.momentum
        return torch.optim.SGD(groups, lr=rate, momentum=kept, nesterov=kept > 0, fused=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, 0.999), fused=True)


def create(plan: Plan) -> PytorchEngine:
    return PytorchEngine(plan)
