"""/activation/*: what features read in prompts, shaped as the client wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steering.access.principal import Principal
from steering.compat.neuronpedia import activation_fields as fields
from steering.compat.neuronpedia import reading
from steering.compat.neuronpedia.activation_fields import ReadAsk
from steering.compat.neuronpedia.reading import Text
from steering.compat.neuronpedia.sources import number_of
from steering.compat.neuronpedia.wire import operation

Shape = Callable[[], dict[str, Any]]
DECIMALS = 3  # of /activation/source


@operation(fields.single)
async def single(who: Principal, wanted: ReadAsk) -> Shape:
    texts = await reading.values(who, wanted)
    return lambda: of_one(texts[0], wanted)


@operation(fields.single_batch)
async def single_batch(who: Principal, wanted: ReadAsk) -> Shape:
    texts = await reading.values(who, wanted)
    return lambda: {"results": [of_one(text, wanted) for text in texts]}


@operation(fields.everything)
async def everything(who: Principal, wanted: ReadAsk) -> Shape:
    texts, there = await reading.strongest(who, wanted)
    return lambda: of_all(texts[0], there)


@operation(fields.everything_batch)
async def everything_batch(who: Principal, wanted: ReadAsk) -> Shape:
    texts, there = await reading.strongest(who, wanted)
    return lambda: {"results": [of_all(text, there) for text in texts]}


@operation(fields.top)
async def top(who: Principal, wanted: ReadAsk) -> Shape:
    texts = await reading.top(who, wanted)
    return lambda: of_top(texts[0], wanted)


@operation(fields.top_batch)
async def top_batch(who: Principal, wanted: ReadAsk) -> Shape:
    texts = await reading.top(who, wanted)
    return lambda: {"results": [of_top(text, wanted) for text in texts]}


@operation(fields.source)
async def source(who: Principal, wanted: ReadAsk) -> Shape:
    texts = await reading.active(who, wanted)
    return lambda: {"results": [of_active(text) for text in texts]}


# ---- shapes ----


def of_one(text: Text, wanted: ReadAsk) -> dict[str, Any]:
    """A feature is told without the BOS at the front, a vector with whatever the tokenizer made."""
    drop = 1 if wanted.vector is None and 0 in text["bos"] else 0
    values = text["values"][drop:]
    return {
        "activation": {"values": values, **largest(values), **attributed(text["dfa"], values, drop)},
        "tokens": strings(text)[drop:],
        "tokens_is_special": text["special"][drop:],
    }


def of_all(text: Text, there: Sequence[str]) -> dict[str, Any]:
    """All tokens, BOS among them. A row of `counts` for each layer up to the last of the set."""
    activations = [
        {
            "source": found["source"],
            "index": found["index"],
            "values": found["values"],
            **largest(found["values"]),
            "sum_values": found["sum"],
            **attributed(found["dfa"], found["values"], 0),
        }
        for found in text["found"]
    ]
    nothing = [0] * len(text["tokens"])
    by_layer = {number_of(id): counts for id, counts in text["counts"].items()}
    counts = [by_layer.get(layer, nothing) for layer in range(1 + max(map(number_of, there)))]
    return {"activations": activations, "tokens": strings(text), "counts": counts}


def of_top(text: Text, wanted: ReadAsk) -> dict[str, Any]:
    """`token_position` counts from the start of the prompt, a BOS that is left out included."""
    drop = 1 if wanted.ignore_bos and 0 in text["bos"] else 0
    tokens = strings(text)
    results = [
        {
            "token_position": place,
            "token": tokens[place],
            "is_special": text["special"][place],
            "top_features": [{"feature_index": i, "activation_value": value} for i, value in text["top"][place]],
        }
        for place in range(drop, len(tokens))
    ]
    return {"results": results, "tokens": tokens[drop:]}


def of_active(text: Text) -> dict[str, Any]:
    rounded = {
        index: [[token, round(value, DECIMALS)] for token, value in pairs] for index, pairs in text["active"].items()
    }
    return {"tokens": strings(text), "activeFeatures": rounded}


def strings(text: Text) -> list[str]:
    return [piece for _, piece in text["tokens"]]


def largest(values: Sequence[float]) -> dict[str, Any]:
    """The first place of the largest value; of no values at all, 0 at 0."""
    place = max(range(len(values)), key=lambda i: values[i], default=0)
    return {"max_value": values[place] if values else 0.0, "max_value_index": place}


def attributed(dfa: Sequence[float] | None, values: Sequence[float], drop: int) -> dict[str, Any]:
    """Direct feature attribution to the token at which the feature is largest, where the source reads attention."""
    if dfa is None:
        return {}
    kept = list(dfa[drop:])
    return {
        "dfa_values": kept,
        "dfa_target_index": largest(values)["max_value_index"],
        "dfa_max_value": max(kept, default=0.0),
    }
