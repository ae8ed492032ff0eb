"""A text is read, a feature is named and steered, and its trace is there again after a reload."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.e2e.autoencoder import SOURCE
from tests.e2e.visit import answer, run_url, wait_for_end

TEXT = "The river ran over its banks. <script>document.title = 'taken'</script> The cat sat by the river."
CORPUS = "The river ran to the sea.\n\nA cat sat on the mat.\n\nThe bank lent him money."


def trace(page: Page, lane: str) -> tuple[str | None, int]:
    """What is said of the bars under an answer, and how many there are, once they stand still."""
    picture = answer(page, lane).locator(".trace")
    expect(picture).to_be_attached()
    page.wait_for_timeout(500)
    drawn = picture.locator("path").get_attribute("d") or ""
    return picture.get_attribute("aria-label"), drawn.count("M")


def test_a_feature_is_found_in_a_text_named_steered_and_traced(visit: Any) -> None:
    page = visit().goto("/features/")
    page.get_by_label("Autoencoder", exact=True).select_option(SOURCE)
    page.get_by_role("textbox", name="Text").fill(TEXT)
    page.get_by_role("button", name="Read", exact=True).click()
    rows = page.locator(".feature-list li")
    expect(rows.first).to_be_visible()
    expect(page.locator(".tk")).not_to_have_count(0)
    shown = "".join(page.locator(".tk").all_text_contents()).replace("↵\n", "\n")
    assert TEXT in shown and page.title() != "taken"  # hostile text stays text

    page.locator(".tk").nth(2).focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('.tk[data-i="3"]')).to_be_focused()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Sort by chosen tokens").click()
    expect(page.locator("[data-note]")).to_contain_text("sum over 1 chosen token")
    rows.first.locator("a").click()

    expect(page.locator("#feature")).to_have_attribute("aria-busy", "false")
    page.get_by_label("Your word for it").fill("rivers and banks")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("rivers and banks")
    page.get_by_role("link", name="Steer with this").click()

    expect(page.locator('.lane-head[data-lane="B"] .chip b')).to_have_text("rivers and banks")
    expect(page.locator("[inert]")).to_have_count(0)
    page.locator("#prompt").fill("Tell me about a river.")
    page.locator("#run").click()
    run_url(page)
    wait_for_end(page, "A", "B")
    seen = trace(page, "A"), trace(page, "B")
    assert all(bars > 0 for _, bars in seen)
    page.reload()
    wait_for_end(page, "A", "B")
    assert (trace(page, "A"), trace(page, "B")) == seen
    page.locator("input[name=colour][value=feature]").check(force=True)
    expect(page.locator("#legend-watch")).to_be_visible()


def test_a_corpus_is_indexed_and_shown_where_a_feature_fires(visit: Any) -> None:
    page = visit().goto(f"/features/{SOURCE}/")
    page.get_by_label("Texts, divided by empty lines").fill(CORPUS)
    page.get_by_role("button", name="Index", exact=True).click()
    page.get_by_role("link", name="Open result").click()
    expect(page.locator(".tag-ok")).to_have_text("indexed")
    page.goto(page.url + "3/")
    expect(page.locator("#feature")).to_have_attribute("aria-busy", "false")
    expect(page.locator("[data-numbers]")).to_contain_text("of its tokens")


def test_a_number_that_no_feature_has_leads_back(visit: Any) -> None:
    someone = visit()
    page = someone.goto("/features/")
    page.goto(f"{someone.url}/features/{SOURCE}/999/")
    expect(page.locator("h1")).to_have_text("No such feature")
    expect(page.get_by_role("alert")).to_contain_text("0 to 255")
    someone.complaints.clear()  # the browser reports the 404 that was asked for
