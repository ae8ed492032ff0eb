"""The library as its document shows it, without Django, and what it answers to mistakes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from inference.errors import InferenceError, InvalidRequest
from inference.studio import Studio, chat
from inference.types import GenerationRequest, SamplingParams
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    block
    for document in ("docs/library.md", "docs/generation.md")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)
]
PAIRS = [(f"A calm reply {n}.", f"An angry letter {n}!", "Question:") for n in range(6)]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Iterator[Studio]:
    with Studio(str(tiny_folder("llama")), data_dir=tmp_path_factory.mktemp("studio"), dtype="float64") as made:
        yield made


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_the_documents_code_runs_without_django(block: int, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """As it stands, but for the model: a tiny one stands in for the default one."""
    code = BLOCKS[block].replace("Studio(data_dir", f"Studio({str(tiny_folder('llama'))!r}, data_dir")
    code = code.replace("Studio()", f"Studio({str(tiny_folder('llama'))!r})").replace("range(8, 12)", "range(1, 3)")
    assert str(tiny_folder("llama")) in code
    barred = "import sys\nfor name in ('django', 'steering', 'webapp', 'channels', 'redis'): sys.modules[name] = None\n"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", barred + code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if block == 1:
        assert "blocks.1.hook_resid_post" in done.stdout and "layer 1 is resid_post of layer 1" in done.stdout


def test_the_first_program_takes_ten_lines() -> None:
    """The pairs aside."""
    body = re.sub(r"CALM = \[.*?\n\]\n", "", BLOCKS[0], flags=re.DOTALL)
    assert len([line for line in body.splitlines() if line.strip()]) <= 10


def test_base_and_steered_differ_and_strength_0_is_base(studio: Studio) -> None:
    vector = studio.train(PAIRS, method="caa", layers=[1, 2])
    asked = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}
    base = studio.generate("The quick brown fox", **asked)
    steered = studio.generate("The quick brown fox", vector, strength=3.0, layer=1, **asked)
    nothing = studio.generate("The quick brown fox", vector, strength=0.0, **asked)
    assert base.text == nothing.text != steered.text and str(base) == base.text
    assert not base.receipt.applied and steered.receipt.applied[0].strength == 3.0
    assert (base.completion_tokens, base.reason) == (12, "length")


def test_many_at_once_come_in_order(studio: Studio) -> None:
    sampling = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
    prompts = ["The quick", "A calm reply", "Tabby cats"]
    many = studio.generate_many([GenerationRequest(p, prompt=p, sampling=sampling) for p in prompts])
    alone = [studio.generate(p, max_tokens=3, temperature=0.0, ignore_eos=True) for p in prompts]
    assert [m.text for m in many] == [a.text for a in alone]


def test_messages_go_through_the_template(studio: Studio) -> None:
    from_dicts = studio.generate([{"role": "user", "content": "Hi"}], max_tokens=2, temperature=0.0)
    assert from_dicts.text == studio.generate(chat("Hi"), max_tokens=2, temperature=0.0).text
    assert len(chat("Hi", "Be calm.")) == 2


@pytest.mark.parametrize("ending", ["safetensors", "gguf", "json", "svec"])
def test_what_is_saved_is_loaded(ending: str, studio: Studio, tmp_path: Path) -> None:
    vector = studio.train(PAIRS, layers=[1, 2])
    notes = studio.save(vector, tmp_path / f"v.{ending}", layers=[1, 2])
    again = studio.load(tmp_path / f"v.{ending}", **({} if ending == "safetensors" else {"layer": 2}))
    assert all(np.array_equal(again.at(n).values, vector.at(n).values) for n in (1, 2))
    assert (again.id == vector.id) == (ending == "safetensors") == (not notes)


def test_mistakes_are_answered_with_sentences(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        studio.train(PAIRS[:2])
    assert refusal.value.code == "too_few_pairs"
    with pytest.raises(InvalidRequest, match="method"):
        studio.train(PAIRS, method="magic")
    with pytest.raises(InvalidRequest, match="ends in none"):
        studio.save(studio.train(PAIRS, layers=[1]), tmp_path / "v.pt")
    with pytest.raises(InvalidRequest, match="no direction at layer 3"):
        studio.generate("Hi", studio.train(PAIRS, layers=[1]), layer=3)
    with pytest.raises(InferenceError):
        Studio(str(tmp_path / "nowhere"), data_dir=tmp_path)


def test_tokens_are_streamed_as_they_come_and_what_is_refused_is_raised(studio: Studio) -> None:
    asked = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
    events = list(studio.stream(GenerationRequest("stream", prompt="The quick", sampling=asked)))
    assert [event.type for event in events] == ["started", *["token"] * 6, "finished"]
    whole = studio.generate("The quick", max_tokens=6, temperature=0, ignore_eos=True)
    assert "".join(getattr(event, "text", "") for event in events) == whole.text
    with pytest.raises(InvalidRequest):
        next(studio.stream(GenerationRequest("refused", prompt="x", sampling=SamplingParams(temperature=-1))))


def test_leaving_a_stream_ends_its_row(studio: Studio) -> None:
    asked = SamplingParams(max_tokens=100, ignore_eos=True)
    stream = studio.stream(GenerationRequest("left", prompt="The quick", sampling=asked))
    next(stream)
    stream.close()
    until(lambda: not studio.wait_for(studio.client.describe()).rows)
