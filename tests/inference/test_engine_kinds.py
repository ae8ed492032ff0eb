"""Which engine a process is asked to hold, where vLLM is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from inference import worker
from inference.client import connect
from inference.errors import InvalidRequest
from inference.serving.kinds import check_engine
from inference.serving.node import answering
from inference.types import ModelInfo

without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")


@without_vllm
def test_a_url_of_vllm_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        connect("vllm://default", data_dir=tmp_path)
    assert refusal.value.code == "vllm_missing"
    assert "docs/vllm.md" in refusal.value.message and "inprocess://default" in refusal.value.message


@without_vllm
def test_a_worker_of_vllm_says_so_and_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["--url", "redis://127.0.0.1:1/0", "--engine", "vllm"]) == 2
    assert "docs/vllm.md" in capsys.readouterr().err


def test_an_unknown_engine_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidRequest, match="Use built-in or vllm"):
        check_engine("sglang")


def test_companions_are_refused_where_nothing_could_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InvalidRequest) as refusal:
        check_engine("vllm", ["other"])
    assert refusal.value.code == "bad_setting"
    assert check_engine("vllm") == "vllm"


def test_workers_share_a_queue_only_with_the_same_engine_and_revision() -> None:
    plain = ModelInfo("ready", "m", revision="r1")
    assert answering(plain) == "r1"
    assert answering(ModelInfo("ready", "m", revision="r1", engine="vLLM 0.32.0")) == "r1 with vLLM 0.32.0"
