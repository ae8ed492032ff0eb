"""Prompts that show a behaviour by examples before they ask: for few-shot directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.errors import InvalidRequest
from inference.types import Message, Pair
from inference.vectors.spans import sides, templated

BETWEEN = "\n\n"


def shown(tokenizer: Any, pairs: Sequence[Pair], row: int, side: int, count: int, *, chat: bool) -> str:
    """The prompt of pair `row`, from 0, behind the `count` pairs that follow it, round, each with its answer.

    `side` 0 answers them by their positive, 1 by their negative sides. Raises InvalidRequest.
    """
    examples = [pairs[(row + i) % len(pairs)] for i in range(1, count + 1)]
    prompt = pairs[row].prompt
    if not all(pair.prompt for pair in (pairs[row], *examples)):
        raise InvalidRequest(
            "needs_prompts",
            "Few-shot directions ask a question after examples of it, and a pair here has no prompt. "
            "Write one for every pair, or build by the mean difference.",
        )
    if not chat:
        return BETWEEN.join([*(p.prompt + sides(p)[side] for p in examples), prompt])
    messages = [m for p in examples for m in (Message("user", p.prompt), Message("assistant", sides(p)[side]))]
    return templated(tokenizer, [*messages, Message("user", prompt)])
