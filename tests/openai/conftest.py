from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.inference import stack, tiny
from tests.openai.server import Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openai")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / "Tiny-Llama")
    running = Server(model, folder)
    yield running
    running.stop()


@pytest.fixture
def client_of(server: Server) -> Callable[..., openai.OpenAI]:
    """client_of("poor") is the official client with the key of that name; it does not try again."""

    def make(name: str = "full", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key(name), **{"max_retries": 0, **options})

    return make


@pytest.fixture
def client(client_of: Callable[..., openai.OpenAI]) -> openai.OpenAI:
    return client_of()


@pytest.fixture
def raw(server: Server) -> Iterator[httpx2.Client]:
    """Plain HTTP with a key, for what the official client would not send."""
    headers = {"Authorization": f"Bearer {server.key()}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=120) as http:
        yield http


@pytest.fixture(scope="package")
def tiny_folder_of_server(server: Server) -> Path:
    return server.model
