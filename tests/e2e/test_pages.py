"""Every page opens with a clean console, asks no other host for anything, and fits a narrow screen."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.visit import Visit

PAGES = [
    "/",
    "/playground/",
    "/playground/runs/",
    "/datasets/",
    "/datasets/new/",
    "/datasets/import/",
    "/vectors/",
    "/vectors/build/",
    "/vectors/upload/",
    "/presets/",
    "/attribution/",
    "/attribution/new/?example=lengths",
    "/attribution/model/",
    "/questions/",
    "/questions/new/?example",
    "/questions/collections/new/",
    "/jobs/",
    "/workshop/",
    "/accounts/profile/",
    "/accounts/password/set/",
    "/accounts/email/",
    "/accounts/totp/",
    "/accounts/sessions/",
    "/accounts/invitations/",
    "/accounts/delete/",
]
NARROW: dict[str, Any] = {"viewport": {"width": 320, "height": 640}}


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_is_quiet_and_local(visit: Any, path: str, theme: str) -> None:
    at_desk: Visit = visit({"color_scheme": theme, "viewport": {"width": 1440, "height": 900}})
    page = at_desk.goto(path)
    expect(page.locator("h1").first).to_be_attached()
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_320_pixels(visit: Any, path: str) -> None:
    page = visit(NARROW).goto(path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_details_of_a_starter_draw_their_plots(visit: Any) -> None:
    page = visit().goto("/vectors/")
    page.locator("main tbody a[href^='/vectors/']").first.click()
    expect(page.locator(".js-plotly-plot, svg.main-svg").first).to_be_visible()


def test_a_link_signs_in_only_once(visit: Any, browser: Any, server: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.link)
    expect(page.locator("body")).to_contain_text("link")
    assert page.locator("#guide-run").count() == 0
    context.close()
