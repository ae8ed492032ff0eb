"""The README of the real client, read where it is installed: nothing of it is kept here."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tests.inference import tiny

PLACEHOLDER = "your-api-key-here"
PACKAGE = "mechanex"


def text() -> str:
    about = importlib.metadata.metadata(PACKAGE)
    return str(about.get_payload() or about["Description"])


def blocks() -> list[tuple[str, str]]:
    """(language, code), in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text(), re.DOTALL | re.MULTILINE)


def block(*words: str) -> str:
    """The first block that has all of these words."""
    return next(code for _, code in blocks() if all(word in code for word in words))


def commands() -> list[str]:
    """Every command of its list and its blocks."""
    listed = re.findall(rf"^- `{PACKAGE} ([\w-]+)", text(), re.MULTILINE)
    shown = re.findall(rf"^{PACKAGE} ([\w-]+)", "\n".join(code for _, code in blocks()), re.MULTILINE)
    return sorted({*listed, *shown})


def fresh(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The client as a new program has it: no key but that of its settings file under `home`, our address."""
    monkeypatch.setenv("MECHANEX_BASE_URL", url)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module(PACKAGE)


def lens_model(folder: Path) -> Any:
    """A tiny model of TransformerLens, for what the client does itself with a model that it would fetch."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    tiny.tokenizer().save_pretrained(folder)
    config = HookedTransformerConfig(
        n_layers=3, d_model=32, n_ctx=512, d_head=8, n_heads=4, d_mlp=64, d_vocab=tiny.VOCAB, act_fn="gelu", seed=0,
        device="cpu",
    )  # fmt: skip
    torch.manual_seed(0)
    return HookedTransformer(config, tokenizer=PreTrainedTokenizerFast.from_pretrained(folder))


def stand_in(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever name is loaded, it is `model`. Returns the names as they come."""
    from transformer_lens import HookedTransformer

    asked: list[str] = []

    def from_pretrained(name: str, **options: Any) -> Any:
        asked.append(name)
        return model

    monkeypatch.setattr(HookedTransformer, "from_pretrained", from_pretrained)
    return asked
