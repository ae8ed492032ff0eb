"""What features read in a text, and which are near each other. BOS stands among the tokens, with what is read there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inference.saes.catalog import set_of
from inference.types import NearestFeatures
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.compat.neuronpedia import activations, reading
from steering.compat.neuronpedia.activation_fields import MOST_RESULTS, ReadAsk, index_of
from steering.compat.neuronpedia.asking import ask, new_id
from steering.compat.neuronpedia.sources import feature_of, served_model, source_of
from steering.compat.neuronpedia.wire import bad, texts_of, wholes_of
from steering.compat.older.wire import operation
from steering.threads import in_thread

NUM_RESULTS, TOP_K = 20, 5  # unless asked otherwise


# ---- one feature ----


def one_feature(body: Fields) -> ReadAsk:
    """`layer` is a source, such as 11-res-jb; `index` a number or its digits."""
    text, model = body.required_text("text"), body.required_text("model")
    return ReadAsk(model, (text,), body.required_text("layer"), index=index_of(body))


@operation(one_feature)
async def activations_test(who: Principal, wanted: ReadAsk) -> dict[str, Any]:
    (text,) = await reading.values(who, wanted, ignore_bos=False)
    return {
        "activations": {"index": wanted.index, "layer": wanted.source, **values_of(text)},
        "tokens": activations.strings(text),
    }


def values_of(read: dict[str, Any]) -> dict[str, Any]:
    """Values, where they are largest, and what attention gave, in camelCase."""
    values = read["values"]
    return camel({"values": values, **activations.largest(values), **activations.attributed(read["dfa"], values, 0)})


# ---- the features that are strongest ----


def all_features(body: Fields) -> ReadAsk:
    for name in ("sort_indexes", "feature_filter"):
        if any(index < 0 for index in wholes_of(body, name)):
            raise bad(f"{name} has a number below 0; they count from 0.", "bad_index")
    return ReadAsk(
        model=body.required_text("model"),
        prompts=(body.required_text("text"),),
        source_set=body.required_text("source_set"),
        selected=texts_of(body, "selected_layers"),
        sort_by=wholes_of(body, "sort_indexes"),
        ignore_bos=body.flag("ignore_bos") or False,
        limit=body.whole("num_results", 1, MOST_RESULTS) or NUM_RESULTS,
        only=wholes_of(body, "feature_filter"),
    )


@operation(all_features)
async def activations_all(who: Principal, wanted: ReadAsk) -> Callable[[], dict[str, Any]]:
    texts, there = await reading.strongest(who, wanted)
    return lambda: _of_all(texts[0], there)


def _of_all(text: dict[str, Any], there: Sequence[str]) -> dict[str, Any]:
    found = activations.of_all(text, there)
    listed = [camel({"layer": each.pop("source"), **each}) for each in found["activations"]]
    return {"activations": listed, "tokens": found["tokens"], "counts": found["counts"]}


# ---- the strongest features of each token ----


def features_by_token(body: Fields) -> ReadAsk:
    layer, named = body.required_text("layer"), body.required_text("source_set")
    if set_of(layer) != named:
        raise bad(
            f"{layer!r:.60} is not of the set {named!r:.60}. Name a layer of it, such as 5-{named:.60}.", "bad_set"
        )
    text, model = body.required_text("text"), body.required_text("model")
    return ReadAsk(model, (text,), layer, limit=body.whole("k", 1, MOST_RESULTS) or TOP_K)


@operation(features_by_token)
async def activations_topk_by_token(who: Principal, wanted: ReadAsk) -> Callable[[], dict[str, Any]]:
    (text,) = await reading.top(who, wanted)
    return lambda: _of_top(text)


def _of_top(text: dict[str, Any]) -> dict[str, Any]:
    results = [
        {
            "position": place,
            "token": token,
            "top_features": [{"activation_value": value, "feature_index": i} for i, value in top],
        }
        for place, (token, top) in enumerate(zip(activations.strings(text), text["top"], strict=True))
    ]
    return {"results": results}


# ---- neighbours ----


@dataclass(frozen=True)
class NearAsk:
    model: str
    source: str
    index: int
    k: int


def neighbours(body: Fields) -> NearAsk:
    index = body.whole("feature_id", 0)
    if index is None:
        raise body.missing("feature_id")
    k = body.whole("k", 1, MOST_RESULTS)
    if k is None:
        raise body.missing("k")
    return NearAsk(body.required_text("model"), body.required_text("sae_id"), index, k)


@operation(neighbours)
async def top_k_by_decoder_cosine_similarity(who: Principal, wanted: NearAsk) -> dict[str, Any]:
    """The nearest first, which is the feature itself."""
    model = await in_thread(served_model)(who, wanted.model)
    source = source_of(model, wanted.source)
    ref = feature_of(model, source.id, wanted.index)
    most = min(wanted.k, source.width or wanted.k)
    near = (await ask(who, NearestFeatures(new_id(), ref.source, ref.index, limit=most, model=model.id)))["found"]
    found = [{"cosine_similarity": cosine, "index": i} for i, cosine in near]
    return {"feature_id": wanted.index, "top_k_features": found}


def camel(fields: dict[str, Any]) -> dict[str, Any]:
    return {_camel(name): value for name, value in fields.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
