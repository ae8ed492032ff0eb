"""What the answer's tokens lose when a passage is taken out of the prompt: in the serving model, as it is steered."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from inference import sampling
from inference.attribution.answers.placing import Placed
from inference.batch import Row
from inference.compiling import Find, edits_of
from inference.errors import InvalidRequest
from inference.forced import Forced, Given, batches, groups
from inference.types import AttributeAnswer, Progress, SamplingParams

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Tell = Callable[[int], Progress]  # tokens read since it was last called


@dataclass(eq=False)
class Reading:
    """The answer after one prompt: all of it, or with some spans taken out. `logprobs` are of its tokens, in nats."""

    text: Given
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Removed:
    """`each` is [spans][answer tokens]; `none` has no span at all."""

    full: Reading
    each: list[Reading]
    none: Reading

    @property
    def all(self) -> list[Reading]:
        return [self.full, *self.each, *([self.none] if self.none not in self.each else [])]

    @property
    def tokens(self) -> int:
        """To be read for all of it."""
        return sum(reading.text.longest + 1 for reading in self.all)


def readings(model: LoadedModel, job: AttributeAnswer, placed: Placed, find: Find) -> Removed:
    """What is to be read; conditions are decided by each prompt for itself. Raises InvalidRequest, NotFound."""

    def reading(ids: list[int]) -> Reading:
        state = sampling.row_state(SamplingParams(), ids, 0, model.vocab_size)
        return Reading(Given(Row(ids, state, edits_of(job.interventions, model, find)), placed.answer))

    every = range(len(placed.blocks))
    each = [reading(placed.without(span)) for span in every]
    none = each[0] if len(each) == 1 else reading(placed.without(*every))
    return Removed(reading(placed.prompt), each, none)


def measure(model: LoadedModel, removed: Removed, tell: Tell) -> Generator[Progress, None, None]:
    """Fill in the log-probabilities, a few tokens at a time. Raises InvalidRequest where numbers overflow."""
    by_row = {reading.text.row: reading for reading in removed.all}
    forced = Forced(model)
    for group in groups(list(by_row), model.device.type):
        forced.begin(group)
        while not forced.read():
            yield tell(0)
        some = [by_row[row] for row in group]
        for reading in some:
            _take(reading, 0, forced.logits(reading.text.row)[None])
        yield tell(sum(row.prompt_length for row in group) + len(some))
        by_text = {reading.text: reading for reading in some if reading.text.read}
        for texts in batches(list(by_text), model.device.type, model.context_length):
            for start, logits in forced.follow(texts):
                for text, row in zip(texts, logits, strict=True):
                    _take(by_text[text], start + 1, row)
                yield tell(len(texts) * logits.shape[1])


def _take(reading: Reading, start: int, logits: torch.Tensor) -> None:
    """Log-probabilities of the tokens from `start` on, which `logits` [t, vocabulary] foretell."""
    tokens = reading.text.tokens[start : start + len(logits)]
    if not tokens:
        return
    found, *_ = sampling.logprobs(logits[: len(tokens)], torch.tensor(tokens, device=logits.device), 0)
    if min(found) <= sampling.LOWEST_LOGPROB:
        raise InvalidRequest(
            "numbers_overflowed",
            "The model's numbers overflowed under this steering. Lower the strength, ask again.",
        )
    reading.logprobs += found
