"""Companions: listed where they share the served model's tokens, loaded when asked for, refused in words otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference import companions
from inference.companions import Companions, fit_width, names_from, none_at_hand
from inference.engine import Engine
from inference.errors import InvalidRequest, NotFound
from inference.models.loader import load
from inference.store import VectorStore
from inference.transports.inprocess import InProcess
from inference.worker import parse
from tests.inference import tiny
from tests.inference.conftest import CACHE, wait_until_ready


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the companions that were loaded."""
    seen: list[str] = []

    def counted(name: str, **how: object) -> object:
        seen.append(Path(name).name)
        return load(name, **how)

    monkeypatch.setattr(companions, "load", counted)
    return seen


def with_other_tokens(folder: Path) -> Path:
    """A model whose tokenizer was trained on something else."""
    tiny.save("llama", folder)
    file = folder / "tokenizer.json"
    text = file.read_text()
    assert '"<user>"' in text
    file.write_text(text.replace('"<user>"', '"<someone>"'))
    return folder


def test_a_companion_is_loaded_once_when_it_is_first_asked_for(make_engine, tmp_path, loads):
    engine = make_engine(companions=[str(tiny.save("qwen3", tmp_path / "small"))])
    assert engine.describe().companions == ("small",) and loads == []
    model = engine.companion("small")
    assert engine.companion("small") is model and loads == ["small"]
    assert model.id == "small" and model.dtype == engine.batch.model.dtype == torch.float64


def test_another_vocabulary_is_refused_naming_both(make_engine, tmp_path, loads):
    engine = make_engine(companions=[str(with_other_tokens(tmp_path / "stranger"))])
    assert engine.describe().companions == ()
    with pytest.raises(InvalidRequest) as refused:
        engine.companion("stranger")
    assert refused.value.code == "other_vocabulary" and loads == []
    assert "stranger" in refused.value.message and engine.batch.model.id in refused.value.message


def test_the_served_model_is_not_its_own_companion(make_engine, tiny_folder):
    engine = make_engine("llama", companions=[str(tiny_folder("llama"))])
    assert engine.describe().companions == ()
    with pytest.raises(InvalidRequest) as refused:
        engine.companion(engine.batch.model.id)
    assert refused.value.code == "companion_is_served"


def test_a_folder_that_is_not_there_is_named_and_hinders_nothing(make_engine, tmp_path):
    engine = make_engine(companions=[str(tmp_path / "gone"), str(tiny.save("llama", tmp_path / "small"))])
    assert engine.describe().companions == ("small",)
    with pytest.raises(NotFound) as refused:
        engine.companion("gone")
    assert "gone" in refused.value.message


def test_without_companions_the_setting_is_named():
    with pytest.raises(NotFound, match="STEERBOARD_COMPANIONS"):
        none_at_hand("small")


def test_two_of_one_id_are_refused():
    with pytest.raises(InvalidRequest, match="one id"):
        Companions(["/a/small", "/b/small"])


def test_the_setting_is_a_list_with_commas():
    assert names_from({"STEERBOARD_COMPANIONS": " a/b, /c/d ,"}) == ("a/b", "/c/d")
    assert names_from({}) == ()
    assert parse(["--companions", "/c/d"]).companions == "/c/d"


async def test_the_server_takes_them_from_its_environment(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERBOARD_COMPANIONS", str(tiny.save("llama", tmp_path / "small")))
    inference = InProcess(str(tiny_folder("llama")), data_dir=tmp_path, dtype="float64")
    try:
        wait_until_ready(inference.engine)
        assert (await inference.describe()).companions == ("small",)
    finally:
        await inference.close()


def test_a_served_model_that_is_exchanged_meets_them_anew(tiny_folder, tmp_path, loads):
    known = Companions([str(tiny.save("llama", tmp_path / "small"))], cache_dir=CACHE)
    first = None
    for dtype in ("float64", "float32"):
        model = load(str(tiny_folder("qwen3")), cache_dir=CACHE, dtype=dtype, device="cpu")
        engine = Engine(lambda model=model: model, VectorStore(tmp_path / "v"), name="x", companions=known)
        wait_until_ready(engine)
        found = engine.companion("small")
        assert found is not first and str(found.dtype) == f"torch.{dtype}"
        first = found
        engine.close()
    assert loads == ["small", "small"]


def test_logits_of_a_wider_or_narrower_head_are_fitted():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert fit_width(logits, 2).tolist() == [[1.0, 2.0]]
    assert fit_width(logits, 4).tolist() == [[1.0, 2.0, 3.0, -torch.inf]]
