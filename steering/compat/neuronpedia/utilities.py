"""/tokenize and /util/*: tokens, neighbours of a feature, and its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from inference.types import NearestFeatures, ReadVector, Tokenize
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.compat.neuronpedia.activation_fields import MOST_RESULTS
from steering.compat.neuronpedia.asking import ask, new_id, token_limit
from steering.compat.neuronpedia.sources import feature_of, is_named, served_model, source_of
from steering.compat.neuronpedia.wire import bad, numbers_of, operation, required
from steering.threads import in_thread

ONE_OF = "Invalid request data: exactly one of feature or vector must be provided."
KINDS = ("encoder", "decoder")


@dataclass(frozen=True)
class TokenizeAsk:
    model: str
    text: str
    bos: bool


def tokenize_fields(body: Fields) -> TokenizeAsk:
    bos = body.flag("prepend_bos")
    return TokenizeAsk(body.required_text("model"), body.required_text("text"), True if bos is None else bos)


@operation(tokenize_fields)
async def tokenize(who: Principal, wanted: TokenizeAsk) -> dict[str, Any]:
    model = await in_thread(served_model)(who, wanted.model)
    payload = await ask(who, Tokenize(new_id(), wanted.text, wanted.bos, token_limit(), model.id))
    ids, strings = ([token[part] for token in payload["tokens"]] for part in (0, 1))
    return {
        "tokens": ids,
        "token_strings": strings,
        "prepend_bos": wanted.bos and payload["bos"],
        "tokens_is_special": payload["special"],
    }


@dataclass(frozen=True)
class NearestAsk:
    model: str
    source: str
    limit: int
    feature: tuple[str, str, int] | None  # model, source, index
    vector: tuple[float, ...] | None


def nearest_fields(body: Fields) -> NearestAsk:
    required(body, "model", "source", "num_results")
    if body.has("feature") == body.has("vector"):
        raise bad(f"{ONE_OF} Send one of them.", "one_input")
    feature = body.fields("feature")
    named = None
    if feature is not None:
        required(feature, "model", "source", "index")
        named = (feature.required_text("model"), feature.required_text("source"), feature.whole("index") or 0)
    return NearestAsk(
        body.required_text("model"),
        body.required_text("source"),
        body.whole("num_results", 1, MOST_RESULTS) or 1,
        named,
        numbers_of(body, "vector") if body.has("vector") else None,
    )


@operation(nearest_fields)
async def nearest(who: Principal, wanted: NearestAsk) -> dict[str, Any]:
    model = await in_thread(served_model)(who, wanted.model)
    source = source_of(model, wanted.source)
    index, vector, echo = None, None, None
    if wanted.feature is not None:
        of_model, of_source, index = wanted.feature
        if not is_named(model, of_model):
            raise bad(f"The feature is of {of_model!r:.80}, and the model is {model.id}. Name one model.", "two_models")
        found = feature_of(model, of_source, index)
        if found.source != source.id:  # its row among those of another source
            row = await ask(who, ReadVector(new_id(), found.source, index, model.id))
            vector, index = np.array(row["decoder"], np.float32), None
        echo = {"model": of_model, "source": of_source, "index": found.index}
    elif wanted.vector is not None:
        vector = np.array(wanted.vector, np.float32)
    request = NearestFeatures(
        new_id(), source.id, index, vector, min(wanted.limit, source.width or wanted.limit), model.id
    )
    near = (await ask(who, request))["found"]
    neighbours = [
        {"feature": {"model": wanted.model, "source": source.id, "index": i}, "cosine_similarity": cosine}
        for i, cosine in near
    ]
    return {"topk_decoder_cossim_features": neighbours, **({"feature": echo} if echo else {})}


@dataclass(frozen=True)
class VectorAsk:
    model: str
    source: str
    index: int
    kind: str


def vector_fields(body: Fields) -> VectorAsk:
    required(body, "model", "source", "index")
    kind = body.choice("vector_type", KINDS) or "encoder"
    return VectorAsk(body.required_text("model"), body.required_text("source"), body.whole("index") or 0, kind)


@operation(vector_fields)
async def vector(who: Principal, wanted: VectorAsk) -> dict[str, Any]:
    """The encoder's column, by which the feature is read; with `vector_type` "decoder" the row that steering adds."""
    model = await in_thread(served_model)(who, wanted.model)
    found = feature_of(model, wanted.source, wanted.index)
    payload = await ask(who, ReadVector(new_id(), found.source, found.index, model.id))
    if payload[wanted.kind] is None:
        raise bad(
            f"{found.source} has no encoder's column of its own for each feature. Ask for vector_type decoder.",
            "no_encoder",
        )
    hook = payload["hook_out" if wanted.kind == "decoder" else "hook"]
    return {"vector": payload[wanted.kind], "hookName": hook}
