"""vLLM's engine against Hugging Face with a hook, and against ours: the same steering, the same tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from inference.engine import Engine
from inference.models.loader import load
from inference.store import VectorStore, dump
from inference.types import (
    CreateVector,
    Direction,
    Draft,
    Ensemble,
    FeatureRef,
    Finished,
    GenerationRequest,
    Intervention,
    LayerStats,
    MapModel,
    Member,
    Message,
    Pair,
    Probe,
    SamplingParams,
    Site,
    Started,
    SteeringVector,
    Token,
    Tokenize,
    Watch,
)
from tests.inference import tiny
from tests.inference.conftest import CACHE, wait_until_ready
from tests.inference.driver import Listener, request, start
from tests.inference.test_isolation import some_edit
from tests.inference.vllm_process import Side, event_of, needs_vllm

pytestmark = needs_vllm
D = tiny.WIDE["hidden_size"]
FAMILIES = ("mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox", "llama")  # llama stays for the rest
PROMPT = tuple(range(20, 41))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("wide")

    def get(family: str) -> Path:
        path = root / family
        return path if path.exists() else tiny.save(family, path, wide=True)

    return get


@pytest.fixture(scope="module")
def side(folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    made = Side(folder("llama"), tmp_path_factory.mktemp("side"))
    made.ask("describe")  # answers when the model is loaded
    yield made
    made.close()


@pytest.fixture(scope="module")
def ours(folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = load(str(folder("llama")), cache_dir=CACHE, dtype="float32", device="cpu")
    engine = Engine(lambda: model, VectorStore(tmp_path_factory.mktemp("ours")), name="llama")
    wait_until_ready(engine)
    yield engine
    engine.close()


def direction(layer: int, seed: int, norm: float = 3.0, point: str = "resid_post") -> Direction:
    values = np.random.default_rng(seed).normal(size=D)
    return Direction(Site(layer, point), (values / np.linalg.norm(values) * norm).astype(np.float32))


def add(layer: int, seed: int, strength: float = 1.0, **options: object) -> Intervention:
    return Intervention(strength=strength, directions=(direction(layer, seed, **options),))


def hugging_face(model: torch.nn.Module, ids: Sequence[int], edits: Sequence[Intervention]) -> torch.Tensor:
    """resid_post of every layer, float32[layers, tokens, d_model], with `add` alone, at every token."""
    blocks = next(model.get_submodule(p) for p in ("model.layers", "transformer.h", "gpt_neox.layers") if has(model, p))
    seen: list[torch.Tensor] = []
    hooks = []

    def shift(index: int, hidden: torch.Tensor) -> torch.Tensor:
        for edit in edits:
            site = edit.directions[0].site
            if (site.layer if site.point == "resid_post" else site.layer - 1) == index:
                hidden = hidden + edit.strength * torch.from_numpy(edit.directions[0].values)
        return hidden

    def after(index: int) -> Callable[..., object]:
        def hook(module: object, args: object, output: torch.Tensor | tuple) -> object:
            hidden = shift(index, output[0] if isinstance(output, tuple) else output)
            seen.append(hidden[0])
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    hooks.append(blocks[0].register_forward_pre_hook(lambda module, args: (shift(-1, args[0]), *args[1:])))
    hooks += [block.register_forward_hook(after(i)) for i, block in enumerate(blocks)]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen)


def has(model: torch.nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


# ---- exact shift ----


@pytest.mark.parametrize("family", FAMILIES)
def test_every_block_hands_on_what_hugging_face_has_there(family: str, side: Side, folder: Callable) -> None:
    info = side.ask("load", model=str(folder(family)))["info"]
    assert info["state"] == "ready", info["problem"]
    hf = AutoModelForCausalLM.from_pretrained(folder(family), dtype=torch.float32, attn_implementation="eager")
    edits = (add(2, 1, 1.5), add(0, 2, -1.0, point="resid_pre"), add(3, 3, 0.5, point="resid_pre"))
    asked = [request("base", PROMPT, max_tokens=5), request("steered", PROMPT, max_tokens=5, interventions=edits)]
    answer = side.generate(asked, spy=True)
    for row, applied, id in zip(answer.rows, ((), edits), ("base", "steered"), strict=True):
        text = [*PROMPT, *row.tokens[:-1]]
        expected = hugging_face(hf, text, applied)
        found = torch.tensor(answer.seen[id])
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_steered_rows_shift_by_exactly_strength_times_direction_at_the_site(side: Side) -> None:
    edits = [add(1, seed, strength) for seed, strength in ((1, 4.0), (2, -0.5), (3, 0.25))]
    rows = [request("base", PROMPT, max_tokens=1)]
    rows += [request(f"r{i}", PROMPT, max_tokens=1, interventions=[edit]) for i, edit in enumerate(edits)]
    answer = side.generate(rows, spy=True)
    base = torch.tensor(answer.seen["base"])
    for i, edit in enumerate(edits):
        found = torch.tensor(answer.seen[f"r{i}"])
        torch.testing.assert_close(found[0], base[0], rtol=0, atol=1e-6)  # before the site
        wanted = edit.strength * torch.from_numpy(edit.directions[0].values)
        torch.testing.assert_close(found[1] - base[1], wanted.expand_as(base[1]), rtol=0, atol=4e-6)
        applied = answer.rows[i + 1].finished.receipt.applied[0]
        assert applied.mean_dose == pytest.approx(abs(edit.strength) * 3, rel=1e-5)
        assert (applied.prompt_tokens, applied.generated_tokens) == (len(PROMPT), 0)


def test_strength_zero_equals_base_bit_for_bit(side: Side) -> None:
    rows = [request("base", PROMPT), request("zero", PROMPT, interventions=[add(1, 1, 0.0), add(2, 2, 0.0)])]
    answer = side.generate(rows, spy=True)
    assert answer.seen["zero"] == answer.seen["base"]
    assert answer.rows[0].tokens == answer.rows[1].tokens


# ---- isolation ----


def test_neighbours_are_untouched_by_steering_bit_for_bit(side: Side) -> None:
    plain = [request(f"p{i}", range(30 + i, 50 + i), max_tokens=16, logprobs=True) for i in range(4)]
    beside = [request(f"s{i}", range(60 + i, 80 + i), max_tokens=16) for i in range(4)]
    steered = [replace(r, interventions=(add(i, i, 9.0), add(3, 7, 2.0))) for i, r in enumerate(beside)]
    mixed = [row for pair in zip(plain, beside, strict=True) for row in pair]
    strange = [row for pair in zip(plain, steered, strict=True) for row in pair]
    quiet, loud = side.generate(mixed, spy=True), side.generate(strange, spy=True)
    for i in range(len(plain)):
        assert quiet.seen[f"p{i}"] == loud.seen[f"p{i}"]
        assert [e.logprob for e in quiet.rows[2 * i].events if isinstance(e, Token)] == [
            e.logprob for e in loud.rows[2 * i].events if isinstance(e, Token)
        ]
        assert quiet.rows[2 * i + 1].tokens != loud.rows[2 * i + 1].tokens


def mixed_requests(n: int) -> list[GenerationRequest]:
    """Rows of many lengths, samplers, operations, layers, windows, schedules and conditions."""
    rng = random.Random(11)
    made = []
    for i in range(n):
        ids = [rng.randrange(5, tiny.VOCAB) for _ in range(rng.randrange(1, 70))]
        edits = [some_edit(rng, seed=i * 10 + k, width=D) for k in range(i % 4)]
        sampling = {} if i % 2 else {"temperature": 0.9, "top_p": 0.95, "min_p": 0.01, "seed": i, "top_k": 40}
        penalties = {"frequency_penalty": 0.3, "repetition_penalty": 1.1} if i % 3 else {"logit_bias": {9: 2.0}}
        made.append(
            request(f"r{i}", ids, max_tokens=rng.randrange(5, 40), interventions=edits, **sampling, **penalties)
        )
    return made


def test_all_at_once_or_alone_rows_write_what_the_built_in_engine_writes(side: Side, ours: Engine) -> None:
    requests = mixed_requests(24)
    together = side.generate(requests).rows
    for asked, row in zip(requests, together, strict=True):
        expected = start(ours, asked).wait()
        assert row.tokens == expected.tokens, asked
        same_receipt(row, expected)
    assert [side.one(r).tokens for r in requests[:6]] == [row.tokens for row in together[:6]]
    assert len({tuple(row.tokens) for row in together}) > len(requests) // 2


def same_receipt(found: Listener, expected: Listener) -> None:
    assert found.finished.usage == expected.finished.usage
    assert found.text == expected.text
    assert [type(e) for e in found.events] == [type(e) for e in expected.events]
    for one, other in zip(found.finished.receipt.applied, expected.finished.receipt.applied, strict=True):
        assert (one.prompt_tokens, one.generated_tokens) == (other.prompt_tokens, other.generated_tokens)
        numbers = ("mean_dose", "projection_before", "projection_after")
        for name in numbers:
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-3), name


def test_more_rows_than_fit_wait_their_turn(side: Side) -> None:
    rows = side.generate([request(f"w{i}", range(5, 12 + i % 50), max_tokens=8) for i in range(120)]).rows
    assert all(len(row.tokens) == 8 and row.finished.reason == "length" for row in rows)


@pytest.mark.parametrize(
    "way",
    [
        {"typical_p": 0.8},
        {"ads_subset_size": 4, "max_tokens": 12},  # its subsets turn on the last digits of a logit, sooner or later
        {"adaptive_temperature": 1.0},
        {"temperature_schedule": (1.5, 0.5), "top_p_schedule": (0.9, 0.5)},
    ],
)
def test_every_way_to_choose_tokens_is_that_of_the_built_in_engine(way: dict, side: Side, ours: Engine) -> None:
    asked = request("way", PROMPT, temperature=1.0, seed=9, interventions=[add(1, 1)], **way)
    assert side.one(asked).tokens == start(ours, asked).wait().tokens


# ---- what is asked of an engine ----


def test_events_of_a_chat_with_log_probabilities_stop_strings_and_a_seed(side: Side, ours: Engine) -> None:
    sampling = SamplingParams(
        max_tokens=30, temperature=1.0, seed=5, stop=("e",), logprobs=True, top_logprobs=3, prompt_logprobs=True
    )
    asked = GenerationRequest("chat", messages=(Message("user", "The quick brown fox"),), sampling=sampling)
    found, expected = side.one(asked), start(ours, asked).wait()
    assert isinstance(found.events[0], Started)
    assert found.events[0].seed == 5
    same_receipt(found, expected)
    for one, other in zip(found.events, expected.events, strict=True):
        if isinstance(one, Token):
            assert (one.token_id, one.text, one.token, one.raw) == (other.token_id, other.text, other.token, other.raw)
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [t.token for t in one.top] == [t.token for t in other.top]
    prompts = [[t for e in row.events if e.type == "prompt" for t in e.tokens] for row in (found, expected)]
    assert [t.token for t in prompts[0]] == [t.token for t in prompts[1]]
    pairs = zip(prompts[0][1:], prompts[1][1:], strict=True)
    assert all(one.logprob == pytest.approx(other.logprob, abs=1e-4) for one, other in pairs)


def test_a_stored_vector_acts_by_its_id_in_relative_units(side: Side) -> None:
    info = side.ask("describe")["info"]
    made = direction(1, 4, norm=2.0)
    vector = SteeringVector(
        id="",
        model=info["id"],
        revision=info["revision"],
        directions=(made,),
        method="mean_difference",
        read_positions="mean",
        residual_norms={1: 12.0},
        stats=(LayerStats(1, 2.0, 12.0, 20.0, 0.9, 2.0, 0.8),),
        recommended_layer=1,
        recommended_strength=0.5,
        reason="a test",
        dataset_digest="",
        n_pairs=1,
    )
    id = side.ask("put", data=dump(vector).hex())["id"]
    relative = Intervention(strength=0.5, unit="relative", vector_id=id, layers=(1,))
    raw = Intervention(strength=3.0, directions=(made,))  # 0.5 * 12 along a direction of length 2
    rows = side.generate(
        [request("rel", PROMPT, interventions=[relative]), request("raw", PROMPT, interventions=[raw])]
    )
    assert rows.rows[0].tokens == rows.rows[1].tokens
    applied = rows.rows[0].finished.receipt.applied[0]
    assert (applied.vector_id, applied.residual_norm) == (id, 12.0)
    assert applied.mean_dose == pytest.approx(6.0, rel=1e-5)


def test_texts_are_tokenised_without_a_copy_of_the_weights(side: Side) -> None:
    """Before the first job that needs one, which is the next test's."""
    (result,) = side.ask("run", job=Tokenize("tokens", "calm letter").to_wire())["events"]
    assert result["type"] == "result", result
    assert "".join(text for _, text in result["payload"]["tokens"]).endswith("calm letter")
    assert not side.ask("describe")["copied"]


def test_a_vector_is_built_on_a_copy_of_the_weights_and_steers(side: Side) -> None:
    pairs = tuple(Pair(f" calm reply number {i}", f" angry letter number {i}", prompt=f"Case {i}:") for i in range(8))
    events = side.ask("run", job=CreateVector("build", pairs=pairs, layers=(1, 2)).to_wire())["events"]
    assert events[-1]["type"] == "result", events[-1]
    id = events[-1]["payload"]["vector"]["id"]
    row = side.one(request("use", PROMPT, interventions=[Intervention(strength=1.0, vector_id=id, layers=(1,))]))
    assert row.finished.receipt.applied[0].prompt_tokens == len(PROMPT)


def refused() -> dict[str, GenerationRequest]:
    ask = request("no", PROMPT)
    watch = Watch("w", Probe(1, weights=np.ones(D, dtype=np.float32)))
    feature = Intervention(feature=FeatureRef("1-res", 3))
    return {
        "watches": replace(ask, watches=(watch,)),
        "steering of features": replace(ask, interventions=(feature,)),
        "drafts": replace(ask, draft=Draft()),
        "ensembles": replace(ask, ensemble=Ensemble((Member(), Member()))),
        "beam search": request("no", PROMPT, beam_width=2),
    }


@pytest.mark.parametrize("name", refused())
def test_what_it_cannot_do_is_refused_by_name_with_the_cure(name: str, side: Side) -> None:
    failed = side.one(refused()[name]).failed
    assert (failed.kind, failed.code) == ("invalid_request", "not_on_vllm")
    assert name in failed.message
    assert "built-in engine" in failed.message


def test_jobs_that_it_cannot_do_are_refused_by_name(side: Side) -> None:
    failed = event_of(side.ask("run", job=MapModel("map").to_wire())["events"][0])
    assert (failed.code, "map model" in failed.message) == ("not_on_vllm", True)


def test_an_unknown_vector_and_a_bad_layer_are_refused_as_ever(side: Side) -> None:
    unknown = Intervention(vector_id="0" * 64, layers=(1,))
    assert side.one(request("a", PROMPT, interventions=[unknown])).failed.code == "vector_not_found"
    assert side.one(request("b", PROMPT, interventions=[add(9, 1)])).failed.code == "layer_out_of_range"
    assert side.one(request("c", range(5, 140))).failed.code == "prompt_too_long"


def test_a_cancelled_row_keeps_what_it_wrote(side: Side) -> None:
    row = side.one(request("stop", PROMPT, max_tokens=90), cancel_at=3)
    assert row.finished.reason == "cancelled"
    assert 3 <= row.finished.usage.completion_tokens < 90
    assert row.finished.usage.completion_tokens == len(row.tokens)


def test_a_pass_that_fails_is_a_typed_error_and_the_next_one_works(side: Side) -> None:
    asked = request("again", PROMPT, interventions=[add(1, 1)])
    before = side.one(asked).tokens
    side.ask("spoil", rows=2)  # they may come one after the other
    broken = side.generate([asked, request("other", PROMPT)]).rows
    assert [row.failed.code for row in broken] == ["engine_fault", "engine_fault"]
    assert "ZeroDivisionError" in broken[0].failed.message
    assert side.one(asked).tokens == before


def test_the_model_says_which_engine_runs_it(side: Side) -> None:
    info = side.ask("describe")["info"]
    assert info["engine"].startswith("vLLM 0.")
    assert (info["architecture"], info["d_model"], info["rows"]) == ("LlamaForCausalLM", D, 0)


def test_an_engine_that_cannot_go_on_says_so_until_the_model_is_loaded_again(side: Side, folder: Callable) -> None:
    side.ask("spoil", for_good=True)
    assert side.one(request("broken", PROMPT)).failed.code == "engine_fault"
    failed = side.one(request("later", PROMPT)).failed
    assert failed.code == "engine_broken"
    assert "Load the model again" in failed.message
    assert side.ask("describe")["info"]["state"] == "failed"


def test_an_unknown_architecture_is_refused_when_it_is_loaded(side: Side, folder: Callable) -> None:
    info = side.ask("load", model=str(folder("gpt_oss")))["info"]
    assert info["state"] == "failed"
    assert "GptOssForCausalLM is not tested" in info["problem"]
    assert "built-in engine" in info["problem"]
    assert side.ask("load", model=str(folder("llama")))["info"]["state"] == "ready"
    assert isinstance(side.one(request("back", PROMPT)).end, Finished)
