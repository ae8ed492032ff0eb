"""A person finds out where an answer comes from, with the default model, by mouse and by keyboard."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.visit import SECONDS, Visit

known: list[str] = []  # the address of what was asked: it takes seconds, and once is enough


@pytest.fixture
def asked(visit: Any) -> Page:
    """The page of an answered question about few layers."""
    page: Page = visit().goto(known[0] if known else "/attribution/new/?example=indirect-object")
    if not known:
        expect(page.locator("[data-alignment] .pair")).to_have_count(14)
        page.get_by_label("Layers").fill("20-24")
        page.get_by_role("button", name="Attribute", exact=True).click()
        page.wait_for_url(re.compile(r"/attribution/[0-9a-f-]{36}/"))
        known.append(urlsplit(page.url).path)
    expect(page.locator("[data-headline] dt").first).to_be_visible(timeout=180 * SECONDS)
    return page


def test_an_answer_is_traced_verified_and_looked_at(asked: Page) -> None:
    page = asked
    expect(page.locator("[data-maps] .js-plotly-plot")).to_have_count(4)
    for button in ("Verify by exact patching", "Read the direct logits", "Read the logit lens"):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("button", name=button)).to_have_count(0)
        expect(page.locator("[data-job]")).to_have_count(0, timeout=180 * SECONDS)
    expect(page.locator("[data-scatter] .correlation")).to_contain_text("Pearson")
    expect(page.locator("[data-lens] table tbody tr")).to_have_count(31)
    expect(page.locator("[data-direct] .js-plotly-plot").first).to_be_visible()
    page.locator("[data-scatter]").get_by_role("button", name="Show predicted against actual as a table").click()
    expect(page.locator("[data-scatter] .figure-table tbody tr")).not_to_have_count(0)


def test_a_place_is_chosen_in_one_figure_and_shown_in_all_by_keyboard(asked: Page) -> None:
    page = asked
    field = page.locator(".heat-field").first
    field.focus()
    before = page.locator("[data-readout]").inner_text()
    field.press("ArrowDown")
    expect(page.locator("[data-readout]")).not_to_have_text(before)
    field.press("Enter")
    expect(page.locator(".strip .is-picked")).to_have_count(1)
    token = page.locator(".strip button[data-position='9']")
    token.focus()
    token.press("Enter")
    expect(token).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-top] tr.picked").first).to_be_attached()


def test_pairs_of_tokens_are_mended_by_keyboard_by_taps_and_by_dragging(visit: Any) -> None:
    person: Visit = visit()
    page = person.goto("/attribution/new/?example=lengths")
    sent = page.locator("[name=alignment]")
    law = page.locator("[data-corrupted='3']")
    expect(sent).to_have_value("[[0,0],[1,3],[2,4],[3,5],[4,6],[5,7],[6,8],[7,9],[8,10],[9,11]]")
    law.focus()
    law.press("Delete")
    expect(sent).to_have_value(re.compile(r"^\[\[0,0\],\[2,4\]"))
    page.locator("[data-corrupted='1']").click()
    page.locator("[data-clean='1']").click()
    expect(sent).to_have_value(re.compile(r"^\[\[0,0\],\[1,1\],\[2,4\]"))
    page.locator("[data-corrupted='2']").drag_to(page.locator("[data-clean='1']"))
    expect(sent).to_have_value(re.compile(r"^\[\[0,0\],\[1,2\],\[2,4\]"))
    last = page.locator("[data-corrupted='11']")
    last.focus()
    last.press("Delete")
    expect(page.locator("[data-problem]")).to_contain_text("The last tokens stay a pair")
    page.get_by_role("button", name="Pair them anew").click()
    expect(sent).to_have_value(re.compile(r"^\[\[0,0\],\[1,3\]"))


def test_the_map_of_the_model_is_searched(visit: Any) -> None:
    page = visit().goto("/attribution/model/")
    if page.get_by_role("button", name="Map it").count():
        page.get_by_role("button", name="Map it").click()
    expect(page.locator("[data-hooks] tbody tr").first).to_be_visible(timeout=60 * SECONDS)
    page.get_by_label("Search").fill("blocks.7.hook_resid_post")
    expect(page.locator("[data-hooks] tbody tr:visible")).to_have_count(1)
    page.get_by_label("Search").fill("o_proj")
    expect(page.locator("[data-modules] tbody tr:visible")).to_have_count(1)
    page.get_by_label("Search").fill("no such thing")
    expect(page.locator("[data-none]")).to_be_visible()
