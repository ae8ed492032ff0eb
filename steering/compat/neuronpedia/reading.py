"""What the operations of /activation/* read, as payloads of `ReadActivations`: one of each text, in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.types import ModelInfo, ReadActivations
from steering.access.principal import Principal
from steering.compat.neuronpedia.activation_fields import ReadAsk
from steering.compat.neuronpedia.asking import ask, new_id, token_limit
from steering.compat.neuronpedia.sources import feature_of, served_model, source_of, sources_in
from steering.compat.neuronpedia.wire import bad
from steering.threads import in_thread

Text = dict[str, Any]


async def values(who: Principal, wanted: ReadAsk, *, ignore_bos: bool = True) -> list[Text]:
    """Of one feature, or of a vector at a hook; `ignore_bos` reads a feature as 0 at every BOS."""
    model = await in_thread(served_model)(who, wanted.model)
    if wanted.vector is not None:
        vector = np.array(wanted.vector, np.float32)
        return await _read(who, wanted, _request(model, wanted, vector=vector, hook=wanted.hook))
    found = feature_of(model, wanted.source, wanted.index)
    request = _request(
        model, wanted, sources=(found.source,), features=(found.index,), ignore_bos=ignore_bos, attention=True
    )
    return await _read(who, wanted, request)


async def strongest(who: Principal, wanted: ReadAsk) -> tuple[list[Text], list[str]]:
    """The features that rank first, and the ids of all sources of the set."""
    model = await in_thread(served_model)(who, wanted.model)
    there = [source.id for source in sources_in(model, wanted.source_set)]
    chosen = tuple(dict.fromkeys(wanted.selected or there))
    for id in chosen:
        if id not in there:
            source_of(model, id)  # what is not here at all is told as that
            raise bad(
                f"{id!r:.80} is not of the set {wanted.source_set!r:.80}. Its sources are: {', '.join(there)}.",
                "not_of_the_set",
            )
    request = _request(
        model,
        wanted,
        want="strongest",
        sources=chosen,
        features=wanted.only,
        sort_by=wanted.sort_by,
        ignore_bos=wanted.ignore_bos,
        limit=wanted.limit,
        attention=True,
    )
    return await _read(who, wanted, request), there


async def top(who: Principal, wanted: ReadAsk) -> list[Text]:
    """The largest features at each token."""
    return await _of_source(who, wanted, "top")


async def active(who: Principal, wanted: ReadAsk) -> list[Text]:
    """All features that are not 0."""
    return await _of_source(who, wanted, "active")


async def _of_source(who: Principal, wanted: ReadAsk, want: str) -> list[Text]:
    model = await in_thread(served_model)(who, wanted.model)
    source = source_of(model, wanted.source)
    request = _request(model, wanted, want=want, sources=(source.id,), ignore_bos=wanted.ignore_bos, limit=wanted.limit)
    return await _read(who, wanted, request)


def _request(model: ModelInfo, wanted: ReadAsk, **fields: Any) -> ReadActivations:
    return ReadActivations(new_id(), wanted.prompts, most_tokens=token_limit(), model=model.id, **fields)


async def _read(who: Principal, wanted: ReadAsk, request: ReadActivations) -> list[Text]:
    found: list[Text] = (await ask(who, request, wanted.prompts))["texts"]
    return found
