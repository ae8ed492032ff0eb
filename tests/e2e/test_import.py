"""A file with bad lines loses nothing: each bad line is named, mended in place, and all of them arrive."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect


def lines(n: int) -> list[str]:
    return [
        json.dumps({"prompt": f"Question {i}?", "positive": f"Calmly, {i}.", "negative": f"Angrily, {i}!"})
        for i in range(1, n + 1)
    ]


def test_a_bad_line_3_of_50_is_named_and_mended_on_the_page(visit: Any, device: dict[str, Any], tmp_path: Path) -> None:
    good = lines(50)
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join([*good[:2], good[2][:-4], *good[3:]]))
    page = visit(device).goto("/datasets/import/")
    page.locator("#file").set_input_files(file)
    page.get_by_role("button", name="Look at the file").click()
    expect(page.get_by_role("alert")).to_contain_text("line 3")
    expect(page.get_by_role("alert")).to_contain_text("The other 49 pairs are fine")
    page.locator("#fix-3").fill(good[2])
    page.get_by_role("button", name="Fix line 3 here").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.locator("[name=name]").fill("Fifty pairs")
    page.get_by_role("button", name="Import 50 pairs").last.click()
    page.wait_for_url(re.compile(r"/datasets/[0-9a-f-]{36}/$"))
    expect(page.get_by_role("heading", name="Fifty pairs")).to_be_visible()
    expect(page.locator("body")).to_contain_text("Calmly, 3.")


def test_markup_in_a_dataset_is_text_on_every_page(visit: Any, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"
    file = tmp_path / "hostile.jsonl"
    file.write_text(json.dumps({"prompt": hostile, "positive": f"yes {hostile}", "negative": f"no {hostile}"}))
    page = visit().goto("/datasets/import/")
    page.locator("#file").set_input_files(file)
    page.get_by_role("button", name="Look at the file").click()
    page.locator("[name=name]").fill(hostile[:60])
    page.get_by_role("button", name="Import 1 pair").last.click()
    page.wait_for_url(re.compile(r"/datasets/[0-9a-f-]{36}/$"))
    expect(page.locator("main")).to_contain_text("onerror=alert(1)")
    assert page.title() != "owned"
