"""A model in this process: the same names as at a server, and the numbers of the model itself."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import steerboard
import torch
from steerboard import NotFoundError, Steerboard, SteerboardError, ValidationError
from steerboard._calls import Call, Stream
from steerboard._routing import HERE
from steerboard.local import Local
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.servers import free_port
from tests.inference import tiny

ROOT = Path(__file__).resolve().parents[2]
PAIRS: dict[str, Any] = {
    "prompts": ["The letter is", "The reply is", "The talk is"],
    "positive_answers": [" calm and warm", " calm", " a calm reply"],
    "negative_answers": [" angry and loud", " angry", " an angry letter"],
}
PROMPT = "The quick brown fox"
GREEDY: dict[str, Any] = {"max_tokens": 8, "sampling_method": "greedy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("local") / "Tiny")


@pytest.fixture(scope="module")
def here(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steerboard]:
    with Steerboard("http://127.0.0.1:1", "no-key") as client:
        client.load(str(folder), dtype="float64", data_dir=tmp_path_factory.mktemp("data"))
        yield client
        client.unload()


@pytest.fixture(scope="module")
def hf(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), AutoTokenizer.from_pretrained(folder)


def greedy(hf: tuple[Any, Any], prompt: str, hook: Any = None, layer: int = 0, n: int = 8) -> str:
    model, tokenizer = hf
    ids = tokenizer(prompt)["input_ids"]
    handle = model.model.layers[layer].register_forward_hook(hook) if hook else None
    try:
        for _ in range(n):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 1:
                break
    finally:
        if handle:
            handle.remove()
    return str(tokenizer.decode(ids[len(tokenizer(prompt)["input_ids"]) :], skip_special_tokens=True))


def test_greedy_text_is_that_of_transformers(here: Steerboard, hf: tuple[Any, Any]) -> None:
    said = here.generation.generate(PROMPT, **GREEDY)
    assert said == greedy(hf, PROMPT) and said.finish_reason in ("length", "stop") and said.usage
    assert "".join(here.generation.stream(PROMPT, 8, sampling_method="greedy")) == said


def test_numbers_by_hook_are_added_where_they_say(here: Steerboard, hf: tuple[Any, Any]) -> None:
    vector = np.random.default_rng(0).normal(size=32).astype(np.float32)

    def add(module: Any, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden + 3.0 * torch.from_numpy(vector).double()
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    wanted = greedy(hf, PROMPT, add, layer=2)
    after = {"blocks.2.hook_resid_post": torch.from_numpy(vector)[None]}  # a row, as tensors come
    into = {3: vector}  # a bare number is what goes into that block
    for given in (after, into):
        said = here.generation.generate(PROMPT, steering_vector=given, steering_strength=3.0, **GREEDY)
        assert said == wanted != here.generation.generate(PROMPT, **GREEDY)
        (applied,) = said.steering["receipts"][0]["applied"]
        assert applied["strength"] == 3.0 and applied["unit"] == "raw"


def test_caa_is_the_mean_difference_behind_the_block(here: Steerboard, hf: tuple[Any, Any]) -> None:
    id = here.steering.generate_vectors(**PAIRS, method="caa", layer_idxs=[1])
    (values,) = here.steering.get_vectors(id).values()
    model, tokenizer = hf
    means = []
    for side in ("positive_answers", "negative_answers"):
        read = []
        for prompt, answer in zip(PAIRS["prompts"], PAIRS[side], strict=True):
            ids, before = tokenizer(prompt + answer)["input_ids"], len(tokenizer(prompt)["input_ids"])
            with torch.no_grad():
                hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
            read.append(hidden[before:].mean(0))
        means.append(torch.stack(read).mean(0))
    assert np.allclose(values, (means[0] - means[1]).numpy(), atol=1e-5)


@pytest.mark.parametrize("method", ["caa", "few-shot", "steering-perceptrons"])
def test_a_vector_is_made_and_acts(here: Steerboard, method: str, tmp_path: Path) -> None:
    id = here.steering.generate_vectors(**PAIRS, method=method, name="calm", layer_idxs=[1, 2])
    steered = here.generation.generate(PROMPT, steering_vector=id, steering_strength=4.0, **GREEDY)
    (applied,) = steered.steering["receipts"][0]["applied"]
    assert applied["vector_id"] == id and applied["mean_dose"] > 0
    nothing = here.generation.generate(PROMPT, steering_vector=id, steering_strength=0, **GREEDY)
    assert nothing == here.generation.generate(PROMPT, **GREEDY)
    here.steering.save_vectors(id, str(tmp_path / "calm.json"))
    assert list(here.steering.load_vectors(tmp_path / "calm.json")) == [
        "blocks.1.hook_resid_post", "blocks.2.hook_resid_post",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["prompts", "positive_answers", "negative_answers"])
@pytest.mark.parametrize("given", [None, "abc", [1, 2, 3], [None, "b", "c"]], ids=str)
def test_what_is_no_list_of_texts_is_refused(here: Steerboard, name: str, given: Any) -> None:
    for make in (here.steering.generate_vectors, lambda **pairs: here.sae.create_behavior("b", **pairs)):
        with pytest.raises(ValidationError, match=f"'{name}' must be a list of texts"):
            make(**PAIRS | {name: given})


@pytest.mark.parametrize(
    "how",
    [
        {"sampling_method": "top-k", "top_k": 5},
        {"sampling_method": "top-p", "top_p": 0.8},
        {"sampling_method": "min-p", "min_p": 0.05},
        {"sampling_method": "typical", "typical_p": 0.9},
        {"sampling_method": "ads", "ads_subset_size": 4},
        {"sampling_method": "constrained-beam-search"},
        {"sampling_method": "ssd"},
        {"sampling_method": "ensemble-sampling", "ensemble_models": ["default"]},
        {"adaptive_temperature": True},
        {"best_of_n": 2},
    ],
)
def test_every_way_to_sample_repeats_by_its_seed(here: Steerboard, how: dict[str, Any]) -> None:
    first, again = (here.generation.generate(PROMPT, max_tokens=5, seed=7, **how) for _ in range(2))
    assert first == again and first


def test_what_guides_is_obeyed(here: Steerboard) -> None:
    said = here.generation.generate(
        PROMPT, max_tokens=20, sampling_method="guided-generation", regex_pattern="(calm|angry) cats"
    )
    assert said in ("calm cats", "angry cats")


def test_behaviors_fire_and_correct_and_say_what_they_are_worth(here: Steerboard) -> None:
    made = here.sae.create_behavior("calm", **PAIRS, description="Calm words")
    assert made["direction"] == "suppress" and not made["calibrated"] and made["warnings"]
    assert here.sae.create_behavior("kind", **PAIRS, description="Encourages calm")["direction"] == "encourage"
    forced = here.sae.generate(PROMPT, 6, ["calm"], force_steering=["calm"])
    assert forced.behaviors["watched"][0]["forced"] and forced.steering["receipts"][0]["applied"]
    watched = here.sae.generate(PROMPT, 6, ["calm"], auto_correct=False)
    assert watched.behaviors["watched"][0]["action"] == "observe" and watched.steering is None
    assert {"calm", "kind"} <= {b["behavior_name"] for b in here.sae.list_behaviors()}
    many = {name: [f"{text} {i}" for i in range(4) for text in texts] for name, texts in PAIRS.items()}
    assert here.sae.create_behavior("many", **many)["calibrated"]
    with pytest.raises(NotFoundError, match="no behavior"):
        here.sae.generate(PROMPT, behavior_names=["nobody"])


def test_policies_run_and_are_kept(here: Steerboard) -> None:
    policy = {
        "name": "word",
        "sampling": {"method": "guided-generation"},
        "constraints": {"regex_pattern": "yes|no"},
        "optimization": {"best_of_n": 2},
    }
    id = here.policy.save(policy)
    assert here.policy.get(id)["name"] == "word" and [p["id"] for p in here.policy.list()] == [id]
    ran = here.policy.run("Is it so?", policy_id=id)
    assert ran["output"] in ("yes", "no") and ran["accepted"] and len(ran["trace"]["candidates"]) == 2
    compared = here.policy.compare("Is it so?", [policy, {"sampling": {"method": "greedy"}}], max_new_tokens=4)
    assert len(compared["results"]) == 2
    assert here.policy.evaluate(["a", "b"], policy_id=id)["success_rate"] == 1.0
    tuned = here.policy.auto_tune(["a"], policy, search_space={"optimization.best_of_n": [1, 2]}, max_new_tokens=4)
    assert len(tuned["trials"]) == 2
    preset = here.policy.publish_preset("Mine", policy)
    assert here.policy.get(here.policy.clone_preset(preset))["name"] == "word"
    assert here.generation.generate("Is it so?", policy_id=id) in ("yes", "no")
    with pytest.raises(NotFoundError, match="no policy"):
        here.policy.run("x", policy_id="other")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"steering_strength": 2}, "steering_vector"),
        ({"steering_vector": "f" * 64, "steering_strength": 1}, "no vector"),
        ({"sampling_method": "beams"}, "no sampling method"),
        ({"sampling_method": "guided-generation"}, "guided"),
        ({"steering_preset": "brevity"}, "server"),
        ({"steering": {"preset": "calm"}}, "not taken"),
        ({"temperature": 11.0}, "temperature"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(here: Steerboard, how: dict[str, Any], said: str) -> None:
    with pytest.raises((ValidationError, NotFoundError), match=said):
        here.generation.generate(PROMPT, **how)


@pytest.mark.parametrize("method", ["caa", "steering-perceptrons"])
def test_a_policy_of_settings_steers_as_the_settings_do(here: Steerboard, method: str) -> None:
    id = here.steering.generate_vectors(**PAIRS, method=method, layer_idxs=[1])
    width = np.random.default_rng(1).normal(size=32)
    for vector in (id, {2: width}, {"blocks.2.hook_resid_post": width}):
        options: dict[str, Any] = {"steering_vector": vector, "steering_strength": 8.0, **GREEDY}
        plain = here.generation.generate(PROMPT, **options)
        traced = here.generation.generate(PROMPT, include_trace=True, **options)
        assert traced == plain != here.generation.generate(PROMPT, **GREEDY)
        assert traced.trace["steering"]


@pytest.mark.parametrize(
    "given",
    [
        {"behavior_names": ["calm"]},
        {"force_steering": ["calm"]},
        {"auto_correct": True},
        {"logit_bias": {1: 2.0}},
        {"length_penalty": 2.0},
    ],
    ids=str,
)
def test_a_policy_of_settings_leaves_nothing_out(here: Steerboard, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"'{next(iter(given))}' cannot be part of a policy"):
        here.generation.generate(PROMPT, best_of_n=2, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.0},
        {"stop": ["e"]},
        {"behavior_names": ["calm"]},
        {"force_steering": ["calm"]},
        {"repetition_penalty": 1.5},
        {"beam_width": 2},
        {"logit_bias": {1: 2.0}},
        {"regex_pattern": "a"},
        {"steering_strength": 1.0, "steering_vector": {2: [1.0] * 32}},
        {"best_of_n": 3},
    ],
    ids=str,
)
def test_beside_a_policy_nothing_is_dropped_in_silence(here: Steerboard, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"'{next(iter(given))}' cannot stand beside a policy"):
        here.generation.generate(PROMPT, policy={"sampling": {"method": "greedy"}}, **given)


def test_a_stop_holds_in_a_policy_of_settings(here: Steerboard) -> None:
    whole = here.generation.generate(PROMPT, **GREEDY)
    stop = whole[len(whole) // 2]
    ended = here.generation.generate(PROMPT, stop=[stop], include_trace=True, **GREEDY)
    assert ended == whole[: whole.index(stop)] == here.generation.generate(PROMPT, stop=[stop], **GREEDY)


def test_watched_text_is_steered_by_what_is_given_as_well(here: Steerboard) -> None:
    vector = {2: np.random.default_rng(2).normal(size=32)}
    steered = here.sae.generate(PROMPT, 4, steering_vector=vector, steering_strength=3.0)
    assert steered.steering["receipts"][0]["applied"][0]["strength"] == 3.0
    with pytest.raises(ValidationError, match="'temprature' is not taken"):
        here.sae.generate(PROMPT, 4, temprature=0.5)


def test_a_vector_needs_its_strength(here: Steerboard) -> None:
    """Where no default says how much: nothing would be steered, and nobody told."""
    vector = {2: [1.0] * 32}
    for ask in (here.generation.chat, here.sae.generate, lambda *a, **b: list(here.generation.stream(*a, **b))):
        with pytest.raises(ValidationError, match="needs 'steering_strength'"):
            ask(PROMPT, 4, steering_vector=vector)


# ---- who answers ----


def test_nothing_falls_back(folder: Path, tmp_path: Path) -> None:
    """The server of this client is not there: what is meant for it fails, although a model is loaded."""
    with Steerboard("http://127.0.0.1:1", "no-key", max_retries=0) as client:
        with pytest.raises(steerboard.APIConnectionError):
            client.generation.generate("x")
        client.load(str(folder), data_dir=tmp_path)
        assert client.generation.generate("x", max_tokens=2) is not None
        client.set_execution_mode("remote")
        with pytest.raises(steerboard.APIConnectionError):
            client.generation.generate("x")
        client.set_execution_mode("local")
        with pytest.raises(SteerboardError, match=r"raag\.generate is not done in this process") as caught:
            client.raag.generate([{"id": "q", "question": "?", "answer": "!"}], docs=[{"id": "a", "text": "b"}])
        assert caught.value.code == "only_at_a_server"
        with pytest.raises(SteerboardError, match="not done in this process"):
            client.steering.generate_pairs("calm")
        client.set_execution_mode("auto")
        with pytest.raises(steerboard.APIConnectionError):
            client.models.list()  # only a server has it, and auto asks there
        client.unload()
        with pytest.raises(steerboard.APIConnectionError):
            client.generation.generate("x")
        client.set_execution_mode("local")
        with pytest.raises(SteerboardError, match="no model is loaded") as none:
            client.generation.generate("x")
        assert "load(" in str(none.value) and client.policy.list() == []
        with pytest.raises(ValidationError, match="no execution mode"):
            client.set_execution_mode("elsewhere")


def test_local_calls_take_what_remote_calls_take() -> None:
    """By name, in order; what stands behind may be more."""
    with Steerboard() as client:
        local = Local()
        for name in HERE:
            module, mine = getattr(client, name), getattr(local, name)
            for each in dir(type(module)):
                member = inspect.getattr_static(type(module), each)
                there = getattr(mine, each, None)
                if not isinstance(member, Call | Stream) or there is None:
                    continue
                wanted = inspect.signature(getattr(module, each)).parameters
                plain = [p for p in wanted if wanted[p].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
                assert [*inspect.signature(there).parameters][: len(plain)] == plain, f"{name}.{each}"


def test_a_short_name_can_stand_for_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERBOARD_MODEL_ALIASES", f"gpt2-small={folder}, other=org/name")
    monkeypatch.setenv("STEERBOARD_LOCAL_DATA", str(tmp_path))
    with Steerboard() as client:
        assert client.load("gpt2-small").generation.generate("x", max_tokens=2) is not None
        client.unload()
        with pytest.raises(NotFoundError, match="no model 'nothing'"):
            client.load("nothing")
        with pytest.raises(ValidationError, match="n_devices"):
            client.load("gpt2-small", n_devices=2)
        with pytest.raises(ValidationError, match="save_pretrained"):
            client.set_local_model(object())


def test_without_the_model_side_it_says_how_to_install_it() -> None:
    code = """
import sys; sys.modules["inference"] = None
import steerboard as mx
try: mx.load("default")
except mx.SteerboardError as error: print(error)
"""
    env = {"PYTHONPATH": str(ROOT / "client" / "src"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "requirements.txt" in done.stdout and "inference" in done.stdout, done.stderr


async def test_an_awaited_client_loads_and_streams(folder: Path, tmp_path: Path) -> None:
    async with steerboard.AsyncSteerboard("http://127.0.0.1:1", "no-key") as client:
        await client.load(str(folder), data_dir=tmp_path)
        whole = await client.generation.generate(PROMPT, **GREEDY)
        pieces = [piece async for piece in client.generation.stream(PROMPT, 8, sampling_method="greedy")]
        assert "".join(pieces) == whole and pieces[-1].finish_reason
        await client.unload()


def test_a_jsonl_line_that_lacks_something_is_named(here: Steerboard, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "a", "positive_answer": "b", "negative_answer": "c"}, {"prompt": "a", "positive_answer": "b"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValidationError, match="2"):
        here.steering.generate_from_jsonl(str(file), method="caa")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"host": "0.0.0.0"}, "no key was set"),
        ({"corrected_behaviors": ["nobody"]}, "no behavior"),
        ({"port": 99_999}, "cannot be used"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_listens(here: Steerboard, how: dict[str, Any], said: str) -> None:
    with pytest.raises((ValidationError, NotFoundError), match=said):
        here.serve(**{"port": free_port(), **how})


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_is_asked_for_where_it_is_missing(here: Steerboard) -> None:
    with pytest.raises(SteerboardError, match="vLLM is not installed") as caught:
        here.serve(use_vllm=True, port=free_port())
    assert caught.value.cure and "docs/vllm.md" in caught.value.cure
