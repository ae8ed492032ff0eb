from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from inference.companions import Companions
from inference.engine import Engine, Limits
from inference.models.loader import LoadedModel, load
from inference.store import VectorStore
from tests.inference import tiny
from tests.waiting import until

CACHE = Path(__file__).resolve().parents[2] / "data" / "models"  # where `make run` too keeps what it compiled

torch.set_num_threads(1)  # tiny models lose more to waiting for a second thread than it brings


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in folders:
            folders[family] = tiny.save(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return get


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """Load a tiny model in float64. A new object each time: hooks belong to one owner."""
    return lambda family: load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float64", device="cpu")


@pytest.fixture(scope="session")
def plain_model(tiny_folder: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """As `tiny_model`, with transformers' own modules only."""
    return lambda family: load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float64", device="cpu", speed=())


@pytest.fixture
def make_engine(tiny_model: Callable[[str], LoadedModel], tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Engines over tiny models, closed at the end of the test."""
    made: list[Engine] = []

    def make(family: str = "llama", *, companions: Sequence[str] = (), **limits: int) -> Engine:
        model = tiny_model(family)
        engine = Engine(
            lambda: model,
            VectorStore(tmp_path / "vectors"),
            name=family,
            limits=Limits(**limits),
            companions=Companions(companions, cache_dir=CACHE),
        )
        made.append(engine)
        wait_until_ready(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def wait_until_ready(engine: Engine) -> None:
    until(lambda: engine.describe().state != "loading", what="the model is loaded")
