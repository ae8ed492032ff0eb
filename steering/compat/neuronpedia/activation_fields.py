"""The bodies of /activation/*, read. What has the wrong type is an ApiError, what contradicts itself a Refusal."""

from __future__ import annotations

from dataclasses import dataclass

from steering.api.openai.body import Fields
from steering.compat.neuronpedia.wire import bad, numbers_of, required, texts_of, wholes_of

MOST_PROMPTS = 32  # of one batch
MOST_RESULTS = 1000
TOP_K, NUM_RESULTS = 5, 25  # unless asked otherwise
ONE_OF = (
    "Invalid request data: exactly one of source/index or vector/hook must be provided. Send source with index, or "
    "vector with hook."
)


@dataclass(frozen=True)
class ReadAsk:
    """What all six have; each reads what it needs."""

    model: str
    prompts: tuple[str, ...]
    source: str = ""
    index: int = 0
    vector: tuple[float, ...] | None = None
    hook: str = ""
    source_set: str = ""
    selected: tuple[str, ...] = ()
    sort_by: tuple[int, ...] = ()
    ignore_bos: bool = False
    limit: int = NUM_RESULTS
    only: tuple[int, ...] = ()


def single(body: Fields) -> ReadAsk:
    return _single(body, (body.required_text("prompt"),))


def single_batch(body: Fields) -> ReadAsk:
    return _single(body, prompts(body))


def everything(body: Fields) -> ReadAsk:
    return _everything(body, (body.required_text("prompt"),))


def everything_batch(body: Fields) -> ReadAsk:
    return _everything(body, prompts(body))


def top(body: Fields) -> ReadAsk:
    return _top(body, (body.required_text("prompt"),))


def top_batch(body: Fields) -> ReadAsk:
    return _top(body, prompts(body))


def source(body: Fields) -> ReadAsk:
    return ReadAsk(body.required_text("model"), prompts(body), body.required_text("source"), ignore_bos=True)


def prompts(body: Fields) -> tuple[str, ...]:
    """Raises Refusal(400) for none, or for too many."""
    found = texts_of(body, "prompts")
    if not found:
        raise bad("At least one prompt is required.", "no_prompt")
    if len(found) > MOST_PROMPTS:
        raise bad(
            f"Batch size {len(found)} exceeds maximum of {MOST_PROMPTS}. Send several requests.", "batch_too_large"
        )
    return found


def _single(body: Fields, texts: tuple[str, ...]) -> ReadAsk:
    model = body.required_text("model")
    by_feature, by_vector = [[body.has(n) for n in pair] for pair in (("source", "index"), ("vector", "hook"))]
    if sorted([by_feature, by_vector]) != [[False, False], [True, True]]:
        raise bad(ONE_OF, "one_input")
    if all(by_vector):
        return ReadAsk(model, texts, vector=numbers_of(body, "vector"), hook=body.required_text("hook"))
    return ReadAsk(model, texts, body.required_text("source"), index=index_of(body))


def index_of(body: Fields) -> int:
    """The client sends it as text. Raises ApiError, Refusal(400)."""
    value = body.any("index")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = body.required_text("index").strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise bad(f"index must be the number of a feature, from 0, and not {text!r:.60}.", "bad_index")
    return int(text)


def _everything(body: Fields, texts: tuple[str, ...]) -> ReadAsk:
    required(body, "model", "source_set", "selected_sources", "sort_by_token_indexes", "ignore_bos")
    only = wholes_of(body, "feature_filter")
    if any(index < 0 for index in only):
        raise bad("feature_filter has an index below 0; features count from 0.", "bad_index")
    return ReadAsk(
        body.required_text("model"),
        texts,
        source_set=body.required_text("source_set"),
        selected=texts_of(body, "selected_sources"),
        sort_by=wholes_of(body, "sort_by_token_indexes"),
        ignore_bos=bool(body.flag("ignore_bos")),
        limit=body.whole("num_results", 1, MOST_RESULTS) or NUM_RESULTS,
        only=only,
    )


def _top(body: Fields, texts: tuple[str, ...]) -> ReadAsk:
    required(body, "model", "source", "ignore_bos")
    return ReadAsk(
        body.required_text("model"),
        texts,
        body.required_text("source"),
        ignore_bos=bool(body.flag("ignore_bos")),
        limit=body.whole("top_k", 1, MOST_RESULTS) or TOP_K,
    )
