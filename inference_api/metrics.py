"""What is counted while answering, in Prometheus' text format. Every app has a registry of its own."""

import time
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_api.store import Store
from inference_api.turns import Left, Turns

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds."""
WHY = {HTTPStatus.TOO_MANY_REQUESTS.value: "full", HTTPStatus.GATEWAY_TIMEOUT.value: "late", Left.status: "left"}
"""Status → why a prediction was not made."""


class Metrics:
    """The figures of one app."""

    def __init__(self, turns: Turns, store: Store) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter("maskwright_requests", "Answers.", ["method", "route", "status"], registry=own)
        self.seconds = Histogram(
            "maskwright_request_seconds", "From a request's head to its answer's.", ["route"], buckets=BUCKETS, registry=own
        )
        self.rejected = Counter("maskwright_rejected", "Predictions not made: queue full, too late, caller left.", ["why"], registry=own)
        for why in WHY.values():
            self.rejected.labels(why)  # a row of 0 can be asked for a rate, a missing one cannot
        Gauge("maskwright_predictions_waiting", "Callers in the queue.", registry=own).set_function(lambda: turns.waiting)
        Gauge("maskwright_predictions_running", "Predictions that are worked on.", registry=own).set_function(lambda: turns.running)
        Gauge("maskwright_models_loaded", "Models in memory.", registry=own).set_function(store.count)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests.labels(method, route, status).inc()
        self.seconds.labels(route).observe(seconds)
        if status in WHY:
            self.rejected.labels(WHY[status]).inc()

    def as_text(self) -> bytes:
        return generate_latest(self.registry)


class Counted:
    """Counts and times every request, under the route that answered it: paths that strangers make up are one row."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, answered = time.monotonic(), False

        def count(status: int) -> None:
            self.metrics.count(scope["method"], getattr(scope.get("route"), "path", "none"), status, time.monotonic() - begin)

        async def counted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                count(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            if not answered:  # an error that nobody foresaw is answered further out
                count(HTTPStatus.INTERNAL_SERVER_ERROR)
