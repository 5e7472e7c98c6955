"""What a service counts while it answers, in Prometheus' text format (ASGI). Every app has a registry of its own."""

import time
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from contracts.origins import App, Message, Receive, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Seconds."""
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
"""Whoever asks may make up others, and each would be a row for ever."""


class Metrics:
    """The figures of one app: its requests and its process; `gauge` adds what else there is to look at."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)  # memory, processor seconds, file handles
        self._requests = Counter("maskwright_requests", "Answers.", ["method", "route", "status"], registry=own)
        help_ = "From a request's head to its answer's."
        self._seconds = Histogram("maskwright_request_seconds", help_, ["route"], buckets=BUCKETS, registry=own)

    def gauge(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """A figure that is looked at whenever somebody asks."""
        Gauge(name, help_, registry=self.registry).set_function(value)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def as_text(self) -> bytes:
        return generate_latest(self.registry)


class Counted:
    """Around a whole app. Counts and times every request, under the route that answered it: paths that strangers make up are one row."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, answered = time.monotonic(), False

        def count(status: int) -> None:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.count(method, getattr(scope.get("route"), "path", "none"), status, time.monotonic() - begin)

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
