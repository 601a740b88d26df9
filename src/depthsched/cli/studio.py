"""``depthsched studio``."""

from __future__ import annotations

import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from .output import DeviceOption, DtypeOption, ModelOption, ProfileOption, WeightsOption, load_quietly, notes

if TYPE_CHECKING:
    from ..studio.session import Studio


def add_to(app: typer.Typer) -> None:
    app.command("studio")(studio)


def studio(
    model: ModelOption = "smollm2",
    profile: ProfileOption = None,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; another one than this machine's own opens it to others."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Drive a model family that is unknown or refused.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
) -> None:
    """A local page to draw plans, to see two texts side by side, token by token, and to compare runs."""
    from ..studio import server

    server.need_gradio()
    server.quiet_gradio()
    with server.listen(host, port) as listening:  # before the model, so that a port in use costs no loading
        if not server.is_loopback(host):
            print(
                f"depthsched: warning: {host} is not this machine's own address: whoever reaches it can run the model "
                "and any Python file here whose path they name, without a password",
                file=sys.stderr,
            )
        with notes().status(f"loading {model}", spinner="dots"):
            made = _load(model, profile, force, dtype, device, weights)
        # Waiting threads take over from Python code of the page this fast; a token is a few milliseconds.
        sys.setswitchinterval(0.0005)
        threading.Thread(target=made.warm_up, daemon=True).start()
        address = server.address_of(host, listening)

        def ready() -> None:
            print(f"{address} (Ctrl-C ends it)", flush=True)
            if not no_browser:
                webbrowser.open(address)

        server.make_server(made, host, ready).run(sockets=[listening])


def _load(model: str, profile: str | None, force: bool, dtype: str, device: str, weights: str) -> Studio:
    loaded, tokenizer = load_quietly(model, dtype, device, weights)
    from ..studio.session import Studio

    made = Studio(loaded, tokenizer, model, profile or "", force=force)
    if profile:
        made.parse(f"full+profile={profile}").resolve(made.layers, 1)
    return made
