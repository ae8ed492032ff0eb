"""A behavior from its pairs to a lane: fitted, moved, read on a text, watched while the model writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.e2e.visit import wait_for_end

PAIRS = Path(__file__).resolve().parents[2] / "benchmarks/data/anger-pairs.jsonl"


def test_a_behavior_is_made_read_and_watched_for(visit: Any) -> None:
    page = visit().goto("/behaviors/new/")
    page.locator("#id_name").fill("anger")
    page.locator("input[name=how][value=upload]").check(force=True)
    page.locator("#file").set_input_files(PAIRS)
    page.get_by_role("button", name="Fit", exact=True).click()
    page.wait_for_url(re.compile(r"/behaviors/[0-9a-f-]{36}/$"), timeout=240_000)
    expect(page.locator("h1")).to_have_text("anger")

    page.locator("[data-threshold-slider]").press("ArrowLeft")
    expect(page.locator("[data-threshold-state]")).to_have_text("not saved")
    expect(page.locator("[data-threshold-save]")).to_be_visible()

    page.locator("#read-text").fill("You stupid idiot, <b>get out</b>!")
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.locator(".read-tokens")).to_have_text("You stupid idiot, <b>get out</b>!")
    expect(page.locator(".read-tokens .rt-fired")).not_to_have_count(0)

    page.get_by_role("link", name="Open in playground").click()
    expect(page.locator("[inert]")).to_have_count(0)
    lane = page.locator('.lane-head[data-lane="B"]')
    expect(lane.locator(".chip-behavior")).to_have_text("anger@1.0")
    lane.get_by_label("always anger@1.0").check()
    page.locator("#prompt").fill("Hello")
    page.locator("#run").click()
    wait_for_end(page, "A", "B")
    page.locator('.answer[data-lane="B"] .receipt summary').click()
    expect(page.locator('.answer[data-lane="B"] .receipt')).to_contain_text("Because of")
