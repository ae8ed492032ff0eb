"""Texts as tokens with one rule for BOS, and the job that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerFast

from inference.errors import InvalidRequest
from inference.text import prompt_pieces
from inference.types import Message, Progress, Result, Tokenize

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

SHORT = 2_000  # characters, which take less time to read than a thread to wake
CHARACTERS = 16  # a text longer than this times the limit is refused before it is tokenised


def tokenize(model: LoadedModel, job: Tokenize) -> Iterator[Progress | Result]:
    """See `Tokenize`."""
    if job.messages:
        text = model.chat_text(job.messages)
        ids = encode(model, text, bos=False, most=job.most_tokens)
        chat = {"text": text, "ends": sorted(turn_ends(model))}
    else:
        ids, chat = encode(model, job.text, bos=job.bos, most=job.most_tokens), {}
    first = bool(ids) and ids[0] == model.tokenizer.bos_token_id
    yield Result(job.id, 0, {**shown(model, ids), "bos": first, **chat})


def turn_ends(model: LoadedModel) -> frozenset[int]:
    """The special token that the chat template writes behind an answer, where that is not an EOS; maybe none."""
    said = "Aye"
    try:
        text = model.chat_text([Message("user", said), Message("assistant", said), Message("user", said)])
    except InvalidRequest:
        return frozenset()
    answer = text.find(said, text.find(said) + 1) + len(said)
    ids, at = encode(model, text, bos=False), 0
    for id, piece in zip(ids, prompt_pieces(model.tokenizer, ids), strict=True):
        if at >= answer and id in model.special_ids:
            return frozenset({id} - model.eos_ids)
        at += len(piece)
    return frozenset()


def token_ids(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """The ids of a text, as `tokenizer(text)` gives them; `special`: with the tokens that it puts around a text.

    A short one is read here and now. The tokenizer hands every text to threads of its own, and to wake them takes
    longer than to read it, the more so under an engine that keeps all processors busy.
    """
    if len(text) > SHORT or not _is_plain(tokenizer):
        given: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
        return given
    ids: list[int] = tokenizer.backend_tokenizer.encode(text, add_special_tokens=special).ids
    return ids


def _is_plain(tokenizer: Any) -> bool:
    """Whether it gives a text to its backend as it is and takes what that gives: Code Llama's does not."""
    if getattr(type(tokenizer), "_encode_plus", None) is not PreTrainedTokenizerFast._encode_plus:
        return False
    backend = tokenizer.backend_tokenizer
    return not (backend.truncation or backend.padding or tokenizer.split_special_tokens)


def encode(model: LoadedModel, text: str, *, bos: bool | None, most: int = 0) -> list[int]:
    """Ids, at most `most` or the context. BOS at the front once, or not at all; None: as the tokenizer has it.

    Raises InvalidRequest("text_too_long").
    """
    limit = min(most or model.context_length, model.context_length)
    if len(text) > limit * CHARACTERS:
        raise _too_long(f"{len(text):,} characters", limit)
    ids = token_ids(model.tokenizer, text, special=bos is None)
    if bos is not None:
        first = model.tokenizer.bos_token_id
        if bos and first is not None and ids[:1] != [first]:
            ids = [first, *ids]
    if len(ids) > limit:
        raise _too_long(f"{len(ids):,} tokens", limit)
    return ids


def shown(model: LoadedModel, ids: Sequence[int]) -> dict[str, Any]:
    """Each token with its own text, leading space and all, and whether it is a special one."""
    return {
        "tokens": [[id, model.vocabulary.text(id)] for id in ids],
        "special": [id in model.special_ids for id in ids],
    }


def _too_long(size: str, limit: int) -> InvalidRequest:
    return InvalidRequest("text_too_long", f"Text too long: {size}, max is {limit} tokens. Shorten it.")
