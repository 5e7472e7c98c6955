"""The processes that learn one job together, as the loop sees them. A training in one process is a group of one.

Only the first process writes into the job folder; all others learn, score their share of the pictures, and heed what it says.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class Group:
    """One process alone. training_api/engines/pytorch_parallel.py has the group of several."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    """The place among those that share this machine, and how many they are."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def first_says(self, number: int) -> int:
        """The first process's number, in all of them. Whatever the first did before, such as writing a file, is then done."""
        return number

    def most(self, number: int) -> int:
        """The largest number of all processes, in all of them."""
        return number

    def total(self, counts: np.ndarray) -> np.ndarray:
        """The sum of all processes' int64 arrays of one shape, in all of them."""
        return counts

    def share(self, count: int) -> range:
        """The places of a batch of `count` that fall to this process."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process does the block, then all others: they find what it fetched or worked out."""
        if not self.first:
            self.first_says(0)
        try:
            yield
        finally:  # where the first one fails, all others do, each by itself
            if self.first:
                self.first_says(0)

    def own_seed(self, seed: int, epoch: int) -> int:
        """For what is drawn in each process by itself, such as dropout: the same again when an epoch is learnt again."""
        return int(np.random.SeedSequence([seed, epoch, self.rank]).generate_state(1)[0])

    def leave(self) -> None:
        """Go on without the others."""


ALONE = Group()


def share_out(count: int, group: Group, head: int) -> list[int]:
    """The places of 0…`count` - 1 that fall to this process: the first `head` to the first one, the others in even numbers."""
    loads = [0] * group.size
    mine = []
    for place in range(count):
        owner = 0 if place < head else loads.index(min(loads))
        loads[owner] += 1
        if owner == group.rank:
            mine.append(place)
    return mine
