"""What only the tokenizer can say about pairs, asked of the model side and remembered."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.core.cache import cache

from inference.errors import InferenceError
from inference.types import CheckPairs, ModelInfo, Pair
from steering import gateway
from steering.datasets.models import digest_of

MOST_PAIRS = 2000
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class TokenCheck:
    """`state` is checked, waiting (ask again soon) or unavailable. `rows` count from 1."""

    state: str
    title: str
    advice: str = ""
    rows: tuple[int, ...] = ()


def check_tokens(pairs: Sequence[Pair]) -> TokenCheck:
    """Which answers tokenise into the last token of their prompt. Never raises: trouble is a state of the answer."""
    info = gateway.model_info()
    if info.state == "loading":
        return TokenCheck("waiting", "Token boundaries are not checked: the model is still loading")
    if info.state == "failed":
        return TokenCheck("unavailable", "Token boundaries are not checked: the model is not available", info.problem)
    prompted = [(row, pair) for row, pair in enumerate(pairs, 1) if pair.prompt]
    if not prompted:
        return TokenCheck("checked", "Whole texts have no boundary between prompt and answer")
    try:
        merged = _merged(tuple(pair for _, pair in prompted[:MOST_PAIRS]), info)
    except InferenceError as error:
        return TokenCheck("unavailable", "Token boundaries are not checked", error.message)
    return _verdict(tuple(prompted[i][0] for i in merged), len(prompted), info)


def _verdict(rows: tuple[int, ...], count: int, info: ModelInfo) -> TokenCheck:
    part = f" The first {MOST_PAIRS:,} of {count:,} pairs were checked." if count > MOST_PAIRS else ""
    if not rows:
        return TokenCheck("checked", "Every answer begins with a token of its own", f"As {info.id} reads them.{part}")
    title = f"In {len(rows)} pair{'s' * (len(rows) > 1)} an answer runs into the prompt’s last token"
    advice = f"End the prompt with a full stop or a line break, or begin the answer with a space.{part}"
    return TokenCheck("checked", title, advice, rows)


def _merged(pairs: tuple[Pair, ...], info: ModelInfo) -> tuple[int, ...]:
    key = f"merged:{digest_of(pairs)}:{info.id}:{info.revision}".replace(" ", "_")
    known = cache.get(key)
    if known is None:
        asked = gateway.result_of(CheckPairs(id=f"check-{uuid.uuid4()}", pairs=pairs))
        known = tuple(gateway.call(asked, PATIENCE_SECONDS)["merged"])
        cache.set(key, known, 24 * 3600)
    return tuple(known)  # a cache that is shared keeps lists
