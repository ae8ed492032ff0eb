from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from steerboard import AsyncSteerboard, Steerboard

from tests.openai.server import Server


@pytest.fixture(autouse=True)
def nobodys_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of credentials of this test, which nobody has written yet."""
    for name in ("STEERBOARD_URL", "STEERBOARD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config" / "credentials.json"
    monkeypatch.setenv("STEERBOARD_CREDENTIALS", str(path))
    return path


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real web process with a tiny model. `server.key("all")` has every scope but admin."""
    from tests.inference import stack, tiny  # torch, which most tests here need not load

    folder = tmp_path_factory.mktemp("client")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / "Tiny-Llama")
    running = Server(model, folder, "tests.compat.web", SIGNUP="open")
    yield running
    running.stop()


@pytest.fixture
def client_of(server: Server) -> Iterator[Callable[..., Steerboard]]:
    """client_of("poor") has the key of that name and does not try again."""
    made: list[Steerboard] = []

    def make(name: str = "all", **options: Any) -> Steerboard:
        made.append(Steerboard(server.url, server.key(name), **{"max_retries": 0, **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def mx(client_of: Callable[..., Steerboard]) -> Steerboard:
    return client_of()


@pytest.fixture
async def amx(server: Server) -> Any:
    async with AsyncSteerboard(server.url, server.key("all"), max_retries=0) as client:
        yield client
