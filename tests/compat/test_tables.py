"""What docs/compat promises has a test beside it, and every address of another system is promised."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

from tests.guards.world import routes

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "docs" / "compat").glob("*.md"))
HEAD = ["Path", "Field", "What it does here", "Test"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
SYSTEMS = ("mechanex", "neuronpedia", "older", "workshop")


def rows(document: Path) -> list[tuple[int, list[str]]]:
    """Those of the tables with our head, with the numbers of their lines."""
    found, inside = [], False
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] if line[:1] == "|" else []
        if cells == HEAD:
            inside = True
        elif not cells:
            inside = False
        elif inside and not set("".join(cells)) <= set("-: "):
            found.append((number, cells))
    return found


@lru_cache
def names_in(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_row_says_what_it_does_and_names_its_tests(document: Path) -> None:
    wrong, path = [], ""
    for number, cells in rows(document):
        path = (cells[0] if len(cells) == 4 else "") or path
        if len(cells) != 4 or not all(cells[1:]) or not path:
            wrong.append(f"line {number}: a cell is empty, or there are not four")
        elif not NAMED.search(cells[-1]):
            wrong.append(f"line {number}: names no test")
        for file, name in NAMED.findall(cells[-1]):
            if not (ROOT / file).is_file() or name not in names_in(ROOT / file) or not name.startswith("test_"):
                wrong.append(f"line {number}: there is no {file}::{name}")
    assert rows(document) and not wrong, "\n".join(wrong)


def promised() -> set[str]:
    cells = " ".join(row[0] for document in DOCUMENTS for _, row in rows(document))
    return set(re.findall(r"/[\w{}/.-]*", cells))


def test_every_address_is_in_a_table() -> None:
    there = {
        "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.pattern)
        for route in routes()
        if route.name.partition(":")[0] in SYSTEMS
    }
    assert there - promised() == set()
    assert len(there) > 15
