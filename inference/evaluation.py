"""The jobs that measure what steering does to probabilities: of given continuations, and of neutral text.

Generators, as all jobs: each `next()` reads a few tokens. Prompts that are read alike are read once, whatever follows
them; items with different interventions are rows of the same passes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from inference import sampling
from inference.batch import Row
from inference.compiling import Find, edits_of
from inference.errors import InvalidRequest
from inference.forced import Forced, Given, batches, groups
from inference.interventions import Edit
from inference.models.loader import LoadedModel
from inference.prepare import MAX_CHARACTERS_PER_TOKEN
from inference.tokens import token_ids
from inference.types import (
    Divergence,
    Intervention,
    Progress,
    Result,
    SamplingParams,
    Score,
    ScoreItem,
)

MAX_ITEMS = 4096
MAX_CONTINUATIONS = 64  # of one item
MAX_TOKENS = 1_000_000  # of one job: prompts that are read alike count once
ITEMS_PER_TURN = 8  # tokenised


@dataclass(eq=False)
class Scored:
    """One continuation: whose it is, its tokens, and what they got."""

    item: int
    text: Given
    each: list[float] = field(default_factory=list)


def score(model: LoadedModel, job: Score, find: Find) -> Iterator[Progress | Result]:
    """Log-probabilities of continuations; see `Score`. Raises InvalidRequest naming the item at fault."""
    _check_items(model, job.items)
    seq = count()
    asked: dict[Row, list[Scored]] = {}  # of each item
    for place, item in enumerate(job.items):
        if place % ITEMS_PER_TURN == 0:
            yield Progress(job.id, next(seq), 0, len(job.items), "Reading the items")
        row, endings = _prepare(model, item, place, find)
        asked[row] = [Scored(place, Given(row, tokens)) for tokens in endings]
    every = [s for scored in asked.values() for s in scored]
    total = prompt_tokens(list(asked)) + sum(s.text.read for s in every)
    meter = Meter(job.id, seq, total, f"{len(every)} continuations")

    forced = Forced(model)
    for group in groups(list(asked), model.device.type):
        forced.begin(group)
        while not forced.read():
            yield meter.tell(0)
        by_text = {s.text: s for row in group for s in asked[row]}
        for s in by_text.values():
            s.each += _logprobs(forced.logits(s.text.row)[None], s.text.tokens[:1], s.item)
        yield meter.tell(prompt_tokens(group))
        longer = [text for text in by_text if text.read]
        for texts in batches(longer, model.device.type, model.context_length):
            for start, logits in forced.follow(texts):
                yield meter.tell(_next_tokens([by_text[t] for t in texts], start, logits))
    yield Result(job.id, next(seq), {"items": _by_item(job.items, every)})


def diverge(model: LoadedModel, job: Divergence, find: Find) -> Iterator[Progress | Result]:
    """What steering does to neutral texts; see `Divergence`. Raises InvalidRequest naming the text at fault."""
    _check_texts(model, job.texts)
    _check_conditions(job.interventions)
    seq = count()
    texts: list[Given] = []  # of every text its base reading, then its steered one
    for place, text in enumerate(job.texts):
        if place % ITEMS_PER_TURN == 0:
            yield Progress(job.id, next(seq), 0, len(job.texts), "Reading the texts")
        ids = _text_ids(model, text, place)
        for interventions in ((), job.interventions):
            edits = edits_of(interventions, model, find)  # each row has its own: they remember what was decided
            texts.append(Given(_row(model, ids[:1], edits), ids[1:]))
    meter = Meter(job.id, seq, sum(len(t.tokens) for t in texts), f"{len(job.texts)} texts")

    sums = {steered: torch.zeros(4, dtype=torch.float64) for steered in texts[1::2]}
    forced = Forced(model)
    for together in batches(texts, model.device.type, model.context_length, each=2):
        forced.begin([t.row for t in together])
        while not forced.read():
            yield meter.tell(0)
        first = torch.stack([forced.logits(t.row) for t in together])[:, None]
        _compare_all(sums, together, 0, first)
        yield meter.tell(len(together))
        for start, logits in forced.follow(together):
            yield meter.tell(_compare_all(sums, together, start + 1, logits))
    yield Result(job.id, next(seq), {"texts": [_summary(sums[t], len(t.tokens), i) for i, t in enumerate(texts[1::2])]})


# ---- requests to rows ----


def _prepare(model: LoadedModel, item: ScoreItem, place: int, find: Find) -> tuple[Row, list[list[int]]]:
    """The item's prompt as a row, and the tokens of its continuations."""
    try:
        edits = edits_of(item.interventions, model, find)
        prompt, text = _prompt(model, item)
        tokens = [continuation_ids(model, prompt, text, item.messages is None, each) for each in item.continuations]
    except InvalidRequest as error:
        raise InvalidRequest(error.code, f"Item {place + 1}: {error.message}") from error
    longest = len(prompt) + max(map(len, tokens))
    if longest > model.context_length:
        raise InvalidRequest(
            "prompt_too_long",
            f"Item {place + 1} has {longest:,} tokens with its longest continuation; this model holds "
            f"{model.context_length:,}. Shorten it.",
        )
    return _row(model, prompt, edits), tokens


def _row(model: LoadedModel, ids: list[int], edits: list[Edit]) -> Row:
    return Row(ids, sampling.row_state(SamplingParams(), ids, 0, model.vocab_size), edits)


def _prompt(model: LoadedModel, item: ScoreItem) -> tuple[list[int], str]:
    """The prompt's ids, and its text as the tokenizer is to see it again in front of a continuation."""
    if item.messages is not None:
        return model.encode_chat(item.messages), model.chat_text(item.messages)
    assert item.prompt is not None
    return model.encode_prompt(item.prompt), item.prompt


def continuation_ids(model: LoadedModel, prompt: list[int], text: str, special: bool, continuation: str) -> list[int]:
    """The continuation's tokens: those it has behind the prompt, or, where it would change the prompt's, its own."""
    joint = token_ids(model.tokenizer, text + continuation, special=special)
    if joint[: len(prompt)] == prompt and len(joint) > len(prompt):
        return joint[len(prompt) :]
    own = token_ids(model.tokenizer, continuation, special=False)
    if not own or _decoded(model, prompt + own) != _decoded(model, prompt) + continuation:
        raise InvalidRequest(
            "continuation_merges",
            f"{continuation!r:.60} cannot be told from the end of the prompt in this model's tokens. Move the space "
            "or the word at the border to the other side.",
        )
    return own


def _decoded(model: LoadedModel, ids: list[int]) -> str:
    return str(model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _text_ids(model: LoadedModel, text: str, place: int) -> list[int]:
    ids = model.encode_prompt(text)
    if len(ids) < 2:
        raise InvalidRequest("text_too_short", f"Text {place + 1} has a single token. Write at least a few words.")
    if len(ids) > model.context_length:
        raise InvalidRequest(
            "prompt_too_long",
            f"Text {place + 1} has {len(ids):,} tokens; this model holds {model.context_length:,}. Shorten it.",
        )
    return ids


# ---- limits ----


def _check_items(model: LoadedModel, items: Sequence[ScoreItem]) -> None:
    _check_count("items", len(items))
    for place, item in enumerate(items, 1):
        if (item.messages is None) == (item.prompt is None):
            raise InvalidRequest("one_input", f"Item {place}: give exactly one of messages and prompt.")
        if item.messages is not None and not item.messages:
            raise InvalidRequest("empty_messages", f"Item {place}: messages is empty. Send at least one message.")
        if not item.continuations or not all(item.continuations):
            raise InvalidRequest(
                "empty_continuation", f"Item {place}: give at least one continuation, none of them empty."
            )
        if len(item.continuations) > MAX_CONTINUATIONS:
            raise InvalidRequest(
                "too_many_continuations",
                f"Item {place} has {len(item.continuations):,} continuations; {MAX_CONTINUATIONS} fit one item. "
                "Split it in two.",
            )
        prompt = "".join([item.prompt or "", *(m.content for m in item.messages or ())])
        for continuation in item.continuations:
            _check_text(model, f"Item {place}", prompt + continuation)


def _check_texts(model: LoadedModel, texts: Sequence[str]) -> None:
    _check_count("texts", len(texts))
    for place, text in enumerate(texts, 1):
        _check_text(model, f"Text {place}", text)


def _check_conditions(interventions: Sequence[Intervention]) -> None:
    if any(i.condition is not None and i.condition.decided == "prompt" for i in interventions):
        raise InvalidRequest(
            "condition_without_prompt",
            "Neutral texts have no prompt on which a condition could be decided. Decide it at every token, or measure "
            "the divergence without the condition.",
        )


def _check_text(model: LoadedModel, what: str, text: str) -> None:
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidRequest("broken_text", f"{what} holds half a character. Type or import it again as UTF-8.")
    if len(text) > model.context_length * MAX_CHARACTERS_PER_TOKEN:
        raise InvalidRequest(
            "prompt_too_long",
            f"{what} has {len(text):,} characters; this model holds {model.context_length:,} tokens. Shorten it.",
        )


def _check_count(what: str, n: int) -> None:
    if not 1 <= n <= MAX_ITEMS:
        raise InvalidRequest(f"bad_{what}", f"A job takes 1 to {MAX_ITEMS:,} {what}, not {n:,}. Split it into several.")


# ---- numbers ----


def _next_tokens(scored: Sequence[Scored], start: int, logits: Tensor) -> int:
    """Take what a slice foretells; how many tokens were read."""
    read = 0
    for i, s in enumerate(scored):
        ahead = s.text.tokens[start + 1 : start + 1 + logits.shape[1]]
        s.each += _logprobs(logits[i, : len(ahead)], ahead, s.item)
        read += len(ahead)
    return read


def _logprobs(logits: Tensor, tokens: Sequence[int], item: int) -> list[float]:
    """Of each token in nats, the logits before it being float[tokens, vocab]."""
    if not tokens:
        return []
    chosen, *_ = sampling.logprobs(logits, torch.tensor(tokens, device=logits.device), 0)
    if min(chosen) <= sampling.LOWEST_LOGPROB:
        raise _overflow(f"Item {item + 1}")
    return chosen


def _compare_all(sums: dict[Given, Tensor], texts: Sequence[Given], first: int, logits: Tensor) -> int:
    """Add what logits [texts, t, vocab] say of the tokens from `first` on; how many those are, of both readings."""
    read = 0
    for i, steered in enumerate(texts[1::2]):
        ahead = steered.tokens[first : first + logits.shape[1]]
        base, other = logits[2 * i : 2 * i + 2, : len(ahead)]
        sums[steered] += _compare(base, other, ahead)
        read += 2 * len(ahead)
    return read


def _compare(base: Tensor, steered: Tensor, tokens: Sequence[int]) -> Tensor:
    """float64[4]: sums over tokens of KL(steered || base), agreement of the likeliest, and both negative logs."""
    ids = torch.tensor(tokens, device=base.device)[:, None]
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    b, s = base.to(wide).log_softmax(-1), steered.to(wide).log_softmax(-1)
    kl = (s.exp() * (s - b)).sum(-1)
    same = s.argmax(-1) == b.argmax(-1)
    parts = kl, same, -b.gather(-1, ids)[:, 0], -s.gather(-1, ids)[:, 0]
    return torch.stack([part.sum(dtype=torch.float64) for part in parts]).cpu()


def _summary(sums: Tensor, tokens: int, place: int) -> dict[str, float]:
    if not sums.isfinite().all():
        raise _overflow(f"Text {place + 1}")
    kl, top1, nll_base, nll_steered = (sums / tokens).tolist()
    return {"kl": max(kl, 0.0), "top1": top1, "nll_base": nll_base, "nll_steered": nll_steered, "tokens": tokens}


def _overflow(what: str) -> InvalidRequest:
    return InvalidRequest(
        "numbers_overflowed", f"{what}: the model's numbers overflowed under this steering. Lower the strength."
    )


def _by_item(items: Sequence[ScoreItem], every: Sequence[Scored]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"logprobs": [], "tokens": [], "each": []} for _ in items]
    for s in every:
        found[s.item]["logprobs"].append(sum(s.each))
        found[s.item]["tokens"].append(len(s.each))
        found[s.item]["each"].append(s.each)
    return found


def prompt_tokens(rows: Sequence[Row]) -> int:
    """Tokens to be read of the prompts; what is read alike counts once."""
    return sum({row.reading: row.prompt_length for row in rows}.values())


class Meter:
    """Progress in tokens, with the time left at the speed so far."""

    def __init__(self, id: str, seq: Iterator[int], total: int, what: str):
        """Raises InvalidRequest for more tokens than a job may have."""
        if total > MAX_TOKENS:
            raise InvalidRequest(
                "too_many_tokens",
                f"The job has {total:,} tokens to read and may have {MAX_TOKENS:,}. Split it into several.",
            )
        self._id, self._seq, self._total, self._what = id, seq, total, what
        self._done, self._started = 0, time.monotonic()

    def tell(self, read: int) -> Progress:
        self._done += read
        elapsed = time.monotonic() - self._started
        eta = round(elapsed / self._done * (self._total - self._done), 1) if self._done else None
        note = f"Read {self._done:,} of {self._total:,} tokens of {self._what}"
        return Progress(self._id, next(self._seq), self._done, self._total, note, eta)
