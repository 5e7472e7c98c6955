"""The crops that a network learns from: drawn by seed, epoch and place, prepared by threads while the network works.

The crop number i of epoch e is the same whatever came before it, so a resumed training sees what an unbroken one sees.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from annotations.augment import Sample, crop_numbers, cut_crop, read_sample, recolour
from annotations.dataset import Pair
from annotations.whole_picture import IMAGENET
from contracts.hyperparameters import Hyperparameters
from training_api.group import ALONE, Group
from training_api.memory import free_memory

CACHE_BYTES = 3 * 2**30
AHEAD = 3


@dataclass(frozen=True)
class Batch:
    """Normalised float32 (n, 3, crop, crop) and class ids uint8 (n, crop, crop), IGNORE where nobody knows."""

    pixels: np.ndarray
    masks: np.ndarray


class Crops:
    """All crops of a training. `steps`: batches in an epoch. Of each batch a process of a group draws its share."""

    def __init__(self, pairs: list[Pair], settings: Hyperparameters, seed: int, group: Group = ALONE) -> None:
        self.pairs = pairs
        self.settings = settings
        self.seed = seed
        self.group = group
        free = free_memory()
        self.cache_bytes = (CACHE_BYTES if free is None else min(CACHE_BYTES, free // 2)) // group.local_size
        self.steps = -(-len(pairs) * settings.crops_per_picture // settings.batch_size)
        self._cache: dict[str, Sample] = {}
        self._cached_bytes = 0

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 1. Every picture is visited crops_per_picture times, the last batch is
        filled up from the front so that all batches have the same size."""
        order = self._order(epoch)
        size = self.settings.batch_size
        picks = [[(step * size + place) % len(order) for place in self.group.share(size)] for step in range(self.steps)]
        if self.settings.workers == 0:
            for indices in picks:
                yield self._batch(epoch, order, indices)
            return
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="crops") as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for indices in picks:
                    waiting.append(pool.submit(self._batch, epoch, order, indices))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def largest(self) -> tuple[int, tuple[int, int]] | None:
        """The most crops that this process draws for a batch, and their height and width; None where that is not known."""
        return -(-self.settings.batch_size // self.group.size), (self.settings.crop, self.settings.crop)

    def _order(self, epoch: int) -> np.ndarray:
        numbers = np.random.default_rng([self.seed, epoch])
        rounds = [numbers.permutation(len(self.pairs)) for _ in range(self.settings.crops_per_picture)]
        return np.concatenate(rounds)

    def _batch(self, epoch: int, order: np.ndarray, indices: list[int]) -> Batch:
        crops = [self._crop(epoch, index, self.pairs[order[index]]) for index in indices]
        return Batch(np.stack([pixels for pixels, _ in crops]), np.stack([mask for _, mask in crops]))

    def _crop(self, epoch: int, index: int, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        numbers = crop_numbers(self.seed, epoch, index)
        picture, mask = cut_crop(self._sample(pair), self.settings, numbers)
        pixels = IMAGENET.apply(picture)
        return (recolour(pixels, numbers) if self.settings.augment else pixels), mask

    def _sample(self, pair: Pair) -> Sample:
        """A picture at its working size; kept in memory while there is room. Two threads may read the same one twice."""
        cached = self._cache.get(pair.stem)
        if cached is not None:
            return cached
        sample = read_sample(pair, self.settings.short_side)
        if self._cached_bytes + sample.nbytes <= self.cache_bytes:
            self._cached_bytes += sample.nbytes
            self._cache[pair.stem] = sample
        return sample
