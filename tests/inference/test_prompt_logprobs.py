"""What echo and log-probabilities need of the engine: the prompt's own, no token at all, and exact pieces of text."""

from __future__ import annotations

import pytest
import torch

from inference.errors import InvalidRequest
from inference.types import GenerationRequest, PromptRead, PromptToken, SamplingParams, Started, Token
from tests.inference.driver import add, request, start

FAMILIES = ["llama", "gpt2", "gemma2"]
IDS = tuple(range(20, 60))


def prompt_of(listener) -> list[PromptToken]:
    return [token for event in listener.events if isinstance(event, PromptRead) for token in event.tokens]


def scores(model, ids, hook=None) -> torch.Tensor:
    """Log-probabilities of ids[1:], by the model's own forward pass."""
    handle = model.layers[1].register_forward_hook(hook) if hook else None
    with torch.inference_mode():
        logits = model.hf(torch.tensor([ids])).logits[0].double()
    if handle:
        handle.remove()
    return logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_scored_as_one_forward_pass_scores_it(family, make_engine, plain_model):
    engine = make_engine(family, prefill_tokens=7)  # several chunks
    listener = start(
        engine, request("a", IDS, max_tokens=0, logprobs=True, top_logprobs=3, prompt_logprobs=True)
    ).wait()
    read = prompt_of(listener)
    assert [t.token_id for t in read] == list(IDS)
    assert read[0].logprob is None and read[0].top == ()
    expected = scores(plain_model(family), list(IDS))
    assert [t.logprob for t in read[1:]] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(len(t.top) == 3 and t.top[0].logprob >= t.logprob for t in read[1:])
    assert listener.finished.usage.completion_tokens == 0 and listener.finished.reason == "length"
    assert not any(isinstance(e, Token) for e in listener.events)


def test_a_steered_prompt_is_scored_under_its_steering(make_engine, plain_model):
    engine, model = make_engine("llama"), plain_model("llama")
    steer = add(32, 1, seed=5, strength=2.0)
    values = torch.from_numpy(steer.directions[0].values).double()
    both = [
        start(engine, request("s", IDS, max_tokens=1, interventions=(steer,), logprobs=True, prompt_logprobs=True)),
        start(engine, request("b", IDS[:30], max_tokens=1, logprobs=True, prompt_logprobs=True)),
    ]
    steered, base = (prompt_of(listener.wait()) for listener in both)

    def hook(module, args, output):
        return (output[0] + 2 * values, *output[1:]) if isinstance(output, tuple) else output + 2 * values

    assert [t.logprob for t in steered[1:]] == pytest.approx(scores(model, list(IDS), hook).tolist(), abs=1e-4)
    assert [t.logprob for t in base[1:]] == pytest.approx(scores(model, list(IDS[:30])).tolist(), abs=1e-4)


def test_prompt_events_come_between_the_start_and_the_first_token(make_engine):
    engine = make_engine("llama", prefill_tokens=16)
    events = start(engine, request("a", IDS, max_tokens=2, logprobs=True, prompt_logprobs=True)).wait().events
    kinds = [type(e) for e in events[:-1]]
    assert kinds == [Started, *[PromptRead] * (len(kinds) - 3), Token, Token]
    assert [e.seq for e in events] == list(range(len(events)))


def test_who_asks_for_the_prompt_changes_nothing_for_the_others(make_engine):
    engine = make_engine("llama")
    alone = start(engine, request("a", IDS, max_tokens=8)).wait().tokens
    asking = start(engine, request("b", IDS, max_tokens=8, logprobs=True, prompt_logprobs=True))
    beside = start(engine, request("c", IDS, max_tokens=8))
    assert beside.wait().tokens == asking.wait().tokens == alone


@pytest.mark.parametrize("text", ["A calm reply", "über 猫 🐈 naïve", "<user>Hi<assistant>"])
def test_pieces_of_a_prompt_join_to_the_prompt(text, make_engine):
    sampling = SamplingParams(max_tokens=0, logprobs=True, prompt_logprobs=True)
    listener = start(make_engine("llama"), GenerationRequest("a", prompt=text, sampling=sampling)).wait()
    assert "".join(t.token for t in prompt_of(listener)) == text


def test_nothing_is_written_only_where_the_prompt_is_asked_for(make_engine):
    with pytest.raises(InvalidRequest, match="max_tokens must be 1 or more"):
        make_engine("llama").prepare(request("a", IDS, max_tokens=0))


def test_max_tokens_gives_way_to_the_context_where_it_may(make_engine):
    engine = make_engine("llama")
    with pytest.raises(InvalidRequest, match="max_tokens"):
        engine.prepare(request("a", IDS, max_tokens=500))
    listener = start(engine, request("a", IDS, max_tokens=500, fit=True)).wait()
    assert listener.finished.usage.completion_tokens == 128 - len(IDS)


# ---- what is written ----


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_tokens_and_their_bytes_join_to_the_text(family, seed, make_engine):
    engine = make_engine(family)
    listener = start(engine, request("a", IDS, max_tokens=60, temperature=3.0, seed=seed, logprobs=True)).wait()
    tokens = [e for e in listener.events if isinstance(e, Token)]
    written = "".join(e.token for e in tokens)
    assert listener.text == written + listener.finished.text
    whole = b"".join(bytes(e.raw) if e.raw or not e.token else e.token.encode() for e in tokens)
    assert whole.decode("utf-8", errors="replace").startswith(written.rstrip("\N{REPLACEMENT CHARACTER}")[:10])


def test_a_character_over_several_tokens_is_the_last_ones_text_and_each_has_its_bytes(make_engine, tiny_model):
    model = tiny_model("llama")
    ids = model.tokenizer("猫", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    written = []
    for i, id in enumerate(ids):  # forced one by one, each after those before
        prompt = [*IDS[:4], *ids[:i]]
        bias = {id: 100.0}
        events = start(make_engine("llama"), request("a", prompt, max_tokens=1, logprobs=True, logit_bias=bias)).wait()
        written += [e for e in events.events if isinstance(e, Token)]
    assert [e.token for e in written] == ["", "", "猫"]
    assert b"".join(bytes(e.raw) for e in written) == "猫".encode()


def test_a_token_keeps_its_own_text_where_a_stop_string_cuts_it(make_engine):
    engine = make_engine("llama")
    plain = start(engine, request("a", IDS, max_tokens=30)).wait()
    text = plain.text
    stop = text[10:14]
    listener = start(engine, request("a", IDS, max_tokens=30, stop=(stop,), logprobs=True)).wait()
    pieces = "".join(e.token for e in listener.events if isinstance(e, Token))
    assert listener.text == text[: text.index(stop)] and pieces.startswith(listener.text + stop)


# ---- logit bias ----


def test_a_bias_forces_and_forbids(make_engine):
    engine = make_engine("llama")
    free = start(engine, request("a", IDS, max_tokens=6)).wait().tokens
    forced = start(engine, request("a", IDS, max_tokens=6, logit_bias={77: 100.0})).wait().tokens
    forbidden = start(engine, request("a", IDS, max_tokens=6, logit_bias={free[0]: -100.0})).wait().tokens
    assert forced == [77] * 6 and free[0] not in forbidden


def test_a_bias_acts_on_its_row_alone(make_engine):
    engine = make_engine("llama")
    wanted = [
        request("a", IDS, max_tokens=12),
        request("b", IDS, max_tokens=12, logit_bias={77: 100.0, 5: 3.0}),
        request("c", IDS, max_tokens=12, temperature=1.0, seed=3, logit_bias={9: 4.0}),
    ]
    alone = [start(engine, r).wait().tokens for r in wanted]
    listeners = [start(engine, r) for r in wanted]
    assert [listener.wait().tokens for listener in listeners] == alone


@pytest.mark.parametrize(
    "bias", [{300: 1.0}, {-1: 1.0}, {5: 101.0}, {5: float("nan")}, dict.fromkeys(range(1025), 0.0)]
)
def test_a_bias_out_of_range_is_refused(bias, make_engine):
    with pytest.raises(InvalidRequest) as refusal:
        make_engine("llama").prepare(request("a", IDS, logit_bias=bias))
    assert refusal.value.code == "bad_logit_bias"


def test_where_only_the_prompt_is_read_nothing_of_an_answer_is_told(make_engine):
    for first in range(20, 26):  # whatever the token that is not asked for, a torn character among them
        bias = {first + 150: 100.0}
        asking = request("a", IDS, max_tokens=0, logprobs=True, prompt_logprobs=True, logit_bias=bias)
        listener = start(make_engine("llama"), asking).wait()
        assert (listener.text, listener.tokens) == ("", [])
