from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.several import Several, Web


@pytest.fixture(scope="package")
def several() -> Iterator[Several]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    # A folder of our own: PostgreSQL, which does not run as root, cannot pass through the one that pytest gives.
    with tempfile.TemporaryDirectory(prefix="steerboard-several-") as folder, Several(Path(folder)) as running:
        yield running


@pytest.fixture(scope="package")
def webs(several: Several) -> tuple[Web, Web]:
    """Two web processes. A run of 20 words takes three seconds."""
    return several.web(0.15), several.web(0.15)
