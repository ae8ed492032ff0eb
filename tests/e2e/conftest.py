from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import autoencoder
from tests.e2e.server import LiveServer
from tests.e2e.visit import DESKTOP, PHONE, Visit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="package")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data = tmp_path_factory.mktemp("data")
    autoencoder.write(data / "saes")
    with LiveServer(data) as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One for all of these tests: a thread can hold only one Playwright at a time."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian, Ubuntu: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)


@pytest.fixture(scope="package")
def signed_in(browser: Any, server: LiveServer) -> Any:
    """What a browser remembers after the one-time link: its cookies."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.link)
    page.wait_for_url(f"{server.url}/")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def visit(browser: Any, server: LiveServer, signed_in: Any) -> Iterator[Any]:
    """visit() is a signed-in person at a desk, visit(PHONE) one with a phone; both must leave no trace elsewhere."""
    visits: list[Visit] = []

    def begin(device: dict[str, Any] = DESKTOP) -> Visit:
        visits.append(Visit(browser.new_context(storage_state=signed_in, **device), server.url))
        return visits[-1]

    yield begin
    for each in visits:
        each.end()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def device(request: pytest.FixtureRequest) -> Any:
    return request.param
