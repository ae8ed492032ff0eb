"""Which tokens of a prompt are a passage's. Knows the tokenizer; runs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.errors import InvalidRequest
from inference.evaluation import continuation_ids
from inference.types import AttributeAnswer, SourceSpan
from inference.vectors.spans import encode

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_TOKENS = 4096  # of prompt and answer
MOST_ANSWER_TOKENS = 128
MOST_SPANS = 16
MOST_CHARACTERS_PER_TOKEN = 32  # what is longer than this times the limit is not even tokenised


@dataclass(frozen=True)
class Placed:
    """`blocks` are the tokens of `prompt` that go with each span, `texts` those of them that hold any of its text."""

    prompt: list[int]
    answer: list[int]
    blocks: tuple[range, ...]
    texts: tuple[range, ...]

    def without(self, *spans: int) -> list[int]:
        """The prompt's tokens, those of some spans taken out."""
        gone = {place for span in spans for place in self.blocks[span]}
        return [token for place, token in enumerate(self.prompt) if place not in gone]


def place(model: LoadedModel, job: AttributeAnswer) -> Placed:
    """Raises InvalidRequest naming what is at fault and the way out."""
    _check(model, job)
    text, content = _text_of(model, job)
    encoded = encode(model.tokenizer, text, "", special=job.messages is None)
    prompt = list(encoded.ids)
    first = text.find(content)
    if first < 0 or text.find(content, first + 1) >= 0:
        raise InvalidRequest(
            "template_changes_text",
            f"The chat template of {model.id} changes the prompt, so passages cannot be found in it again. Send the "
            "same as a plain prompt.",
        )
    blocks = tuple(_begin_within(encoded.offsets, first + span.start, first + span.stop) for span in job.spans)
    texts = tuple(
        range(next((i for i in block if encoded.offsets[i][1] > first + span.text), block.stop), block.stop)
        for span, block in zip(job.spans, blocks, strict=True)
    )
    for span, block in zip(job.spans, blocks, strict=True):
        if not block:
            raise InvalidRequest(
                "empty_span", f"The passage {span.id!r:.60} begins no token of this model. Leave it out, or join two."
            )
    if blocks and blocks[0].start == 0:
        raise InvalidRequest(
            "span_begins_prompt",
            "A passage begins the prompt, and without it the model would begin with another token. Put an instruction "
            "before the passages.",
        )
    answer = list(job.answer) or continuation_ids(model, prompt, text, job.messages is None, job.text)
    _check_length(model, prompt, answer)
    return Placed(prompt, answer, blocks, texts)


def _begin_within(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> range:
    """Tokens that begin in [start, stop); so a token is never in two spans. Those without characters are in none."""
    found = [i for i, (a, b) in enumerate(offsets) if a < b and start <= a < stop]
    return range(found[0], found[-1] + 1) if found else range(0)


def _text_of(model: LoadedModel, job: AttributeAnswer) -> tuple[str, str]:
    """(the whole prompt's text, the part of it that spans count)."""
    if job.messages is not None:
        return model.chat_text(job.messages), job.messages[-1].content
    assert job.prompt is not None
    return job.prompt, job.prompt


def _check(model: LoadedModel, job: AttributeAnswer) -> None:
    if (job.messages is None) == (job.prompt is None):
        raise InvalidRequest("one_input", "Give exactly one of messages and prompt.")
    if job.messages is not None and (not job.messages or job.messages[-1].role != "user"):
        raise InvalidRequest("bad_messages", "The last message must be the user's, with the passages. Send it last.")
    if bool(job.answer) == bool(job.text):
        raise InvalidRequest(
            "one_answer", "The answer is empty, or given twice. Give it as token ids or as text, at least one token."
        )
    if not all(0 <= token < model.vocab_size for token in job.answer):
        raise InvalidRequest("bad_token_ids", f"The answer's token ids must be 0 to {model.vocab_size - 1}.")
    if not 0.0 <= job.epsilon <= 100.0:
        raise InvalidRequest("out_of_range", f"epsilon is {job.epsilon}; it may be 0 to 100 nats. Change it.")
    content = job.prompt if job.prompt is not None else job.messages[-1].content if job.messages else ""
    size = len(content) + len(job.text)
    if size > MOST_CHARACTERS_PER_TOKEN * min(MOST_TOKENS, model.context_length):
        raise _too_long(model, f"{size:,} characters")
    if not content.isascii() and any("\ud800" <= c <= "\udfff" for c in content):
        raise InvalidRequest("broken_text", "The prompt holds half a character. Type or import it again as UTF-8.")
    _check_spans(job.spans, len(content))


def _check_spans(spans: Sequence[SourceSpan], characters: int) -> None:
    if not 1 <= len(spans) <= MOST_SPANS:
        raise InvalidRequest(
            "bad_spans", f"An answer is attributed to 1 to {MOST_SPANS} passages, not {len(spans)}. Take fewer."
        )
    end = 0
    for span in spans:
        if not (end <= span.start <= span.text < span.stop <= characters):
            raise InvalidRequest(
                "bad_spans",
                f"The passage {span.id!r:.60} must lie in the prompt, behind the one before it, with its text inside. "
                "Count characters from 0.",
            )
        end = span.stop


def _check_length(model: LoadedModel, prompt: list[int], answer: list[int]) -> None:
    if len(answer) > MOST_ANSWER_TOKENS:
        raise InvalidRequest(
            "answer_too_long",
            f"The answer has {len(answer)} tokens; at most {MOST_ANSWER_TOKENS} are attributed. Ask for a shorter one.",
        )
    if len(prompt) + len(answer) > min(MOST_TOKENS, model.context_length):
        raise _too_long(model, f"{len(prompt) + len(answer):,} tokens")


def _too_long(model: LoadedModel, size: str) -> InvalidRequest:
    most = min(MOST_TOKENS, model.context_length)
    return InvalidRequest(
        "prompt_too_long",
        f"Prompt and answer have {size}; at most {most:,} tokens are attributed. Take fewer or shorter passages.",
    )
