"""The programs on a vector's page do what they say: each is executed as it stands, on a tiny model."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from inference.interchange import write
from inference.store import dump, seal
from inference.types import Direction, LayerStats, ModelInfo, Site, SteeringVector
from steering.vectors.elsewhere import SECRET, snippets_of
from steering.vectors.facts import summary_of
from steering.vectors.models import Vector
from tests.inference import peers, tiny
from tests.openai.server import Server

LAYER, TOKENS = 1, "max_new_tokens=60"
FAMILY = "llama"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(FAMILY, tmp_path_factory.mktemp("tiny"))


def vector_on(model: str) -> SteeringVector:
    numbers = np.random.default_rng(5)
    return seal(
        SteeringVector(
            id="",
            model=model,
            revision="",
            directions=tuple(Direction(Site(i), numbers.normal(size=32).astype(np.float32)) for i in (1, 2)),
            method="caa",
            read_positions="last",
            residual_norms={1: 4.0, 2: 4.0},
            stats=tuple(LayerStats(i, 5.5, 4.0, 8.0, 0.9, 2.0, 0.8) for i in (1, 2)),
            recommended_layer=LAYER,
            recommended_strength=2.0,
            reason="",
            dataset_digest="",
            n_pairs=8,
        )
    )


def row_of(vector: SteeringVector) -> Vector:
    return Vector(name="Calm", content_id=vector.id, model_id=vector.model, summary=summary_of(vector))


@pytest.fixture
def lying_beside(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SteeringVector:
    """The vector's files in the working folder, as if just downloaded."""
    vector = vector_on(str(folder))
    (tmp_path / "calm.safetensors").write_bytes(dump(vector))
    (tmp_path / "calm.gguf").write_bytes(write(vector, "gguf", hint="llama").data)
    monkeypatch.chdir(tmp_path)
    return vector


def code_of(vector: SteeringVector, language: str, base: str = "http://x/v1") -> str:
    return next(
        s.code for s in snippets_of(row_of(vector), base, ModelInfo("ready", vector.model)) if s.language == language
    )


def expected(vector: SteeringVector, given: torch.Tensor, steps: int) -> list[int]:
    """Greedy tokens of the model with a hook of our own, without a cache: nothing in common with the programs."""
    model = AutoModelForCausalLM.from_pretrained(vector.model)
    raw = row_of(vector).facts.raw_strength
    added = torch.from_numpy(vector.at(LAYER).values) * raw
    model.model.layers[LAYER].register_forward_hook(lambda m, a, out: out + added)
    ids = given
    with torch.no_grad():
        for _ in range(steps):
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0].tolist()


@pytest.mark.parametrize("language", ["transformers", "steering-vectors", "repeng"])
def test_a_program_for_python_steers_as_a_hook_does(language: str, lying_beside: SteeringVector) -> None:
    with contextlib.ExitStack() as stack:
        if language == "repeng":
            peers.repeng()
        said = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        names: dict[str, Any] = {}
        exec(compile(code_of(lying_beside, language).replace(TOKENS, "max_new_tokens=8"), language, "exec"), names)
    tokens = names["output"][0].tolist()
    given = names["inputs"]["input_ids"]
    steps = len(tokens) - given.shape[1]
    assert tokens == expected(lying_beside, given, steps)
    plain = AutoModelForCausalLM.from_pretrained(lying_beside.model)
    base = plain.generate(**names["inputs"], max_new_tokens=8, do_sample=False)[0].tolist()
    assert base != tokens and said.getvalue().strip()


def test_the_llama_cpp_program_names_the_file_layer_and_strength(lying_beside: SteeringVector) -> None:
    code = code_of(lying_beside, "llama-cpp")
    strength = row_of(lying_beside).facts.raw_strength
    assert f"--control-vector-scaled calm.gguf:{strength!r}" in code
    assert f"--control-vector-layer-range {LAYER} {LAYER}" in code
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)


def test_layer_0_has_no_program_of_formats_that_cannot_say_it(folder: Path) -> None:
    from dataclasses import replace

    vector = vector_on(str(folder))
    summary = summary_of(vector) | {"recommended_layer": 0}
    summary["stats"] = [s.to_wire() for s in (replace(vector.stats[0], layer=0),)]
    summary["residual_norms"] = {"0": 4.0}
    row = Vector(name="Calm", content_id=vector.id, model_id="tiny", summary=summary)
    languages = [s.language for s in snippets_of(row, "http://x/v1", ModelInfo("ready", "tiny"))]
    assert languages == ["curl", "python", "transformers", "steering-vectors"]


# ---- our own API, against a real server ----


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(folder, tmp_path_factory.mktemp("snippets"))
    yield running
    running.stop()


def of_server(server: Server, language: str) -> str:
    vector = vector_on(server.about["model"])
    row = row_of(vector)
    row.pk = server.about["vectors"]["calm"]
    shown = snippets_of(row, f"{server.url}/v1", ModelInfo("ready", vector.model))
    return next(s.code for s in shown if s.language == language).replace(SECRET, server.key())


def test_the_curl_program_is_answered_steered(server: Server) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    done = subprocess.run(["bash", "-c", of_server(server, "curl")], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    (applied,) = answer["steering"]["receipts"][0]["applied"]
    assert (applied["hook_name"], applied["strength"]) == (f"blocks.{LAYER}.hook_resid_post", 2.0)


def test_the_program_for_openais_client_is_answered_steered(server: Server) -> None:
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(of_server(server, "python"), "python", "exec"), names)
    assert isinstance(names["client"], openai.OpenAI)
    (applied,) = names["answer"].steering["receipts"][0]["applied"]
    assert applied["hook_name"] == f"blocks.{LAYER}.hook_resid_post"
