"""What docker_sdk_api tells Prometheus beside its requests: how its jobs stand, the queue, the disk."""

import shutil
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from contracts.job import ENDED
from contracts.metrics import Metrics
from docker_sdk_api.jobs import Jobs


class JobMetrics(Metrics):
    """The figures of one app. A folder with a thousand jobs costs a look at a thousand dates."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self.registry.register(self)
        self.gauge("maskwright_disk_free_bytes", "Room for checkpoints.", lambda: shutil.disk_usage(jobs.settings.checkpoints).free)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """By state: those that have ended by the last event of each, the others as the queue has them."""
        standing, line = self._jobs.standing, self._jobs.line.look()
        names = {job.name for job in standing.all(self._jobs.settings.checkpoints)}
        states = Counter(dict.fromkeys((*sorted(ENDED), "queued", "running"), 0))
        states.update(end for name in names if (end := standing.end(name)))
        states["queued"], states["running"] = len(line.waiting), len(line.running)
        family = GaugeMetricFamily("maskwright_jobs", "Jobs by their state.", labels=["state"])
        for state, count in states.items():
            family.add_metric([state], count)
        yield family
