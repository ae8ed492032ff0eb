"""A person at a browser, watched: every request and every line of the console is kept and judged at the end."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, expect

DESKTOP: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LOCAL = {"data", "blob", "about"}
SECONDS = 1000
expect.set_options(timeout=30 * SECONDS)  # this machine may be busy with other tests


class Visit:
    def __init__(self, context: BrowserContext, url: str):
        self.context = context
        self.url = url
        self.requested: list[str] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.requested.append(request.url))
        context.on("page", self._listen)
        context.set_default_timeout(60 * SECONDS)
        self.page: Page = context.new_page()

    def _listen(self, page: Page) -> None:
        page.on("websocket", lambda socket: self.requested.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def goto(self, path: str) -> Page:
        self.page.goto(self.url + path)
        expect(self.page.locator("[inert]")).to_have_count(0)  # scripts listen
        return self.page

    def end(self) -> None:
        self.context.close()
        own = urlsplit(self.url).netloc
        strangers = {u for u in self.requested if urlsplit(u).scheme not in LOCAL and urlsplit(u).netloc != own}
        assert not strangers, f"requests left this host: {strangers}"
        assert not self.complaints, f"the console is not clean: {self.complaints}"


def answer(page: Page, lane: str) -> Any:
    return page.locator(f'.answer[data-lane="{lane}"]')


def written(page: Page, lane: str) -> list[str]:
    """The tokens that stand in a lane, in order. Raises AssertionError where a number is missing or comes twice."""
    spans = answer(page, lane).locator(".out .t")
    numbered = spans.evaluate_all("spans => spans.map(s => [Number(s.dataset.i), s.textContent])")
    assert [i for i, _ in numbered] == list(range(len(numbered)))
    return [text for _, text in numbered]


def wait_for_tokens(page: Page, lane: str, n: int) -> None:
    expect(answer(page, lane).locator(f'.out .t[data-i="{n - 1}"]')).to_be_attached(timeout=120 * SECONDS)


def wait_for_end(page: Page, *lanes: str) -> None:
    """Until the answers have their closing facts, and nothing is being written any more."""
    for lane in lanes:
        expect(answer(page, lane).locator(".answer-bar:not([hidden])")).to_be_attached(timeout=180 * SECONDS)
        expect(answer(page, lane)).to_have_attribute("aria-busy", "false")


def run_url(page: Page) -> str:
    page.wait_for_url(re.compile(r"/playground/[0-9a-f-]{36}/"))
    return page.url
