"""Three clicks from sign-in to a visible steering effect."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.e2e.visit import SECONDS, Visit, answer, wait_for_end, written


def test_three_clicks_show_a_steered_answer_beside_the_base_one(visit: Any, device: dict[str, Any]) -> None:
    page = visit(device).goto("/")
    page.locator(".pick-card").first.click()
    page.locator("#guide-run").click()
    wait_for_end(page, "A", "B")
    base, steered = written(page, "A"), written(page, "B")
    assert base
    assert steered
    assert base != steered
    page.locator("#guide-strength input[type=number]").fill("0")
    page.locator("#guide-strength input[type=number]").press("Enter")
    preview = answer(page, "B").locator(".preview-box .out")
    expect(preview).to_be_visible()
    expect(preview).not_to_be_empty(timeout=30 * SECONDS)
    expect(page.locator("#step-3")).to_have_attribute("aria-current", "step")


def test_a_run_of_the_guided_path_opens_in_the_playground(visit: Any) -> None:
    at_desk: Visit = visit()
    page = at_desk.goto("/")
    page.locator("#guide-run").click()
    wait_for_end(page, "A", "B")
    shown = {lane: written(page, lane) for lane in "AB"}
    page.locator("#guide-open a").click()
    wait_for_end(page, "A", "B")
    assert {lane: written(page, lane) for lane in "AB"} == shown
