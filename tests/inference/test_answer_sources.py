"""On which passages an answer rests: spans are exact, drops are plain forward passes, weights are derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from inference.attribution.answers import estimating
from inference.attribution.answers.placing import place
from inference.attribution.jobs import STEERED_JOBS
from inference.attribution.walk import Walker
from inference.errors import InvalidRequest, NotFound
from inference.models.loader import LoadedModel
from inference.models.plain import open_view
from inference.types import AttributeAnswer, Condition, Intervention, Message, Positions, Progress, SourceSpan
from tests.inference import tiny

TEXTS = ("the fox", "a calm cat", "(B) no")
QUESTION = "Question: is it (A)? "
ANSWER = (72, 81, 100, 72)


def asked(texts: tuple[str, ...] = TEXTS, **options: Any) -> AttributeAnswer:
    """A prompt of passages, each with a mark."""
    prompt, spans = "Use: ", []
    for n, text in enumerate(texts):
        start, mark = len(prompt), f"[{n}] "
        prompt += f"{mark}{text}\n"
        spans.append(SourceSpan(f"c{n}", start, len(prompt), start + len(mark)))
    given: dict[str, Any] = {"prompt": prompt + QUESTION, "answer": ANSWER} | options
    return AttributeAnswer("job", tuple(spans), **given)


def as_chat(job: AttributeAnswer) -> AttributeAnswer:
    assert job.prompt
    return asked(prompt=None, messages=(Message("user", job.prompt),))


def nothing(id: str) -> Any:
    raise NotFound("vector_not_found", id)


def run(model: LoadedModel, job: AttributeAnswer) -> list[Any]:
    return [*STEERED_JOBS[AttributeAnswer](model, job, nothing)]


def payload_of(model: LoadedModel, job: AttributeAnswer) -> dict[str, Any]:
    return dict(run(model, job)[-1].payload)


@torch.no_grad()
def logprobs(model: LoadedModel, prompt: list[int], answer: tuple[int, ...]) -> np.ndarray:
    """Of the answer's tokens, by transformers alone."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = model.hf(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0].numpy()


def kick(layer: int, model: LoadedModel, **options: Any) -> Intervention:
    values = np.random.default_rng(layer).normal(size=model.d_model).astype(np.float32)
    given: dict[str, Any] = {"strength": 1.5, "unit": "raw"} | options
    return Intervention.from_wire(
        {"directions": [{"site": {"layer": layer, "point": "resid_post"}, "values": values.tolist()}]} | given
    )


# ---- spans ----


@pytest.mark.parametrize("chat", [False, True])
def test_tokens_of_a_passage_are_those_that_begin_in_it(tiny_model, chat):
    model, job = tiny_model("llama"), asked()
    placed = place(model, as_chat(job) if chat else job)
    decode = lambda places: model.tokenizer.decode([placed.prompt[i] for i in places])  # noqa: E731
    for n, text in enumerate(TEXTS):
        assert (
            decode(placed.blocks[n]).strip("\n") == f"[{n}] {text}"
            or decode(placed.blocks[n]).strip() == f"[{n}] {text}"
        )
        assert decode(placed.texts[n]).strip() == text
    everywhere = [i for block in placed.blocks for i in block]
    assert len(everywhere) == len({*everywhere})
    assert placed.prompt == (model.encode_chat(as_chat(job).messages) if chat else model.encode_prompt(job.prompt))
    left = model.tokenizer.decode(placed.without(0, 1, 2), skip_special_tokens=True)
    assert left.split() == f"Use: {QUESTION}".split()


def test_an_answer_given_as_text_is_tokenised_behind_the_prompt(tiny_model):
    model = tiny_model("llama")
    placed = place(model, asked(answer=(), text="yes or no"))
    assert model.tokenizer.decode(placed.answer) == "yes or no"


# ---- drops ----


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_drop_is_what_a_forward_pass_without_the_passage_says(tiny_model, plain_model, family):
    job, other = asked(), plain_model(family)
    payload = payload_of(tiny_model(family), job)
    placed = place(other, job)
    full = logprobs(other, placed.prompt, ANSWER)
    np.testing.assert_allclose(payload["logprobs"], full, atol=2e-5)
    for n in range(3):
        without = logprobs(other, placed.without(n), ANSWER)
        np.testing.assert_allclose([row[n] for row in payload["drops"]], full - without, atol=5e-5)
    np.testing.assert_allclose(payload["together"], full - logprobs(other, placed.without(0, 1, 2), ANSWER), atol=5e-5)
    assert payload["disagreement"] < 1e-5, "the differentiable copy reads the same, windows and caches included"


def test_edges_are_the_drops_of_at_least_epsilon(tiny_model):
    payload = payload_of(tiny_model("llama"), asked(epsilon=0.3))
    drops = np.array(payload["drops"])
    assert {(e["token"], e["span"]) for e in payload["edges"]} == {
        (int(t), int(s)) for t, s in np.argwhere(drops >= 0.3)
    }
    assert 0 < len(payload["edges"]) < drops.size
    assert payload["sums"]["validated"] == pytest.approx(drops[drops >= 0.3].sum(), rel=1e-4)
    for edge in payload["edges"]:
        assert edge["best_layer"] == int(np.argmax(edge["layers"]))
        weight = payload["weights"][edge["token"]][edge["span"]]
        assert sum(edge["layers"]) == pytest.approx(weight, abs=2e-3)
        chance = np.exp(payload["logprobs"][edge["token"]])
        after = 1 / (1 + (1 - chance) / chance * np.exp(weight))  # the odds divided by e to the weight
        assert edge["predicted"] == pytest.approx(np.log(chance / after), abs=1e-3)


def test_steering_that_wrote_the_answer_acts_on_what_is_measured(tiny_model, plain_model):
    job, other = asked(interventions=(kick(1, tiny_model("llama")),)), plain_model("llama")
    payload = payload_of(tiny_model("llama"), job)
    delta = torch.tensor(np.asarray(job.interventions[0].directions[0].values), dtype=torch.float64) * 1.5
    hook = other.layers[1].register_forward_hook(
        lambda m, a, out: (out[0] + delta, *out[1:]) if isinstance(out, tuple) else out + delta
    )
    placed = place(other, job)
    full, without = logprobs(other, placed.prompt, ANSWER), logprobs(other, placed.without(1), ANSWER)
    hook.remove()
    np.testing.assert_allclose([row[1] for row in payload["drops"]], full - without, atol=5e-5)
    assert payload["disagreement"] < 1e-5


def test_what_the_prompt_decides_and_what_is_put_back_act_in_the_copy_too(tiny_model):
    model = tiny_model("llama")
    direction = np.random.default_rng(5).normal(size=model.d_model).astype(np.float32)
    condition = Condition(layer=1, direction=direction, threshold=-1e9, comparison="above", decided="prompt")
    answer_only = kick(2, model, positions=Positions(prompt=False).to_wire(), condition=condition.to_wire())
    ablated = kick(0, model, operation="ablate", strength=1.0)
    payload = payload_of(model, asked(interventions=(answer_only, ablated)))
    assert payload["disagreement"] < 1e-5
    assert any("depends on the activations" in note for note in payload["notes"])
    plain = payload_of(model, asked())
    assert np.abs(np.array(plain["logprobs"]) - payload["logprobs"]).max() > 0.01


# ---- weights ----


def prepared(model: LoadedModel, job: AttributeAnswer) -> tuple[Walker, Any, Any, torch.Tensor, torch.Tensor]:
    walker, placed = Walker(open_view(model)), place(model, job)
    steps = estimating.read(walker, placed, estimating.Steering(model, [], walker))
    run = finished(steps)
    found, _, slope = estimating.slopes(walker, run, placed)
    return walker, placed, run, found, finished(estimating.weights(walker, run, placed, slope))


def finished(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_oss"])
def test_pieces_of_any_size_read_the_same(tiny_model, monkeypatch, family):
    model, job = tiny_model(family), asked()
    *_, whole = prepared(model, job)
    monkeypatch.setattr(estimating, "PIECE_TOKENS_CPU", 7)
    *_, pieces = prepared(model, job)
    torch.testing.assert_close(whole, pieces, atol=1e-10, rtol=1e-9)


def test_a_weight_is_the_derivative_of_leaving_the_passage_out_of_a_layers_attention(tiny_model, plain_model):
    """By transformers' own modules: attention patterns give z', a hook moves z a little way there."""
    job = asked()
    _, placed, run, _, weights = prepared(tiny_model("llama"), job)
    other = plain_model("llama")
    other.hf.set_attn_implementation("eager")
    ids = torch.tensor([[*placed.prompt, *placed.answer]])
    heads, size = 4, 8
    for layer, span in ((0, 0), (1, 2), (3, 1)):
        attention, block = other.layers[layer].self_attn, placed.blocks[span]
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            attention.v_proj.register_forward_hook(lambda m, a, out, seen=seen: seen.update(v=out)),
            attention.o_proj.register_forward_pre_hook(lambda m, a, seen=seen: seen.update(z=a[0])),
        ]
        with torch.no_grad():
            pattern = other.hf(ids, output_attentions=True, use_cache=False).attentions[layer][0]
        for hook in hooks:
            hook.remove()
        kept = pattern.clone()
        kept[:, :, block.start : block.stop] = 0
        kept = kept / kept.sum(-1, keepdim=True).clamp_min(1e-30)
        v = seen["v"][0].view(-1, 2, size).repeat_interleave(heads // 2, dim=1)
        without = torch.einsum("hij,jhd->ihd", kept, v).reshape(1, -1, heads * size)
        given = seen["z"] - without
        given[:, : run.start] = 0  # only the tokens behind the passages

        def moved(share: float, given: torch.Tensor = given, attention: Any = attention) -> np.ndarray:
            hook = attention.o_proj.register_forward_pre_hook(lambda m, a: (a[0] - share * given,))
            found = logprobs(other, placed.prompt, ANSWER)
            hook.remove()
            return found - np.log1p(-np.exp(found))  # log-odds

        slope = (moved(-3e-3) - moved(3e-3)) / 6e-3  # transformers' norms round to float32
        np.testing.assert_allclose(weights[:, span, layer].numpy(), slope, atol=5e-4, rtol=1e-3)


def test_where_one_passage_is_copied_it_alone_is_what_the_answer_rests_on(tiny_model):
    """One layer made by hand: behind the passages, one head reads the tokens that carry a flag, and says them."""
    model = copier(tiny_model("llama"))
    job = asked(("the fox", "a Z cat", "(B) no"), answer=(token_of(model, "Z"),))
    payload = payload_of(model, job)
    drops, predicted = np.array(payload["drops"])[0], np.array(payload["predicted"])[0]
    assert drops.argmax() == 1 and drops[1] > 2 and np.abs(drops[[0, 2]]).max() < 0.5
    assert predicted.argmax() == 1 and predicted[1] > 1
    assert [(e["span"], e["best_layer"]) for e in payload["edges"] if e["drop"] == max(drops)] == [(1, 0)]
    assert payload["answer_tokens"] == [[token_of(model, "Z"), "Z"]]


def token_of(model: LoadedModel, text: str) -> int:
    (token,) = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(token)


def copier(model: LoadedModel) -> LoadedModel:
    """All queries look for dimension 0, which "Z" alone has; the value is "Z"'s own direction, dimension 1."""
    from inference.models.plain import plain_state

    state = plain_state(model.hf)
    assert state is not None
    for name, tensor in state.items():
        if "norm" in name:
            tensor.fill_(1.0)
        elif tensor.ndim >= 2:
            tensor.zero_()
    embed, z = state["model.embed_tokens.weight"], token_of(model, "Z")
    embed[:, 2] = 1.0  # all have the same size, nearly
    embed[z, :3] = torch.tensor([1.0, 1.0, 1.0], dtype=embed.dtype)
    layer = "model.layers.0.self_attn."
    slow = 3  # the pair of dimensions that rotates slowest, so that place hardly matters
    state[layer + "q_proj.weight"][slow, 2] = 3.0
    state[layer + "k_proj.weight"][slow, 0] = 3.0
    state[layer + "v_proj.weight"][0, 1] = 1.0
    state[layer + "o_proj.weight"][3, 0] = 0.3
    state["lm_head.weight"][z, 3] = 1.2
    return model


# ---- the job ----


def test_progress_only_grows_and_says_what_is_done(tiny_model):
    *progress, result = run(tiny_model("llama"), asked())
    assert progress and all(isinstance(p, Progress) and 0 <= p.done <= p.total for p in progress)
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert {p.facts["phase"] for p in progress} == {"measuring", "estimating"}
    assert [p.seq for p in (*progress, result)] == list(range(len(progress) + 1))


def test_a_job_that_is_left_leaves_nothing_behind(tiny_model):
    model = tiny_model("llama")
    expected = payload_of(model, asked())
    for stop in (1, 4, 8):
        job = STEERED_JOBS[AttributeAnswer](model, asked(), nothing)
        for _ in range(stop):
            next(job, None)
        job.close()
    found = payload_of(model, asked())
    assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prompt": None}, "one_input"),
        ({"answer": ()}, "one_answer"),
        ({"answer": (5000,)}, "bad_token_ids"),
        ({"answer": (72,) * 129}, "answer_too_long"),
        ({"epsilon": -1.0}, "out_of_range"),
        ({"prompt": "x" * 200_000}, "prompt_too_long"),
        ({"prompt": "short"}, "bad_spans"),
        ({"interventions": (Intervention(operation="add", vector_id="0" * 64, layers=(1,)),)}, "vector_not_found"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(tiny_model, change, code):
    with pytest.raises((InvalidRequest, NotFound)) as refused:
        run(tiny_model("llama"), asked(**change))
    assert refused.value.code == code


def test_a_passage_that_begins_the_prompt_is_refused(tiny_model):
    job = AttributeAnswer("job", (SourceSpan("a", 0, 4, 0),), prompt="the fox. Who?", answer=ANSWER)
    with pytest.raises(InvalidRequest) as refused:
        run(tiny_model("gpt2"), job)
    assert refused.value.code == "span_begins_prompt"
