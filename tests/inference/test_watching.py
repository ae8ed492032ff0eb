"""What watches do to a row at the level of the engine: stop it, have it written again, and tell of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.errors import InvalidRequest
from inference.types import (
    Fired,
    Intervention,
    Positions,
    Probe,
    ReadProbes,
    Scored,
    Token,
    Watch,
)
from tests.inference.driver import Listener, direction, request, start, start_job, together

IDS = (5, 6, 7, 8)
ANSWER = Positions(prompt=False, special=False)
NOTHING = 1e9  # a threshold that no score reaches


def probe(engine, layer=1, seed=7):
    values = np.random.default_rng(seed).normal(size=engine.describe().d_model)
    return Probe(layer, weights=values.astype(np.float32))


def watch(engine, threshold, action="observe", *, positions=ANSWER, name="w", **more):
    return Watch(name, probe(engine), threshold, action, positions=positions, **more)


def ask(*watches, ids=IDS, **more):
    settings = {"temperature": 1.0, "seed": 11, "max_tokens": 24, **more}
    return replace(request("run", ids, **settings), watches=tuple(watches))


def run(engine, *watches, **more) -> Listener:
    return start(engine, ask(*watches, **more)).wait()


def scores(listener: Listener) -> dict[int, tuple]:
    found: dict[int, tuple] = {}
    for event in listener.events:
        if isinstance(event, Scored):
            for i, values in enumerate(event.values):
                assert event.start + i not in found, "a token was told twice"
                found[event.start + i] = values
    return found


def firings(listener: Listener):
    return [f for event in listener.events if isinstance(event, Fired) for f in event.firings]


@pytest.fixture
def engine(make_engine):
    return make_engine("llama")


def threshold_at(engine, place, **more):
    """A threshold that the answer's token `place` is the first to pass, and that answer."""
    seen = run(engine, watch(engine, None), **more)
    values = [scores(seen)[len(IDS) + i][0] for i in range(len(seen.tokens) - 1)]
    before = max((v for v in values[:place] if v is not None), default=-np.inf)
    return values, before, seen


def first_peak(engine, least=6, **more):
    """The first place from `least` on that scores higher than all before it, and a threshold just below."""
    values, _, seen = threshold_at(engine, 0, **more)
    for place in range(least, len(values)):
        if values[place] is not None and values[place] > max(v for v in values[:place] if v is not None):
            highest = max(v for v in values[:place] if v is not None)
            return place, (values[place] + highest) / 2, seen
    raise AssertionError("choose another seed")


def test_observing_changes_no_token_and_reads_all_but_the_last(engine):
    plain, seen = run(engine), run(engine, watch(engine, 0.0))
    assert (seen.tokens, seen.text) == (plain.tokens, plain.text)
    found = scores(seen)
    assert sorted(found) == list(range(len(IDS), len(IDS) + len(plain.tokens) - 1))
    above = [p for p, (value,) in found.items() if value > 0]
    assert above
    assert [(f.position, f.score, f.action) for f in firings(seen)] == [(p, found[p][0], "observe") for p in above]
    receipt = seen.finished.receipt
    assert (receipt.fired, receipt.fired_total) == (tuple(firings(seen)), len(above))
    order = [e for e in seen.events if isinstance(e, Token | Scored)]
    places = [len(IDS) + i for i in range(len(plain.tokens))]
    told = [e.start if isinstance(e, Scored) else "token" for e in order]
    assert told == [x for place in places[:-1] for x in ("token", place)] + ["token"]


def test_the_prompt_is_read_too_where_it_is_asked_for(engine):
    seen = run(engine, watch(engine, None, positions=Positions(special=False)), ids=(0, 5, 6, 7))
    found = scores(seen)
    assert sorted(found) == list(range(4 + len(seen.tokens) - 1))
    assert found[0] == (None,) and found[1][0] is not None  # <bos> is special


def test_stop_ends_the_row_before_the_token_that_fired(engine):
    place, threshold, seen = first_peak(engine)
    ended = run(engine, watch(engine, threshold, "stop"))
    assert ended.tokens == seen.tokens[:place]
    assert ended.finished.reason == "watch"
    assert ended.finished.usage.completion_tokens == place
    (firing,) = firings(ended)
    assert (firing.position, firing.token_id, firing.action) == (len(IDS) + place, seen.tokens[place], "stop")
    assert sorted(scores(ended)) == list(range(len(IDS), len(IDS) + place))
    shorter = run(engine, max_tokens=place)
    assert ended.text == shorter.text


def test_a_prompt_may_be_stopped_at(engine):
    ended = run(engine, watch(engine, -NOTHING, "stop", positions=Positions()))
    assert (ended.tokens, ended.text, ended.finished.reason) == ([], "", "watch")
    assert ended.finished.usage.completion_tokens == 0
    assert firings(ended)[0].position == 0


@pytest.mark.parametrize("action", ["stop", "regenerate"])
@pytest.mark.parametrize("max_tokens", [1, 3, 24])
def test_a_row_that_is_held_back_says_what_it_says_unwatched(engine, action, max_tokens):
    """However it ends: at its limit, within the span that is held back, at a stop string, at the end of the text."""
    plain = run(engine, max_tokens=max_tokens, logprobs=True, top_logprobs=2)
    held = run(engine, watch(engine, NOTHING, action, span=5), max_tokens=max_tokens, logprobs=True, top_logprobs=2)
    told = [[replace(e, seq=0) for e in one.events if isinstance(e, Token)] for one in (plain, held)]
    assert told[0] == told[1]
    assert held.finished.reason == plain.finished.reason == "length"
    assert held.finished.usage == plain.finished.usage
    assert sorted(scores(held)) == list(range(len(IDS), len(IDS) + max_tokens - 1))


@pytest.mark.parametrize("action", ["stop", "regenerate"])
def test_a_stop_string_ends_a_row_that_is_held_back_where_it_ends_it_unwatched(engine, action):
    whole = run(engine)
    for at in range(4, 20, 3):
        pieces = [e.text for e in whole.events if isinstance(e, Token)]
        stop = "".join(pieces[at : at + 2])
        if not stop:
            continue
        plain, held = run(engine, stop=(stop,)), run(engine, watch(engine, NOTHING, action, span=6), stop=(stop,))
        assert plain.finished.reason == held.finished.reason == "stop"
        assert (held.tokens, held.text, held.finished.usage) == (plain.tokens, plain.text, plain.finished.usage)


def test_what_fires_behind_a_stop_string_never_was(engine):
    """The row has ended by then, delivered or not, so nothing is written that could fire."""
    place, threshold, seen = first_peak(engine)
    stop = "".join(e.text for e in seen.events if isinstance(e, Token))[:40]
    for length in range(1, 40):
        plain = run(engine, stop=(stop[:length],))
        if plain.finished.reason == "stop" and len(plain.tokens) <= place:
            held = run(engine, watch(engine, threshold, "regenerate", span=24), stop=(stop[:length],))
            assert (held.text, held.finished.reason, held.finished.receipt.fired_total) == (plain.text, "stop", 0)
            return
    raise AssertionError("choose another seed")


def test_the_end_of_the_text_is_delivered_with_what_was_held_back(engine):
    eos = sorted(engine.batch.model.eos_ids)[0]
    more = {"ignore_eos": False, "logit_bias": {eos: 7.0}, "max_tokens": 60}
    for seed in range(20):
        plain = run(engine, seed=seed, **more)
        if plain.finished.reason == "stop" and 3 < len(plain.tokens) < 40:
            break
    held = run(engine, watch(engine, NOTHING, "regenerate", span=8), seed=seed, **more)
    assert (held.tokens, held.finished.reason) == (plain.tokens, "stop")
    assert held.finished.usage == plain.finished.usage


def test_regenerate_writes_the_span_again_and_takes_nothing_back_that_was_delivered(engine):
    place, threshold, seen = first_peak(engine)
    again = run(engine, watch(engine, threshold, "regenerate", span=4, attempts=16))
    assert firings(again)[0].position == len(IDS) + place
    keep = place + 1 - 4
    assert again.tokens[:keep] == seen.tokens[:keep] and again.tokens != seen.tokens
    found = scores(again)
    assert all(value <= threshold for (value,) in found.values())
    assert again.text == "".join(e.text for e in again.events if isinstance(e, Token)) + again.finished.text
    if again.finished.reason == "length":
        assert len(again.tokens) == 24 == again.finished.usage.completion_tokens
        assert sorted(found) == list(range(len(IDS), len(IDS) + 23))
    assert again.finished.receipt.fired_total == len(firings(again))


def test_what_is_written_again_is_read_as_if_it_had_been_written_at_once(engine):
    """The cache holds nothing of what was taken back: reading the answer anew gives the same scores."""
    _, threshold, _ = first_peak(engine)
    w = watch(engine, threshold, "regenerate", span=4, attempts=16)
    again = run(engine, w)
    ids = (*IDS, *again.tokens)
    fresh = run(engine, watch(engine, None, positions=Positions(special=False)), ids=ids, max_tokens=1)
    for position, (value,) in scores(again).items():
        assert scores(fresh)[position][0] == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_a_first_token_that_fires_is_written_again(engine):
    values, _, seen = threshold_at(engine, 0)
    threshold = values[0] - 1e-6
    again = run(engine, watch(engine, threshold, "regenerate", span=3, attempts=16))
    assert firings(again)[0].position == len(IDS)
    assert again.tokens[:1] != seen.tokens[:1] or not again.tokens


def test_the_same_seed_gives_the_same_text_alone_and_in_company(engine):
    _, threshold, _ = first_peak(engine)
    w = watch(engine, threshold, "regenerate", span=4, attempts=16)
    alone = run(engine, w)
    assert run(engine, w).text == alone.text
    others = [replace(ask(ids=(9, 10, 11), seed=s), id=f"other{s}") for s in range(3)]
    plain = [start(engine, other).wait().tokens for other in others]
    found = together(engine, [others[0], ask(w), *others[1:]], join_every=2)
    assert found[1] == alone.tokens
    assert [found[0], *found[2:]] == plain  # rows without watches write what they write alone


def test_attempts_come_to_an_end(engine):
    ended = run(engine, watch(engine, -NOTHING, "regenerate", span=4, attempts=2))
    assert (ended.tokens, ended.finished.reason) == ([], "watch")
    assert [f.action for f in firings(ended)] == ["regenerate", "regenerate", "stop"]


def test_of_several_watches_stopping_wins(engine):
    place, threshold, seen = first_peak(engine)
    both = (
        watch(engine, threshold, "regenerate", span=4, name="again"),
        watch(engine, threshold, "stop", name="stop"),
        watch(engine, threshold, "observe", name="look"),
    )
    ended = run(engine, *both)
    assert (ended.tokens, ended.finished.reason) == (seen.tokens[:place], "watch")
    assert [(f.name, f.action) for f in firings(ended)] == [("again", "stop"), ("stop", "stop"), ("look", "observe")]


def test_steering_is_told_with_its_dose(engine):
    d_model = engine.describe().d_model
    steer = (Intervention(strength=0.5, directions=(direction(d_model, 1, 3),)),)
    more = {"interventions": steer, "scale": 2.0}
    plain = run(engine)
    fixed = run(engine, watch(engine, 0.0, "steer", **more))
    share = run(engine, watch(engine, 0.0, "steer", dose="proportional", **more))
    assert {f.dose for f in firings(fixed)} == {1.0}
    assert all(f.dose == pytest.approx(min(f.score / 2, 1)) for f in firings(share))
    assert fixed.tokens != plain.tokens
    assert fixed.finished.receipt.applied[0].generated_tokens == fixed.finished.receipt.fired_total
    quiet = run(engine, watch(engine, NOTHING, "steer", **more))
    assert quiet.tokens == plain.tokens and quiet.finished.receipt.fired_total == 0
    forced = run(engine, watch(engine, None, "steer", force=True, **more))
    always = run(engine, interventions=[replace(steer[0], positions=ANSWER)])
    assert forced.tokens == always.tokens and not firings(forced)


def test_a_row_that_is_cancelled_keeps_what_was_delivered(engine):
    held = start(engine, ask(watch(engine, NOTHING, "regenerate", span=8), max_tokens=100))
    held.wait_for_tokens(5)
    engine.cancel("run")
    ended = held.wait()
    assert ended.finished.reason == "cancelled"
    assert ended.finished.usage.completion_tokens == len(ended.tokens)


def test_many_firings_are_counted_and_the_first_are_listed(engine, monkeypatch):
    monkeypatch.setattr("inference.watching.TOLD", 5)
    seen = run(engine, watch(engine, -NOTHING))
    receipt = seen.finished.receipt
    assert (len(receipt.fired), receipt.fired_total) == (5, 23)


def test_a_probe_reads_of_a_text_what_it_reads_while_the_text_is_written(engine):
    """So that a threshold that was calibrated on texts holds while the model writes."""
    p = probe(engine, layer=2)
    letters = dict.fromkeys(engine.batch.model.tokenizer("KZWXJ")["input_ids"], 50.0)  # which no merge joins
    w = Watch("w", p, positions=Positions(special=False))
    seen = run(engine, w, logit_bias=letters)
    assert len(set(seen.tokens)) > 1
    ids = (*IDS, *seen.tokens)
    text = engine.batch.model.tokenizer.decode(ids)
    (found,) = start_job(engine, ReadProbes("r", (p,), texts=(text,))).wait().result.payload["texts"]
    assert [id for id, _ in found["tokens"]] == list(ids)
    told = scores(seen)
    assert sorted(told) == list(range(len(ids) - 1))
    for position, (value,) in told.items():
        assert (value is None) == (position in found["left_out"])
        if value is not None:
            assert found["scores"][0][position] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": " "}, "bad_name"),
        ({"action": "regenerate", "span": 0}, "bad_span"),
        ({"action": "regenerate", "attempts": 0}, "bad_attempts"),
        ({"action": "regenerate", "positions": Positions()}, "prompt_not_written"),
        ({"action": "stop", "force": True}, "nothing_to_force"),
        ({"action": "stop", "threshold": None}, "no_threshold"),
        ({"action": "steer"}, "nothing_to_steer"),
        ({"scale": 0.0}, "bad_threshold"),
        ({"probe": Probe(99, weights=np.ones(32, np.float32))}, "layer_out_of_range"),
        ({"probe": Probe(1, weights=np.ones(3, np.float32))}, "wrong_size"),
        ({"probe": Probe(1)}, "one_source"),
    ],
)
def test_a_watch_that_cannot_be_kept_is_refused_with_a_cure(engine, change, code):
    with pytest.raises(InvalidRequest) as refusal:
        engine.prepare(ask(replace(watch(engine, 0.0), **change)))
    assert refusal.value.code == code
    assert refusal.value.message.count(".") >= 1


def test_greedy_rows_cannot_be_written_again(engine):
    with pytest.raises(InvalidRequest) as refusal:
        engine.prepare(ask(watch(engine, 0.0, "regenerate"), temperature=0.0))
    assert refusal.value.code == "nothing_else_to_write"
