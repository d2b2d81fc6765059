"""What stands before a server: who may ask, how much may be sent, what browsers are told, and what Prometheus is told."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/", "/health", "/docs", "/openapi.json")  # need no token: nothing of the model is in them
OPEN_FOLDER = "/static/"
DRAINED = 4  # times the limit: what is read and thrown away of a body that is refused, so that the answer is seen
BODIES = 8  # times the limit of one request: bytes of all requests that are being received or answered
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    bytes, images: of a request. pixels: of a photo. waiting: photos that may wait for the backbone.
    """

    bytes: int = 64 << 20
    images: int = 64
    pixels: int = 50_000_000
    waiting: int = 256


def problem_body(problem: str, where: str | None, remedy: str | None) -> dict[str, str | None]:
    """What every answer that is no success holds: what is wrong, where, and what to do."""
    return {"error": problem, "where": where, "do": remedy}


def refusal(
    status: int, problem: str, where: str, remedy: str, headers: Mapping[str, str] | None = None
) -> HTTPException:
    """An exception that is answered with a status and `problem_body`."""
    return HTTPException(status, problem_body(problem, where, remedy), dict(headers or {}))  # type: ignore[arg-type]


class Guard:
    """An ASGI application around another one: checks who asks, counts bytes and requests, and adds headers.

    Without a token only this machine's own names are answered, and no page of another origin: otherwise any page that the
    user opens could teach the model, or read it under a name that leads here.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, registry: CollectorRegistry) -> None:
        self.app, self.limits, self._held = app, limits, 0
        self._token = None if token is None else token.encode()
        self._requests = Counter("tosca_requests", "Requests.", ["path", "status"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, held = 500, 0

        async def sent(message: Message) -> None:
            """Sends a message; the one that begins the answer with the headers of every answer."""
            nonlocal status
            if message["type"] == "http.response.start":
                status, headers = message["status"], MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        async def received() -> Message:
            """The next message, refused if this body, or all together, have too many bytes by then."""
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held, self._held = held + size, self._held + size
            if held > self.limits.bytes:
                await self._refuse(message, receive)
            if self._held > BODIES * self.limits.bytes:
                raise refusal(503, "too much is being sent at once", "body", "try again in 1 s", {"Retry-After": "1"})
            return message

        try:
            self._check_who(scope["path"], Headers(scope=scope))
            await self.app(scope, received, sent)
        except HTTPException as error:
            await JSONResponse(error.detail, error.status_code, error.headers)(scope, receive, sent)
        finally:
            self._held -= held
            path = getattr(scope.get("route"), "path", "other")  # as the server has it: nobody can make new ones up
            self._requests.labels(path, str(status)).inc()

    def _check_who(self, path: str, headers: Headers) -> None:
        if self._token is None:
            host, origin = headers.get("host", ""), headers.get("origin")
            if not is_loopback(re.sub(r":\d+$", "", host)):
                raise refusal(403, "this server answers under names of this machine only", "Host", "use 127.0.0.1")
            if origin is not None and origin.partition("://")[2] != host:
                raise refusal(403, "a page of another origin may not ask", "Origin", "open the page of this server")
        elif path not in OPEN and not path.startswith(OPEN_FOLDER):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
                raise refusal(
                    *(401, "the token is missing or wrong", "Authorization"),
                    "send the header Authorization: Bearer TOKEN, with the token that the server was started with",
                    {"WWW-Authenticate": "Bearer"},
                )

    async def _refuse(self, message: Any, receive: Receive) -> None:
        """Refuses a body, once it is read: a client that is cut off while it is sending never sees the answer."""
        left = DRAINED * self.limits.bytes
        while left > 0 and message.get("more_body"):
            message = await receive()
            left -= len(message.get("body", b""))
        problem = f"the request has more than {self.limits.bytes / (1 << 20):.3g} MiB"
        raise refusal(413, problem, "body", "send fewer photos at a time; tosca serve --max-bytes allows more")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, and no other machine's."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
