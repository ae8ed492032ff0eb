"""The Models page and the build page over real workers: what an administrator does there is what happens."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.remote import Remote
from tests.e2e.visit import DESKTOP, PHONE, SECONDS, Visit, answer, wait_for_end, written

ONE, TWO = "tiny-one", "tiny-two"


@pytest.fixture(scope="module")
def remote(browser: Any) -> Iterator[Remote]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="steerboard-remote-") as folder, Remote(Path(folder)) as running:
        yield running


@pytest.fixture
def visit(browser: Any, remote: Remote) -> Iterator[Any]:
    """visit() is the administrator at a desk, visit(PHONE) with a phone. Both workers hold a model at first."""
    visits: list[Visit] = []

    def begin(device: dict[str, Any] = DESKTOP) -> Visit:
        context = browser.new_context(**device)
        context.add_cookies([remote.cookie])
        visits.append(Visit(context, remote.url))
        return visits[-1]

    yield begin
    for each in visits:
        each.end()


def row(page: Page, worker: str) -> Locator:
    return page.locator("table.workers tbody tr").filter(has_text=re.compile(rf"^\s*{worker}-"))


def order(page: Page, worker: str, button: str, model: str = "") -> None:
    """Press a button in the row of a worker, and confirm."""
    if model:
        row(page, worker).get_by_label("Model to load").select_option(label=model)
    row(page, worker).get_by_role("button", name=button, exact=True).click()
    expect(page.locator("#confirm h2")).to_contain_text(worker)
    page.locator("#confirm [data-yes]").click()
    expect(page.locator(".messages, .alert, [role=status]").filter(has_text=worker).first).to_be_visible()


def shows(page: Page, worker: str, state: str, model: str) -> None:
    """The row says so by itself, without a reload."""
    cells = row(page, worker).locator("td")
    expect(cells.nth(2)).to_contain_text(model, timeout=60 * SECONDS)
    expect(cells.nth(1)).to_have_text(state, timeout=60 * SECONDS)


def prepared(visit: Visit) -> Page:
    """The Models page with both models ready, whatever the test before has left."""
    page = visit.goto("/models/")
    for worker, model in (("first", ONE), ("second", TWO)):
        cells = row(page, worker).locator("td")
        if "Draining" in cells.nth(1).inner_text():
            order(page, worker, "Resume")
        holds = cells.nth(2).inner_text()
        if model not in holds:
            order(page, worker, "Load" if holds == "none" else "Switch", model)
        shows(page, worker, "Ready", model)
    return page


def run_in_the_playground(page: Page, url: str, model: str) -> None:
    page.goto(f"{url}/playground/")
    expect(page.locator("[inert]")).to_have_count(0)
    page.locator("select").filter(has=page.locator(f"option[value={model}]")).first.select_option(model)
    page.locator("#prompt").fill("Hello")
    page.locator("#run").click()


def test_a_model_is_loaded_used_and_unloaded(visit: Any, remote: Remote) -> None:
    page = prepared(at_desk := visit())
    run_in_the_playground(page, remote.url, TWO)
    wait_for_end(page, "A", "B", "C")
    assert written(page, "A")
    page = at_desk.goto("/models/")
    order(page, "second", "Unload")
    shows(page, "second", "No model", "none")
    assert row(page, "second").get_by_role("button").all_inner_texts() == ["Load"]


def test_a_worker_that_drains_takes_nothing_until_it_resumes(visit: Any, remote: Remote) -> None:
    page = prepared(at_desk := visit())
    order(page, "first", "Drain")
    shows(page, "first", "Draining", ONE)
    run_in_the_playground(page, remote.url, ONE)
    expect(answer(page, "A")).to_contain_text("about to be exchanged")
    page = at_desk.goto("/models/")
    order(page, "first", "Resume")
    shows(page, "first", "Ready", ONE)
    run_in_the_playground(page, remote.url, ONE)
    wait_for_end(page, "A")


def test_a_worker_is_switched_to_another_model_from_a_phone(visit: Any) -> None:
    page = prepared(visit(PHONE))
    order(page, "first", "Switch", TWO)
    shows(page, "first", "Ready", TWO)
    shows(page, "second", "Ready", TWO)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]


def test_a_question_that_is_taken_back_changes_nothing_and_the_table_goes_on(visit: Any) -> None:
    page = prepared(visit())
    row(page, "second").get_by_role("button", name="Unload").click()
    page.locator("#confirm [data-no]").click()
    age = row(page, "second").locator("[data-what='Heard of']")
    age.evaluate("cell => cell.textContent = 'long ago'")
    expect(age).to_contain_text("s ago")  # fetched again, though the button has the focus
    expect(row(page, "second").get_by_role("button", name="Unload")).to_be_focused()
    shows(page, "second", "Ready", TWO)


def test_a_vector_is_built_on_the_model_that_is_chosen(visit: Any) -> None:
    prepared(at_desk := visit())
    page = at_desk.goto("/vectors/build/")
    page.locator("#id_dataset").select_option(index=1)
    page.locator("#id_model").select_option(TWO)
    expect(page.locator("#layers-hint")).to_contain_text("0 to 3")
    page.locator("#id_name").fill("From afar")
    page.locator("#id_layers").fill("9")
    page.get_by_role("button", name="Build").click()
    expect(page.get_by_role("alert")).to_contain_text("layers 0 to 3")
    expect(page.locator("#id_model")).to_have_value(TWO)
    page.locator("#id_layers").fill("1-2")
    page.get_by_role("button", name="Build").click()
    page.wait_for_url(re.compile(r"/vectors/[0-9a-f-]{36}/$"), timeout=120 * SECONDS)
    expect(page.locator("h1")).to_have_text("From afar")
    expect(page.locator("main")).to_contain_text(f"Made on {TWO}; you work with {ONE}.")
    expect(page.locator(".js-plotly-plot, svg.main-svg").first).to_be_visible()
    expect(page.locator("main")).to_contain_text("recommended of 2 layers")
