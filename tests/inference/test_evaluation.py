"""Score and Divergence against transformers' own models, steered by hooks written here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from inference import evaluation
from inference.engine import Engine
from inference.errors import InvalidRequest
from inference.models.loader import LoadedModel
from inference.types import (
    Condition,
    Direction,
    Divergence,
    Intervention,
    Message,
    Positions,
    Progress,
    Result,
    Score,
    ScoreItem,
    Site,
    named_vectors,
)
from tests.inference import tiny
from tests.inference.driver import start_job

BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
LONG = "The quick brown fox jumps over the lazy dog near the river bank, and a calm reply turns an angry letter."
TEXTS = (" short", " a calm reply turns", " yes", " an angry letter into a short conversation.")


def nothing(id: str) -> Any:
    raise AssertionError(f"{id} is not wanted")


def run(model: LoadedModel, job: Score | Divergence) -> dict[str, Any]:
    act: Any = evaluation.score if isinstance(job, Score) else evaluation.diverge
    *before, last = act(model, job, nothing)
    assert all(isinstance(event, Progress) for event in before) and isinstance(last, Result)
    assert [event.seq for event in (*before, last)] == list(range(len(before) + 1))
    assert before[-1].done == before[-1].total
    return last.payload


def steer(layer: int, *, seed: int = 1, strength: float = 3.0, **more: Any) -> Intervention:
    values = np.random.default_rng(seed).normal(size=32).astype(np.float32)
    return Intervention(strength=strength, directions=(Direction(Site(layer), values),), **more)


@contextmanager
def hooked(hf: Any, family: str, layer: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """`change` gets and returns the residual stream [1, t, d] after block `layer`."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = hf.get_submodule(BLOCKS.get(family, "model.layers"))[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def log_softmax(hf: Any, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return hf(torch.tensor([list(ids)])).logits[0].log_softmax(-1)


def by_hand(hf: Any, prompt: list[int], ending: list[int]) -> list[float]:
    table = log_softmax(hf, prompt + ending)
    return [float(table[len(prompt) + i - 1, token]) for i, token in enumerate(ending)]


@pytest.fixture
def reference(tiny_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    return lambda family: AutoModelForCausalLM.from_pretrained(
        tiny_folder(family), dtype=torch.float64, attn_implementation="eager"
    ).eval()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3", "gpt2", "gpt_neox"])
def test_scores_are_those_of_transformers_with_and_without_steering(
    family: str, tiny_model: Callable[[str], LoadedModel], reference: Callable[[str], Any]
) -> None:
    model, hf = tiny_model(family), reference(family)
    added, ablated = steer(1), steer(2, seed=2, operation="ablate", strength=1.0)
    late = steer(1, positions=Positions(prompt=False))
    plans = [(), (added,), (ablated,), (late,)]
    prompts = ["A calm", LONG]
    items = tuple(ScoreItem(TEXTS, prompt=p, interventions=plan) for p in prompts for plan in plans)
    found = run(model, Score("s", items))["items"]

    v = torch.tensor(added.directions[0].values, dtype=torch.float64)
    w = torch.tensor(ablated.directions[0].values, dtype=torch.float64)
    u = w / w.norm()
    for item, got in zip(items, found, strict=True):
        prompt = model.encode_prompt(item.prompt or "")
        at = len(prompt)
        later = torch.arange(at + 200) >= at
        changes: dict[int, tuple[int, Callable[[torch.Tensor], torch.Tensor]]] = {
            id(added): (1, lambda h: h + 3 * v),
            id(ablated): (2, lambda h: h - (h @ u)[..., None] * u),
            id(late): (1, lambda h, later=later: h + 3 * later[: h.shape[1], None] * v),
        }
        endings = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
        assert got["tokens"] == [len(ending) for ending in endings]
        layer, change = changes[id(item.interventions[0])] if item.interventions else (0, lambda h: h)
        with hooked(hf, family, layer, change):
            expected = [by_hand(hf, prompt, ending) for ending in endings]
        assert got["logprobs"] == pytest.approx([sum(e) for e in expected], abs=1e-5)
        for mine, theirs in zip(got["each"], expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
    steered_away = abs(found[0]["logprobs"][1] - found[1]["logprobs"][1])
    assert steered_away > 0.01 and found[0]["each"][1][0] == pytest.approx(found[3]["each"][1][0], abs=1e-9)
    assert abs(found[0]["each"][1][-1] - found[3]["each"][1][-1]) > 1e-4


def test_an_item_scores_the_same_alone_and_beside_others(tiny_model: Callable[[str], LoadedModel]) -> None:
    model = tiny_model("llama")
    plans = [(), (steer(0),), (steer(2, strength=40.0),), (steer(1, operation="clamp"), steer(3, operation="cap"))]
    items = tuple(
        ScoreItem(TEXTS[: 1 + n % 4], prompt=SENTENCE[: 9 + 5 * n], interventions=plan)
        for n, (SENTENCE, plan) in enumerate((s, p) for s in tiny.SENTENCES for p in plans)
    )
    together = run(model, Score("s", items))["items"]
    for item, got in zip(items, together, strict=True):
        (alone,) = run(model, Score("s", (item,)))["items"]
        assert alone["logprobs"] == pytest.approx(got["logprobs"], abs=1e-9)


def test_a_chat_is_continued_where_the_assistant_speaks(
    tiny_model: Callable[[str], LoadedModel], reference: Callable[[str], Any]
) -> None:
    model, hf = tiny_model("llama"), reference("llama")
    asked = (Message("user", "Yes or no?"),)
    begun = (*asked, Message("assistant", "Answer:"))
    found = run(model, Score("s", (ScoreItem((" yes",), asked), ScoreItem((" yes", " no"), begun))))["items"]
    for messages, got in ((asked, found[0]), (begun, found[1])):
        prompt = model.encode_chat(messages)
        ending = model.tokenizer(" yes", add_special_tokens=False)["input_ids"]
        assert got["each"][0] == pytest.approx(by_hand(hf, prompt, ending), abs=1e-6)


def test_a_continuation_that_would_change_the_prompts_tokens_keeps_its_own(
    tiny_model: Callable[[str], LoadedModel], reference: Callable[[str], Any]
) -> None:
    model, hf = tiny_model("llama"), reference("llama")
    whole = model.tokenizer("The quick brown", add_special_tokens=False)["input_ids"]
    prompt = model.encode_prompt("Th")
    own = model.tokenizer("e quick brown", add_special_tokens=False)["input_ids"]
    assert whole[: len(prompt)] != prompt  # else this shows nothing
    (got,) = run(model, Score("s", (ScoreItem(("e quick brown",), prompt="Th"),)))["items"]
    assert got["each"][0] == pytest.approx(by_hand(hf, prompt, own), abs=1e-6)


def test_a_condition_is_decided_by_each_items_own_prompt(tiny_model: Callable[[str], LoadedModel]) -> None:
    model = tiny_model("llama")
    gate = steer(3, seed=9).directions[0].values
    never = Condition(direction=gate, layer=3, threshold=1e9)
    always = Condition(direction=gate, layer=3, threshold=-1e9)
    late = Positions(prompt=False)
    plans = [(), (steer(1, positions=late),)]
    plans += [(steer(1, positions=late, condition=c),) for c in (never, always, never)]
    items = tuple(ScoreItem(TEXTS, prompt=s, interventions=plan) for s in tiny.SENTENCES for plan in plans)
    found = [got["logprobs"] for got in run(model, Score("s", items))["items"]]
    for base, steered, closed, opened, again in zip(*(found[k::5] for k in range(5)), strict=True):
        assert closed == pytest.approx(base, abs=1e-9) == again
        assert opened == pytest.approx(steered, abs=1e-9) != pytest.approx(base, abs=1e-3)


def test_a_prompt_is_read_once_for_all_that_follows_it(
    tiny_model: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    read: list[int] = []
    plain = evaluation.Forced._forward

    def counted(self: Any, ids: Any, step: Any, *args: Any) -> Any:
        read.append(int(step.real.sum()))
        return plain(self, ids, step, *args)

    monkeypatch.setattr(evaluation.Forced, "_forward", counted)
    late = steer(1, positions=Positions(prompt=False))
    run(model, Score("s", tuple(ScoreItem((" yes", " no"), prompt=LONG, interventions=p) for p in ((), (late,)))))
    prompt = len(model.encode_prompt(LONG))
    rest = sum(len(model.tokenizer(t, add_special_tokens=False)["input_ids"]) - 1 for t in (" yes", " no"))
    assert sum(read) == prompt + 2 * rest
    assert max(read) <= 64


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_divergence_is_that_of_the_two_distributions(
    family: str, tiny_model: Callable[[str], LoadedModel], reference: Callable[[str], Any]
) -> None:
    model, hf = tiny_model(family), reference(family)
    change = steer(1, strength=1.0)
    v = torch.tensor(change.directions[0].values, dtype=torch.float64)
    found = run(model, Divergence("d", (*tiny.SENTENCES, LONG), (change,)))["texts"]
    for text, got in zip((*tiny.SENTENCES, LONG), found, strict=True):
        ids = model.encode_prompt(text)
        base = log_softmax(hf, ids)[:-1]
        with hooked(hf, family, 1, lambda h: h + v):
            steered = log_softmax(hf, ids)[:-1]
        chosen = torch.tensor(ids[1:])[:, None]
        assert got == pytest.approx(
            {
                "kl": float((steered.exp() * (steered - base)).sum(-1).mean()),
                "top1": float((steered.argmax(-1) == base.argmax(-1)).double().mean()),
                "nll_base": -float(base.gather(-1, chosen).mean()),
                "nll_steered": -float(steered.gather(-1, chosen).mean()),
                "tokens": len(ids) - 1,
            },
            abs=1e-5,
        )
        assert got["kl"] > 0.001


def test_without_steering_nothing_diverges(tiny_model: Callable[[str], LoadedModel]) -> None:
    for got in run(tiny_model("llama"), Divergence("d", tuple(tiny.SENTENCES), ()))["texts"]:
        assert got["kl"] == pytest.approx(0, abs=1e-12) and got["top1"] == 1.0
        assert got["nll_steered"] == pytest.approx(got["nll_base"], abs=1e-9)


ITEM = ScoreItem((" yes",), prompt="A calm")
REFUSED = [
    (Score("s", ()), "bad_items"),
    (Score("s", (ITEM,) * (evaluation.MAX_ITEMS + 1)), "bad_items"),
    (Score("s", (ScoreItem((" yes",)),)), "one_input"),
    (Score("s", (ITEM, ScoreItem((" yes",), (Message("user", "a"),), "b"))), "one_input"),
    (Score("s", (ScoreItem((), prompt="a"),)), "empty_continuation"),
    (Score("s", (ScoreItem(("x", ""), prompt="a"),)), "empty_continuation"),
    (Score("s", (ScoreItem(("x",) * 65, prompt="a"),)), "too_many_continuations"),
    (Score("s", (ScoreItem(("x",), ()),)), "empty_messages"),
    (Score("s", (ScoreItem(("x",), prompt="word " * 200),)), "prompt_too_long"),
    (Score("s", (ScoreItem(("x",), prompt="x" * 10_000),)), "prompt_too_long"),
    (Score("s", (ScoreItem(("\ud83d",), prompt="a"),)), "broken_text"),
    (Score("s", (ScoreItem(("x",), prompt="a", interventions=(steer(9),)),)), "layer_out_of_range"),
    (Score("s", (ScoreItem(("x",), prompt="a", interventions=(steer(1),) * 129),)), "too_many_interventions"),
    (Divergence("d", (), ()), "bad_texts"),
    (
        Divergence("d", (LONG,), (steer(1, condition=Condition(layer=1, vector_id="v", threshold=0.0)),)),
        "condition_without_prompt",
    ),
    (Divergence("d", ("a",), ()), "text_too_short"),
    (Divergence("d", ("word " * 200,), ()), "prompt_too_long"),
    (Divergence("d", ("\ud83d and more",), ()), "broken_text"),
]


@pytest.fixture(scope="module")
def llama(tiny_folder: Callable[[str], Path]) -> LoadedModel:
    from inference.models.loader import load

    return load(
        str(tiny_folder("llama")), cache_dir=Path(tiny_folder("llama")), dtype="float64", device="cpu", speed=()
    )


@pytest.mark.parametrize(("job", "code"), REFUSED, ids=[f"{n}-{code}" for n, (_, code) in enumerate(REFUSED)])
def test_what_cannot_be_measured_is_refused_with_a_cure(job: Score | Divergence, code: str, llama: LoadedModel) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        run(llama, job)
    assert refusal.value.code == code and refusal.value.message.count(".") >= 1


def test_the_item_at_fault_is_named(llama: LoadedModel) -> None:
    with pytest.raises(InvalidRequest, match="Item 2"):
        run(llama, Score("s", (ITEM, ScoreItem((" yes",), prompt="A calm", interventions=(steer(7),)))))
    with pytest.raises(InvalidRequest, match="Text 2"):
        run(llama, Divergence("d", (LONG, "a"), ()))


def test_a_job_has_a_limit_of_tokens(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_TOKENS", 20)
    with pytest.raises(InvalidRequest, match="may have 20"):
        run(llama, Score("s", tuple(ScoreItem((" yes",), prompt=s) for s in tiny.SENTENCES)))


def test_numbers_that_overflow_are_said_and_not_returned(llama: LoadedModel) -> None:
    wild = steer(1, strength=1e30, unit="raw")
    wilder = Intervention(
        operation="add", strength=3e38, directions=(Direction(Site(2), np.full(32, 3e38, dtype=np.float32)),)
    )
    with pytest.raises(InvalidRequest) as refusal:
        run(llama, Score("s", (ITEM, ScoreItem((" yes",), prompt="A", interventions=(wild, wilder)))))
    assert refusal.value.code == "numbers_overflowed" and "Item 2" in refusal.value.message
    with pytest.raises(InvalidRequest) as refusal:
        run(llama, Divergence("d", (LONG,), (wild, wilder)))
    assert refusal.value.code == "numbers_overflowed"


def test_a_job_ends_when_it_is_cancelled_and_the_engine_goes_on(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("llama")
    endless = Score("endless", tuple(ScoreItem(TEXTS, prompt=LONG + "!" * n) for n in range(1, 20)) * 100)
    running = start_job(engine, endless)
    while running.take().done == 0:
        pass
    engine.cancel("endless")
    assert running.wait().failed.code == "cancelled"
    assert start_job(engine, Score("next", (ITEM,))).wait().result.payload["items"][0]["tokens"]


def test_the_vectors_that_a_job_names_are_known_before_it_runs() -> None:
    named = [Intervention(vector_id=id, layers=(1,)) for id in ("b", "a", "b")]
    items = tuple(ScoreItem((" x",), prompt="p", interventions=(i, steer(1))) for i in named)
    assert named_vectors(Score("s", items)) == ["a", "b"]
    assert named_vectors(Divergence("d", ("text",), tuple(named))) == ["a", "b"]
