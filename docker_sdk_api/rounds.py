"""Threads that look after something for ever: woken or after a while they look again, and nothing that goes wrong ends them."""

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from contracts.errors import Problem

LOG = logging.getLogger("maskwright.jobs")
Found = TypeVar("Found")


class Rounds:
    """Of one thread. `name`: whose; `woken`: an event that lets it look at once.

    Whoever looks asks now and then whether it is `over`, and then leaves the rest.
    """

    def __init__(self, name: str, woken: threading.Event | None = None) -> None:
        self.name = name
        self.over = False
        self._woken = woken or threading.Event()
        self._said: dict[str, str] = {}

    @contextmanager
    def going(self, look: Callable[[], float], first: float = 0.0) -> Iterator[None]:
        """Until the block ends. `look` says after how many seconds it is to be called again; it begins after so many.

        What may go wrong in it is tried with `attempt`.
        """
        thread = threading.Thread(target=self._go, args=(look, first), name=self.name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.over = True
            self._woken.set()
            thread.join()

    def _go(self, look: Callable[[], float], pause: float) -> None:
        self._woken.wait(pause)
        while True:
            self._woken.clear()
            if self.over:  # looked at between the two: who ends it says so first, and wakes it then
                return
            self._woken.wait(look())

    def attempt(self, what: Callable[[], Found], otherwise: Found, trouble: str) -> Found:
        """What comes of it. Where it goes wrong, `otherwise`, and `trouble` is said with the reason: once, until it goes well again.

        Whatever it is, the disk, the database or the engine may do better the next time.
        """
        try:
            found, said = what(), ""
        except (Problem, OSError, ValueError) as problem:  # the last: a job.json that cannot be read
            found, said = otherwise, f"{trouble}: {problem}"
        except Exception:  # noqa: BLE001 - a thread that ends would look after nothing any more, and nobody would see it
            found, said = otherwise, f"{trouble}: {traceback.format_exc()}"
        if said and said != self._said.get(trouble):
            LOG.warning(said)
        if said:
            self._said[trouble] = said
        else:
            self._said.pop(trouble, None)
        return found
