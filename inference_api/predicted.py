"""Who asked which model about how many pictures: a line for each token, model and status in a minute, and not one for each request.

A line is written when its minute is over and when the service ends; a service that is killed loses the minute under way.
"""

import asyncio
import logging
import os
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from contracts.audit import PREDICTIONS, Audit
from contracts.doors import needed

MINUTE = 60.0
"""Seconds that are told together."""
LOG = logging.getLogger("maskwright.predictions")


class Predictions:
    """Told of every request by the doors (contracts/doors.py), on the event loop; other changes and refusals are written as they come."""

    def __init__(self, checkpoints: Path, seconds: float = MINUTE) -> None:
        self.seconds = seconds
        # In containers the checkpoints are only read here: what is to be written down then stands in the service's own log.
        self._audit = Audit(checkpoints, PREDICTIONS) if os.access(checkpoints, os.W_OK) else None
        self._counts: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
        self._since = datetime.now(timezone.utc)
        self._timer: asyncio.TimerHandle | None = None

    def note(self, record: dict[str, Any]) -> None:
        """One request: a prediction is counted, all else written."""
        if record["method"] != "POST" or needed("POST", record["path"]) != "infer":
            self._write(record)
            return
        if not self._counts:
            self._since = datetime.now(timezone.utc)
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self.write)
        counts = self._counts[record["who"], record.get("model", "-"), record["status"]]
        counts[0] += 1
        counts[1] += record.get("pictures", 0)

    def write(self) -> None:
        """What was counted, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
        told, self._counts = self._counts, defaultdict(lambda: [0, 0])
        since = self._since.isoformat(timespec="milliseconds")
        for (who, model, status), (requests, pictures) in told.items():
            self._write({"since": since, "who": who, "model": model, "status": status, "requests": requests, "pictures": pictures})

    def _write(self, record: dict[str, Any]) -> None:
        if self._audit is not None:
            self._audit.note(record)
        else:
            LOG.info("%s", " ".join(f"{key}={value}" for key, value in record.items()), extra={"said": record})
