"""What inference_api counts beside its requests: the queue, the models, and predictions that were not made."""

from http import HTTPStatus

from prometheus_client import Counter

from contracts.metrics import Metrics
from inference_api.store import Store
from inference_api.turns import Left, Turns

WHY = {HTTPStatus.TOO_MANY_REQUESTS.value: "full", HTTPStatus.GATEWAY_TIMEOUT.value: "late", Left.status: "left"}
"""Status → why a prediction was not made."""


class PredictionMetrics(Metrics):
    """The figures of one app."""

    def __init__(self, turns: Turns, store: Store) -> None:
        super().__init__()
        what = "Predictions not made: queue full, too late, caller left."
        self._rejected = Counter("maskwright_rejected", what, ["why"], registry=self.registry)
        for why in WHY.values():
            self._rejected.labels(why)  # a row of 0 can be asked for a rate, a missing one cannot
        self.gauge("maskwright_predictions_waiting", "Callers in the queue.", lambda: turns.waiting)
        self.gauge("maskwright_predictions_running", "Predictions that are worked on.", lambda: turns.running)
        self.gauge("maskwright_models_loaded", "Models in memory.", store.count)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        super().count(method, route, status, seconds)
        if status in WHY:
            self._rejected.labels(WHY[status]).inc()
