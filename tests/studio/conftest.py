"""A studio on a tiny model, its server, and a browser on its page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..tiny import make_tiny

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'depthsched[studio]'")

from depthsched.studio import server
from depthsched.studio.session import Studio


@pytest.fixture(scope="session")
def studio(small_tokenizer: Any) -> Studio:
    """A tiny model that never ends by itself: an answer is as long as one asks for."""
    model = make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer), max_position_embeddings=1024)
    model.generation_config.eos_token_id = None
    return Studio(model, small_tokenizer, "<b>tiny</b>\u202e")


@pytest.fixture(scope="session")
def address(studio: Studio) -> Iterator[str]:
    """Where its page is served."""
    server.quiet_gradio()
    listening, ready = server.listen("127.0.0.1", 0), threading.Event()
    serving = server.make_server(studio, "127.0.0.1", ready.set)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield server.address_of("127.0.0.1", listening)
    serving.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page; what the console said and what was asked of the network are lists on it."""
    contexts = []

    def opened(where: str = address, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.problems, page.requests = [], []
        page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("dialog", lambda dialog: (page.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(where)
        page.locator("#ds-picture svg").first.wait_for()
        page.locator("#ds-schedule-alpha input[type=range]").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
