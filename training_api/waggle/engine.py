"""The pytorch engine with the plugin's step: SGD on the cross-entropy summed over whole pictures, divided by their number."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from annotations.dataset import IGNORE
from contracts.errors import Invalid
from contracts.waggle import WaggleConfig
from training_api.data import Batch
from training_api.engines import Plan, Step
from training_api.engines.pytorch import PytorchEngine
from training_api.engines.pytorch_device import describe
from training_api.waggle.checkpoint import FILE, put_weights, read_checkpoint
from training_api.waggle.pictures import WholePictures


@dataclass(frozen=True)
class WaggleStep(Step):
    """A step with what log.csv says of it. `counts`: confusion matrix of the batch, flat, on the device still."""

    iteration: int
    counts: Tensor

    @property
    def name(self) -> str:
        return f"iteration {self.iteration}"


class WaggleEngine(PytorchEngine):
    """Steps are counted in iterations, from 0; an epoch is what lies between two validations. The last weights are the model: no
    running average. What is random in iteration i (dropout) hangs on the seed and i alone, so that a checkpoint in the plugin's
    form, which keeps no random state, goes on exactly."""

    def __init__(self, plan: Plan, config: WaggleConfig) -> None:
        super().__init__(plan)
        assert isinstance(plan.crops, WholePictures)
        if self.precision == torch.float16:  # too narrow for gradients of a sum over a million pixels
            self.precision = None
            self.device = describe(self.place, None, 1)
        self.pictures, self.config, self.seed, self.classes = plan.crops, config, plan.seed, plan.classes
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.averaged = self.network.state_dict()  # the same tensors: what is scored and exported are the present weights
        self.best_mean_iu = 0.0
        self.seen: np.ndarray | None = None

    def train_epoch(self, epoch: int) -> Iterator[WaggleStep]:
        """The iterations that are left up to the epoch's end."""
        until = min(epoch * self.config.interval_validate, self.config.max_iteration)
        for batch in self.pictures.batches(self.step, until):
            loss, counts = self._learn_whole(batch)
            self.step += 1
            yield WaggleStep(loss, len(batch.masks), self.config.lr, iteration=self.step - 1, counts=counts)

    def _learn_whole(self, batch: Batch) -> tuple[Tensor, Tensor]:
        torch.manual_seed((self.seed << 32) + self.step)
        self.network.train()
        pixels = torch.from_numpy(batch.pixels).to(self.place, memory_format=torch.channels_last, non_blocking=True)
        masks = torch.from_numpy(batch.masks).to(self.place, non_blocking=True).long()
        with self._autocast():
            scores = self.network(pixels)
        loss = functional.cross_entropy(scores.float(), masks, ignore_index=IGNORE, reduction="sum") / len(masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), self._count(scores.detach(), masks)

    def _count(self, scores: Tensor, masks: Tensor) -> Tensor:
        """Pixels by true and estimated class, without waiting for the device; the last cell takes the ignored ones."""
        cells = torch.where(masks == IGNORE, self.classes**2, masks * self.classes + scores.argmax(1))
        counts = torch.zeros(self.classes**2 + 1, dtype=torch.int64, device=self.place)
        return counts.scatter_add_(0, cells.flatten(), torch.ones_like(cells).flatten())[:-1]

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """As the pytorch engine does; the scores stay in `seen` until the next call, for the validation loss."""
        self.seen = super().predict(batch)
        return self.seen

    def save(self, folder: Path) -> None:
        """The plugin's checkpoint: state dicts and plain data, nothing else."""
        torch.save(self._state(), folder / FILE)

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.step // self.pictures.iterations_a_pass,
            "iteration": self.step,
            "arch": "FCN",
            "best_mean_iu": self.best_mean_iu,
            "model_state_dict": {name: value.cpu() for name, value in self.network.state_dict().items()},
            "optim_state_dict": self.optimizer.state_dict(),
        }

    def load(self, folder: Path) -> None:
        self.go_on_from(folder / FILE)

    def go_on_from(self, file: Path) -> None:
        """Weights, optimiser and iteration of a checkpoint. Raises Invalid where it is of another network or other classes."""
        checkpoint = read_checkpoint(file)
        if left := put_weights(self.network, checkpoint, file):
            raise Invalid(
                f"{file.name} was trained with other classes: {', '.join(left[:2])} do not fit.",
                "Correct class_names.list, or choose another output_dir and name the checkpoint in pretrained_net.",
            )
        self.step = checkpoint.iteration
        self.best_mean_iu = checkpoint.best_mean_iu or 0.0
        if checkpoint.optimizer is not None and self._fits(checkpoint.optimizer):
            self.optimizer.load_state_dict(checkpoint.optimizer)
            for group in self.optimizer.param_groups:  # what config.list says now
                group.update(lr=self.config.lr, momentum=self.config.momentum, weight_decay=self.config.weight_decay)
        else:
            print(f"{file.name} keeps no state of the optimiser that fits: its momentum starts from nothing")

    def _fits(self, state: dict[str, Any]) -> bool:
        groups = state.get("param_groups") or []
        return len(groups) == 1 and len(groups[0]["params"]) == len(self.optimizer.param_groups[0]["params"])

    def start_from(self, file: Path) -> list[str]:
        """The weights of a checkpoint alone; gives what stays untrained."""
        return put_weights(self.network, read_checkpoint(file), file)
