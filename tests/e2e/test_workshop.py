"""The workshop's stage: one click on an example writes both texts, and a dial writes them anew with the same seed."""

from __future__ import annotations

from typing import Any

LANES = ("base", "steered")


def test_an_example_is_written_twice_and_anew_when_the_strength_moves(visit: Any) -> None:
    page = visit().goto("/workshop/")
    page.fill('[name="max_length"]', "20")
    page.click('[data-of="tabby_cats"]')
    first = _written(page)
    assert first["base"] != first["steered"]
    assert all(text.startswith("It rained all Sunday") for text in first.values())
    page.fill('[name="strength"]', "0")
    page.wait_for_selector(".is-writing", state="attached")
    again = _written(page)
    assert again["base"] == again["steered"]


def _written(page: Any) -> dict[str, str]:
    page.wait_for_selector(".is-writing", state="detached", timeout=120_000)
    assert page.inner_text("[data-state]") == ""
    return {lane: page.inner_text(f'[data-lane="{lane}"]') for lane in LANES}
