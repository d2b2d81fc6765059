"""What Prometheus is told of a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, waiting: Callable[[], int], classes: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        which: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("tosca_requests", "Requests.", ["method", "path", "status"], **which)
        self.seconds = Histogram("tosca_request_seconds", "Seconds of requests.", ["path"], buckets=_SECONDS, **which)
        self.photos = Counter("tosca_photos", "Photos: answered, unreadable, taught.", ["outcome"], **which)
        self.batch_photos = Histogram(
            "tosca_batch_photos", "Photos of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), **which
        )
        self.batch_seconds = Histogram("tosca_batch_seconds", "Seconds of a batch.", buckets=_SECONDS, **which)
        Gauge("tosca_photos_waiting", "Photos that wait for the backbone.", **which).set_function(waiting)
        Gauge("tosca_classes", "Classes of the model.", **which).set_function(classes)

    def batch(self, photos: int, seconds: float) -> None:
        """Counts a batch."""
        self.batch_photos.observe(photos)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


class Measured:
    """Counts every request, by the path that the server has for it, so that nobody can make new ones up."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application around another one."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            path = _path(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - begun)


_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


def _path(scope: Scope) -> str:
    route: Any = scope.get("route")
    return getattr(route, "path", "other")
