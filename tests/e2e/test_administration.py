"""The admin pages in a real browser, under the same content security policy as all others."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

PAGES = [
    "/admin/",
    "/admin/accounts/user/",
    "/admin/accounts/user/1/change/",
    "/admin/access/limit/add/",
    "/admin/access/apikey/",
    "/admin/access/ledgerentry/",
    "/admin/administration/runningwork/",
    "/admin/presets/preset/",
    "/admin/audit/auditentry/",
]


def test_no_page_of_the_admin_breaks_a_rule_of_the_policy(visit: Any, device: Any) -> None:
    """`visit` judges the console, where a browser says what it has blocked."""
    visitor = visit(device)
    for path in PAGES:
        page = visitor.goto(path)
        expect(page.locator("#main")).to_have_attribute("role", "main")
        expect(page.locator("html")).not_to_have_attribute("x-cloak", "")  # Alpine has begun
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], path


def test_what_moves_on_the_admin_pages_moves(visit: Any) -> None:
    page = visit().goto("/admin/presets/preset/")
    navigation = page.locator("#nav-sidebar")
    page.get_by_role("button", name="Show or hide the navigation").press("Enter")
    expect(navigation).to_be_hidden()
    page.reload()
    expect(navigation).to_be_hidden()
    page.get_by_role("button", name="Show or hide the navigation").press("Enter")
    expect(navigation).to_be_visible()

    page.locator("#action-toggle").check()
    expect(page.locator(".action-counter")).to_be_visible()

    page.get_by_text("Filters").first.click()
    expect(page.locator("#changelist-filter")).to_be_visible()


def test_a_limit_is_set_with_the_fields_that_search(visit: Any) -> None:
    page = visit().goto("/admin/access/limit/add/")
    page.locator("#id_user + .select2 .select2-selection").click()
    page.locator(".select2-search__field").fill("admin")
    page.locator(".select2-results__option", has_text="Admin").first.click()
    page.locator("#id_concurrent_runs").fill("9")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#result_list")).to_contain_text("9")
    page.locator("#result_list").get_by_role("link", name="Admin").first.click()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#main")).to_contain_text("No limits of their own")


def test_the_theme_is_one_for_all_pages(visit: Any) -> None:
    page = visit({"color_scheme": "light", "viewport": {"width": 1440, "height": 900}}).goto("/admin/")
    page.locator("#nav-sidebar").get_by_text("Admin", exact=True).click()
    page.get_by_text("Dark", exact=True).click()
    expect(page.locator("html")).to_have_class("dark")
    page.goto(page.url.replace("/admin/", "/presets/"))
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    page.evaluate("localStorage.clear()")
