"""Stop, reload, a lost connection: what is written stays, and every token stands there exactly once."""

from __future__ import annotations

import re
import time
from typing import Any

from playwright.sync_api import Page, expect

from tests.e2e.visit import SECONDS, Visit, answer, run_url, wait_for_end, wait_for_tokens, written

STORY = "Write a long story about a lighthouse keeper and his garden. Tell every detail."
SEQUENCE = """(run) => new Promise((resolve, reject) => {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws/playground/', 'steerboard.v1');
  const events = [];
  socket.onopen = () => socket.send(JSON.stringify({t: 'subscribe', run, after: -1}));
  socket.onmessage = ({data}) => {
    const message = JSON.parse(data);
    if (message.t === 'events') events.push(...message.events);
    if (message.t === 'error') reject(message.message);
    if (events.at(-1)?.t === 'run_finished') { socket.close(); resolve(events); }
  };
})"""


def begin(visit: Visit, *, tokens: int) -> Page:
    """A run of STORY in the lanes that the playground offers, `tokens` long at most."""
    page = visit.goto("/playground/")
    page.locator("input[name=mode][value=chat]").check()
    page.locator("#open-sampling").click()
    page.locator("#s-max-tokens").fill(str(tokens))
    page.locator("#s-max-tokens").press("Tab")
    page.locator("#close-sampling").click()
    page.locator("#prompt").fill(STORY)
    page.locator("#run").click()
    run_url(page)
    return page


def stored(page: Page, lane: str) -> list[str]:
    """The tokens of a lane as the server keeps them, after checking that no number is missing or comes twice."""
    run = re.search(r"[0-9a-f-]{36}", page.url)
    assert run
    events = page.evaluate(SEQUENCE, run[0])
    assert [event["seq"] for event in events] == list(range(len(events)))
    return [event["s"] for event in events if event["t"] == "token" and event["lane"] == lane]


def test_stop_keeps_what_is_written(visit: Any, device: dict[str, Any]) -> None:
    page = begin(visit(device), tokens=600)
    wait_for_tokens(page, "A", 4)
    page.locator("#run").click()
    expect(answer(page, "A")).to_have_attribute("aria-busy", "false", timeout=20 * SECONDS)
    kept = written(page, "A")
    assert 4 <= len(kept) < 500
    expect(answer(page, "A").locator(".answer-bar")).to_contain_text("the text so far is kept")
    page.reload()
    wait_for_end(page, "A")
    assert written(page, "A") == kept == stored(page, "A")


def test_a_reload_during_a_stream_shows_every_token_exactly_once(visit: Any, device: dict[str, Any]) -> None:
    page = begin(visit(device), tokens=120)
    for n in (4, 12):
        wait_for_tokens(page, "A", n)
        page.reload()
    wait_for_end(page, "A")
    tokens = written(page, "A")
    assert len(tokens) > 12
    assert tokens == stored(page, "A")


def test_a_lost_connection_is_caught_up_with_exactly_once(visit: Any) -> None:
    at_desk: Visit = visit()
    page = begin(at_desk, tokens=120)
    wait_for_tokens(page, "A", 4)
    at_desk.context.set_offline(True)
    page.wait_for_timeout(1500)
    at_desk.context.set_offline(False)
    wait_for_end(page, "A")
    assert written(page, "A") == stored(page, "A")
    at_desk.complaints.clear()  # Chromium itself reports the lost network in the console


def test_a_run_goes_on_without_its_page(visit: Any) -> None:
    at_desk: Visit = visit()
    page = begin(at_desk, tokens=60)
    url = page.url
    wait_for_tokens(page, "A", 2)
    page.close()
    time.sleep(2)
    at_desk.page = at_desk.context.new_page()
    at_desk.page.goto(url)
    wait_for_end(at_desk.page, "A")
    assert len(written(at_desk.page, "A")) > 2
    assert written(at_desk.page, "A") == stored(at_desk.page, "A")
