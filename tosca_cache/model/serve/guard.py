"""What stands before a server: who may ask, how much may be sent, and what browsers are told."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/", "/health", "/docs", "/openapi.json")  # need no token: nothing of the model is in them
OPEN_FOLDER = "/static/"
DRAINED = 4  # times the limit: what is read and thrown away of a body that is refused, so that the answer is seen
SECONDS = 30.0  # for the next piece of a body to arrive
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

    @property
    def bodies(self) -> int:
        """Bytes of all requests that are being received or answered."""
        return 8 * self.bytes


def problem_body(problem: str, where: str | None, remedy: str | None) -> dict[str, str | None]:
    """What every answer that is no success holds: what is wrong, where, and what to do."""
    return {"error": problem, "where": where, "do": remedy}


def refusal(
    status: int, problem: str, where: str, remedy: str, headers: Mapping[str, str] | None = None
) -> HTTPException:
    """An exception that is answered with a status and `problem_body`."""
    return HTTPException(status, problem_body(problem, where, remedy), dict(headers or {}))  # type: ignore[arg-type]


class Guard:
    """An ASGI application around another one: checks who asks, counts the bytes of bodies, and adds headers.

    Without a token only this machine's own names are answered, and no page of another origin: otherwise any page that the
    user opens could teach the model, or read it under a name that leads here.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None) -> None:
        self.app, self.limits = app, limits
        self._token = None if token is None else token.encode()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            """Sends a message; the one that begins the answer with the headers of every answer."""
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers, held = Headers(scope=scope), 0
        try:
            self._check_who(scope["path"], headers)
            held = self._hold(headers)
        except HTTPException as error:
            await self._drain(receive, headers)
            await JSONResponse(error.detail, error.status_code, error.headers)(scope, receive, with_headers)
            return
        try:
            await self.app(scope, self._counted(receive), with_headers)
        finally:
            self._held -= held

    def _check_who(self, path: str, headers: Headers) -> None:
        if self._token is None:
            host, origin = headers.get("host", ""), headers.get("origin")
            if not is_loopback(_name_of(host)):
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

    def _hold(self, headers: Headers) -> int:
        """Books the bytes that a body may have; raises a refusal if it or all bodies together have too many."""
        length = headers.get("content-length")
        if length is None and "transfer-encoding" not in headers:
            return 0
        wanted = int(length) if length is not None and length.isdecimal() else self.limits.bytes
        if wanted > self.limits.bytes:
            raise self._too_large()
        if self._held + wanted > self.limits.bodies:
            raise refusal(503, "too much is being sent at once", "body", "try again in 1 s", {"Retry-After": "1"})
        self._held += wanted
        return wanted

    def _too_large(self) -> HTTPException:
        megabytes = self.limits.bytes / (1 << 20)
        problem = f"the request has more than {megabytes:.3g} MiB"
        return refusal(413, problem, "body", "send fewer photos at a time; tosca serve --max-bytes allows more")

    def _counted(self, receive: Receive) -> Receive:
        """Messages of a body, until it has too many bytes or does not go on."""
        total, more = 0, True

        async def counted() -> Message:
            """The next message, refused if the body is too large by then or does not go on."""
            nonlocal total, more
            if not more:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), SECONDS)
            except TimeoutError:
                more = False
                raise refusal(408, "the request does not go on", "body", "send it again") from None
            total += len(message.get("body", b""))
            more = message.get("more_body", False)
            if total > self.limits.bytes:
                raise self._too_large()
            return message

        return counted

    async def _drain(self, receive: Receive, headers: Headers) -> None:
        """Reads what a client is still sending: one that is cut off in the middle never sees the answer."""
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return
        left = DRAINED * self.limits.bytes

        async def read() -> None:
            """Throws messages away, up to what may be drained."""
            nonlocal left
            message: Any = {"more_body": True}
            while left > 0 and message.get("more_body"):
                message = await receive()
                left -= len(message.get("body", b""))

        try:
            await asyncio.wait_for(read(), SECONDS)
        except TimeoutError:
            return


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, and no other machine's."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The name in a header Host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
