"""How `pytest -n auto --dist loadfile`, which is `make test`, shares the tests out among processes.

A file's tests stay together, and so do those of the folders whose tests share heavy servers. What takes longest comes
first, so that no process is left with a long file when the others are done.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
TOGETHER = ("tests/e2e/", "tests/processes/", "tests/compat/", "tests/client/", "tests/openai/")
FIRST = (*TOGETHER[:2], "tests/inference/", "tests/guards/", "tests/test_benchmarks.py", *TOGETHER[2:])
GIB_EACH = 4  # torch, a model and the servers a test starts

if IS_WORKER:  # before torch is imported: threads of several processes on the same cores wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"


def unit_of(nodeid: str) -> str:
    """The file, or the folder, whose tests one process runs."""
    return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.split("::", 1)[0])


def turn_of(nodeid: str) -> int:
    return next((i for i, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_WORKER:
        items.sort(key=lambda item: turn_of(item.nodeid))


def workers_for(cores: int, memory: int) -> int:
    """One more than there are cores, since tests wait for servers, where `memory` bytes are enough for that."""
    return max(1, min(cores + 1, memory // (GIB_EACH * 1024**3)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return workers_for(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False  # by our order, not by how many tests a file has
    return Units(config, log)
