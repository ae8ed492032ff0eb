"""How the tests are shared out among processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import parallel

ROOT = Path(__file__).resolve().parent.parent
GIB = 1024**3


@pytest.mark.parametrize(
    ("nodeid", "unit"),
    [
        ("tests/e2e/test_pages.py::test_one[phone]", "tests/e2e/"),
        ("tests/steering/test_vectors.py::test_one", "tests/steering/test_vectors.py"),
        ("tests/inference/test_text.py::test_one[a::b]", "tests/inference/test_text.py"),
    ],
)
def test_a_file_or_a_folder_with_servers_stays_in_one_process(nodeid: str, unit: str) -> None:
    assert parallel.unit_of(nodeid) == unit


def test_every_folder_whose_tests_share_servers_stays_together() -> None:
    shared = {path.parent for path in (ROOT / "tests").rglob("conftest.py") if 'scope="package"' in path.read_text()}
    assert {ROOT / folder for folder in parallel.TOGETHER} == shared


def test_what_takes_long_comes_first_and_is_there() -> None:
    assert all((ROOT / path).exists() for path in parallel.FIRST)
    tests = ["tests/steering/test_jobs.py::test", "tests/inference/test_text.py::test", "tests/e2e/test_pages.py::test"]
    assert sorted(tests, key=parallel.turn_of) == tests[::-1]


@pytest.mark.parametrize(("cores", "memory", "workers"), [(2, 24, 3), (2, 8, 2), (16, 64, 16), (1, 2, 1), (4, 512, 5)])
def test_there_is_a_process_more_than_cores_where_memory_allows_it(cores: int, memory: int, workers: int) -> None:
    assert parallel.workers_for(cores, memory * GIB) == workers
