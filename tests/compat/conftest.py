from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.inference import stack, tiny
from tests.openai.server import Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real web process with a tiny model. `server.key("all")` has every scope but admin."""
    folder = tmp_path_factory.mktemp("compat")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / "Tiny-Llama")
    running = Server(model, folder, "tests.compat.web", SIGNUP="open")
    yield running
    running.stop()


@pytest.fixture
def raw(server: Server) -> Iterator[httpx2.Client]:
    """Plain HTTP with the key that has all scopes, for what a client would not send."""
    with httpx2.Client(base_url=server.url, headers={"x-api-key": server.key("all")}, timeout=120) as http:
        yield http
