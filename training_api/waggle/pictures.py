"""The batches of a Waggle run: whole pictures at their own size, drawn by seed and iteration."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from annotations.dataset import IGNORE, Pair, read_mask, read_picture
from annotations.whole_picture import IMAGENET, resize_mask, resize_picture, working_size
from contracts.waggle import OWN_SIZE, WaggleConfig
from training_api.data import AHEAD, Batch, Crops


class WholePictures(Crops):
    """Batches by iteration, counted from 0. Iteration i is the same whatever came before it, so a resumed run sees what an
    unbroken one sees. `steps`: iterations from one validation to the next."""

    def __init__(self, pairs: list[Pair], config: WaggleConfig, seed: int, multiple_of: int) -> None:
        self.pairs = pairs
        self.config = config
        self.seed = seed
        self.multiple_of = multiple_of
        self.steps = min(config.interval_validate, config.max_iteration)
        self.iterations_a_pass = -(-len(pairs) // config.batch_size)

    def largest(self) -> None:
        """Pictures come at their own size: what the largest batch needs is not known beforehand."""

    def batches(self, first: int, end: int) -> Iterator[Batch]:
        """The batches of the iterations from `first` up to `end`; the last one of a pass may be smaller."""
        if self.config.n_workers == 0:
            yield from map(self.batch, range(first, end))
            return
        with ThreadPoolExecutor(self.config.n_workers, thread_name_prefix="pictures") as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for iteration in range(first, end):
                    waiting.append(pool.submit(self.batch, iteration))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def batch(self, iteration: int) -> Batch:
        turn, place = divmod(iteration, self.iterations_a_pass)
        order = np.random.default_rng([self.seed, turn]).permutation(len(self.pairs))
        size = self.config.batch_size
        return stack([_read(self.pairs[index]) for index in order[place * size : (place + 1) * size]], self.multiple_of)


def stack(samples: list[tuple[np.ndarray, np.ndarray]], multiple_of: int) -> Batch:
    """Pictures of different sizes in one batch: each continued at its right and lower edge as in scoring, its mask by “ignore”."""
    height, width = (-(-max(mask.shape[axis] for _, mask in samples) // multiple_of) * multiple_of for axis in (0, 1))
    pixels, masks = [], []
    for picture, mask in samples:
        missing = ((0, height - mask.shape[0]), (0, width - mask.shape[1]))
        pixels.append(np.pad(picture, ((0, 0), *missing), mode="edge"))
        masks.append(np.pad(mask, missing, constant_values=IGNORE))
    return Batch(np.stack(pixels), np.stack(masks))


def _read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    picture = read_picture(pair.picture)
    size = working_size(picture.shape, OWN_SIZE)
    return IMAGENET.apply(resize_picture(picture, size)), resize_mask(read_mask(pair.mask), size)
