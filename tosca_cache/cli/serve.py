"""`tosca serve`: a model on the network, with a page."""

from __future__ import annotations

import socket
from typing import Annotated, Any

import typer

from tosca_cache.cli.extract import Device
from tosca_cache.cli.learn import ModelPath, Weights
from tosca_cache.cli.options import Plugins
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo

STOP_SECONDS = 30  # for requests that are being answered when the server is told to stop


def serve(
    model: ModelPath,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.", min=0, max=65535)] = 8000,
    read_only: Annotated[bool, typer.Option("--read-only", help="Answer, but do not teach, forget or undo.")] = False,
    token: Annotated[
        str | None,
        typer.Option(
            help="What clients have to send (Authorization: Bearer TOKEN); needed on other addresses than loopback.",
            envvar="TOSCA_TOKEN",
            show_envvar=True,
        ),
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Most bytes of a request.", min=1)] = 64 << 20,
    max_images: Annotated[int, typer.Option(help="Most photos of a request.", min=1, max=1000)] = 64,
    max_pixels: Annotated[int, typer.Option(help="Most pixels of a photo.", min=1)] = 50_000_000,
    queue: Annotated[int, typer.Option(help="Most photos that wait; beyond that the answer is 503.", min=1)] = 256,
    weights: Weights = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Serve a model over HTTP, with a page to ask and teach it; Ctrl-C ends.

    Give a token by the environment rather than on the command line, where other users of the machine can see it.
    """
    try:
        import uvicorn

        from tosca_cache.model.serve.app import create_app
        from tosca_cache.model.serve.guard import Limits
        from tosca_cache.model.serve.served import Served
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serving needs {error.name}, which is not installed",
            where="tosca serve",
            remedy="pip install 'tosca-cache[serve]'",
        ) from error
    _check_token(token, host)
    with _listen(host, port) as listening:
        limits = Limits(bytes=max_bytes, images=max_images, pixels=max_pixels, waiting=queue)
        served = Served(model, device=device, weights=weights, max_pixels=max_pixels)
        app = create_app(served, limits, token=token, read_only=read_only)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=STOP_SECONDS
        )

        class Server(uvicorn.Server):
            """Says where it is when it answers, and Ctrl-C is its own."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                """Begins to answer."""
                await super().startup(sockets)
                if self.started:
                    echo(f"serving {model} on {_address(listening)} (Ctrl-C ends)")

        try:
            Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            echo("stopped", err=True)


def _check_token(token: str | None, host: str) -> None:
    """Raises `UsageError` if a token is needed and not given, or cannot be sent in a header."""
    from tosca_cache.model.serve.guard import is_loopback

    if token is None and not is_loopback(host):
        raise UsageError(
            "on this address other machines can reach the model, so it is served with a token only",
            where=f"--host {host}",
            remedy="set TOSCA_TOKEN (python -c 'import secrets; print(secrets.token_urlsafe())'), or leave --host out",
        )
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise UsageError(
            "a token is made of printable ASCII characters, without spaces around them",
            where="--token, TOSCA_TOKEN",
            remedy="make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `UsageError` if the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UsageError(
            f"this address cannot be listened on: {error.strerror or error}",
            where=f"--host {host} --port {port}",
            remedy="choose another port (--port 0 takes any that is free), or another address",
        ) from error
    return listening


def _address(listening: socket.socket) -> str:
    name: Any = listening.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}/"
