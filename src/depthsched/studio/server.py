"""The server of the page: one address, no other host, and nobody but the page itself may ask it for anything."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from .session import Studio

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Gradio compiles templates and styles in the page; nothing may be fetched from elsewhere, nor sent there.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'self'"
)


def need_gradio() -> None:
    """Raise unless the extra is installed; nothing is imported.

    Raises
    ------
    MissingExtraError
    """
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise MissingExtraError("the studio needs Gradio: pip install 'depthsched[studio]'")


def quiet_gradio() -> None:
    """Switch off what Gradio and the hub client tell others, before they are imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # statistics of every event, for a page that is off
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"


def is_loopback(host: str) -> bool:
    """Whether an address is that of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises
    ------
    SettingsError
        The address is not one of this machine, or the port is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{host} is not an address of this machine: {error}; give another --host") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(64)
    except OSError as error:
        found.close()
        raise SettingsError(
            f"cannot listen on {host}, port {port}: {error.strerror}; give another --host or --port"
        ) from error
    return found


def address_of(host: str, listening: socket.socket) -> str:
    """What to open in a browser."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"


def make_app(studio: Studio, host: str) -> Any:
    """The page as an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI

    from .page import build

    files = resources.files(__package__)
    style, script = (files.joinpath(f"studio.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page = build(studio).queue(default_concurrency_limit=None, api_open=False)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, path="/", server_name=host, theme=theme, css=style,
        head=f"<script>{script}</script>", footer_links=[], ssr_mode=False, enable_monitoring=False, pwa=False,
        mcp_server=False, show_error=False,
    )  # fmt: skip
    return Guard(app, local=is_loopback(host))


class Guard:
    """Refuse what another site asks for in a visitor's browser, and let the page load from here alone.

    Parameters
    ----------
    app : ASGI application
    local : bool
        Whether only names of this machine are answered, so that a name of another site that is pointed here is not.
    """

    def __init__(self, app: Any, *, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        strange = self.local and host.rpartition(":")[0] not in _LOCAL_NAMES and host not in _LOCAL_NAMES
        if strange or (origin is not None and origin.partition("://")[2] != host):
            await _refuse(scope, send)
            return

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self.app(scope, receive, with_policy)


async def _refuse(scope: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"refused: this page answers itself only\n"})


def make_server(studio: Studio, host: str, ready: Callable[[], None]) -> Any:
    """A server whose ``run(sockets=[...])`` serves until it is interrupted; ``ready`` is called when it answers."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            studio.close()
            await super().shutdown(sockets)

    return Server(uvicorn.Config(make_app(studio, host), log_level="error", timeout_graceful_shutdown=1))
