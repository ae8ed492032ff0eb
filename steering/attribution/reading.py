"""Which tokens of two prompts stand for each other, before anything runs: read by the model's own tokenizer."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import aclosing
from difflib import SequenceMatcher
from typing import Any

from inference.attribution.align import align
from inference.errors import InferenceError, InvalidRequest, from_wire
from inference.types import Failed, GenerationRequest, Message, PromptRead, SamplingParams
from steering import gateway

PATIENCE_SECONDS = 20.0
Piece = tuple[int, str]  # a token's id and text
Pairs = tuple[tuple[int, int], ...]


def paired(clean: Sequence[Piece], corrupted: Sequence[Piece]) -> tuple[Pairs, str]:
    """Pairs of places as the engine would make them, and by what. Where that is not clear, "nothing": then only what
    both have in common, and the last tokens, are paired, and the rest is for a person."""
    ids = [id for id, _ in clean], [id for id, _ in corrupted]
    try:
        found = align(*ids)
        return found.pairs, found.by
    except InvalidRequest:
        pass
    blocks = SequenceMatcher(None, *ids, autojunk=False).get_matching_blocks()
    last = len(clean) - 1, len(corrupted) - 1
    pairs = [(block.a + n, block.b + n) for block in blocks for n in range(block.size)]
    return (*(pair for pair in pairs if pair[0] < last[0] and pair[1] < last[1]), last), "nothing"


def read(clean: str, corrupted: str, *, chat: bool, targets: Sequence[str] = (), model: str = "") -> dict[str, Any]:
    """What a page shows before anything runs. `by` is "place" for prompts of one length, "difference" for what they
    have in common, "nothing" where that is not clear: then a person pairs what stands between.

    Raises InferenceError, such as for a prompt that is too long or a model that is still loading.
    """
    return gateway.call(_read(clean, corrupted, chat, targets, model), PATIENCE_SECONDS)


async def _read(clean: str, corrupted: str, chat: bool, targets: Sequence[str], model: str) -> dict[str, Any]:
    one, other = await tokens_of(clean, chat, model), await tokens_of(corrupted, chat, model)
    pairs, by = paired(one, other)
    counted = [{"text": text, "tokens": _own(await tokens_of(text, False, model))} for text in targets if text]
    return {"clean": _shown(one), "corrupted": _shown(other), "pairs": pairs, "by": by, "targets": counted}


def _shown(tokens: Sequence[Piece]) -> list[dict[str, Any]]:
    return [{"id": id, "text": text} for id, text in tokens]


def _own(tokens: Sequence[Piece]) -> int:
    """How many there are without the one that the tokenizer puts before every text."""
    return len(tokens) - (len(tokens) > 1 and not tokens[0][1])


async def tokens_of(text: str, chat: bool, model: str) -> tuple[Piece, ...]:
    """The tokens that the model reads. Raises InferenceError."""
    if not text:
        raise InvalidRequest("empty_prompt", "A prompt is empty. Write something for the model to go on from.")
    given = {"messages": (Message("user", text),)} if chat else {"prompt": text}
    sampling = SamplingParams(max_tokens=0, prompt_logprobs=True, logprobs=True)
    request = GenerationRequest(f"tokens-{uuid.uuid4()}", model=model, sampling=sampling, **given)
    found: list[Piece] = []
    async with aclosing((await gateway.opened()).generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise from_wire(event.to_wire())
            if isinstance(event, PromptRead):
                found += [(token.token_id, token.token) for token in event.tokens]
    return tuple(found)


def check_pairs(pairs: Sequence[Sequence[int]], most: int) -> Pairs:
    """Pairs as a page or a program sends them. Raises InvalidRequest("alignment")."""
    made: list[tuple[int, int]] = []
    for pair in pairs:
        whole = len(pair) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
        if not whole or not all(0 <= n < most for n in pair):
            raise _bad("A pair of the alignment is two places of tokens, counted from 0.")
        if made and (pair[0] <= made[-1][0] or pair[1] <= made[-1][1]):
            raise _bad("Pairs of the alignment must be in order, and no token may be in two of them.")
        made.append((pair[0], pair[1]))
    return tuple(made)


def _bad(sentence: str) -> InferenceError:
    return InvalidRequest("alignment", f"{sentence} Read the tokens again and mend the pairs.")
