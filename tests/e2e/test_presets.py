"""A lane is kept under a name, and comes back under it, by keyboard alone."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect


def test_a_lane_is_saved_as_a_preset_and_loaded_into_another(visit: Any) -> None:
    page = visit().goto("/playground/")
    page.locator('.lane-head[data-lane="C"] .lane-menu summary').focus()
    page.keyboard.press("s")
    dialog = page.get_by_role("dialog", name="Save as a preset")
    page.keyboard.type("kept-lane")
    expect(dialog.locator("code")).to_contain_text("::kept-lane@1.0")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Saved as kept-lane@1.0")

    menu = page.locator('.lane-head[data-lane="A"] .lane-menu')
    menu.locator("summary").press("Enter")
    menu.get_by_text("Load a preset").press("Enter")
    page.keyboard.type("kept-lane")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator('.lane-head[data-lane="A"] h2')).to_have_text("kept-lane")
    chips = page.locator('.lane-head[data-lane="A"] .chips, .lane-head[data-lane="C"] .chips').all_inner_texts()
    assert chips[0] == chips[1] != ""

    page.get_by_role("link", name="See how").click()
    expect(page.locator("#model-name")).to_have_text("smollm2-135m-instruct::kept-lane@1.0")
    expect(page.locator("#call-curl")).to_contain_text("kept-lane@1.0")
