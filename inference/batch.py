"""Rows and their KV cache: join, prefill, step, drop. Knows token ids and tensors; no text, requests or threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from inference import wakes
from inference.cache import KVCache, round_up
from inference.conditions import CompiledCondition, Readout
from inference.constraints.masking import choose
from inference.constraints.row import RowConstraint
from inference.drafts import Drafts, RowDraft, judge
from inference.interventions import Bank, Edit, Step
from inference.masks import attention_masks
from inference.models.kernels import Kernels
from inference.models.loader import LoadedModel
from inference.probes import CompiledWatch
from inference.sampling import RowState, logprobs, record
from inference.scores import ScoreBank
from inference.types import FinishReason

Detail = tuple[float | None, tuple[tuple[int, float], ...]]  # a token's log-probability, and the likeliest with theirs


LINE_BANKS = 16  # patterns of guesses for which the edits stay stacked

# Where the tokens begin that were read, and of each token what each of the row's watches read; None: left out.
Scores = tuple[int, list[list[float | None]]]


@dataclass(eq=False)
class Row:
    """One completion in the making. `tokens` is the prompt, then what has been chosen so far."""

    tokens: list[int]
    state: RowState
    edits: list[Edit] = field(default_factory=list)
    watches: list[CompiledWatch] = field(default_factory=list)
    constraint: RowConstraint | None = None
    draft: RowDraft | None = None
    group: Group | None = None  # rows that write one answer together

    def __post_init__(self) -> None:
        self.edits = [*self.edits, *(e for watch in self.watches for e in watch.edits)]
        self.scores: list[Scores] = []  # to be taken by the reader
        self.ahead: deque[Later] = deque()  # what it chose in its last pass and has not been taken yet
        self.group_watches: list[CompiledWatch] = []  # those of all who share the prompt, while it is read
        self.prompt_logits: Tensor | None = None  # kept where the whole answer may be taken back
        self.prompt_length = len(self.tokens)
        for edit in self.edits:
            edit.answer_at = self.prompt_length
        self.readouts: dict[tuple[int, str], Readout] = {}  # what conditions want of the prompt, by layer and pooling
        self.read: list[Detail] = [(None, ())] if self.state.params.prompt_logprobs else []  # to be taken by the reader

    @property
    def longest(self) -> int:
        """Positions that the row may come to hold in the cache."""
        return self.prompt_length + self.state.params.max_tokens

    @property
    def may_be_rewound(self) -> bool:
        return any(w.source.action == "regenerate" for w in self.watches)

    @property
    def prompt_edits(self) -> list[Edit]:
        return [e for e in self.edits if e.on_prompt]

    @cached_property
    def reading(self) -> Hashable:
        """What decides the numbers that reading the prompt gives: rows equal in this share the work."""
        if self.state.params.prompt_logprobs:
            return id(self)
        return tuple(self.tokens[: self.prompt_length]), tuple(e.key for e in self.prompt_edits)

    @property
    def prompt_conditions(self) -> list[CompiledCondition]:
        return [e.condition for e in self.edits if e.condition is not None and e.condition.on_prompt]

    def decide(self) -> None:
        """The prompt has been read: open or close the gates that wait for it."""
        for condition in self.prompt_conditions:
            condition.decide(self.readouts[condition.source.layer, condition.source.pooling].pooled())


@dataclass(frozen=True)
class Choice:
    """The token that one row has just chosen; log-probabilities in nats where they were asked for.

    `end`: the row ends with this token, whatever it is.
    """

    row: Row
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    end: FinishReason | None = None


class Group(Protocol):
    """Rows that join, write and leave together; the first leads, and what is told is told of it."""

    @property
    def rows(self) -> list[Row]: ...

    @property
    def width(self) -> int:
        """How many rows it counts for."""

    def read(self, token_budget: int) -> bool:
        """Read a chunk of what it has to read elsewhere; whether nothing is left."""

    def choose(self, batch: Batch, logits: Tensor) -> list[Choice]:
        """Give each row its next token, from `logits` [rows, vocab] in their order. Choices of the leading row."""

    def told(self) -> dict[str, Any]:
        """What the receipt is to say of the group, by the names of its fields."""


@dataclass(frozen=True)
class Later:
    """A token that was chosen in the same pass as the one before it, and what was read of that one and done to it."""

    choice: Choice
    guessed: bool
    scores: Scores | None
    done: list[tuple[Edit, list[float]]]
    constraint: RowConstraint | None = None  # that it was chosen under, where the row has one


@dataclass(frozen=True)
class Ahead:
    """A pass that read guesses: which lines are of which row, and what was read and done at each."""

    guesses: dict[Row, list[int]]
    lines: dict[Row, list[int]]  # of each row with guesses: the line of its own token, then one for each guess
    places: list[int]
    bank: Bank | None
    done: Tensor | None  # [sites, k, lines, TALLIES]
    told: list[list[list[float | None]]]

    def later(self, choice: Choice, line: int, constraint: RowConstraint | None, *, guessed: bool) -> Later:
        """What was chosen behind the guess of `line`, which stood."""
        row, done = choice.row, []
        scores = _scores(
            row, self.places[line], self.places[line] + 1, self.told, line, self.bank.scores if self.bank else None
        )
        if self.bank and self.done is not None:
            numbers = self.done[:, :, line].tolist()
            for site, by_k in zip(self.bank.edits, numbers, strict=True):
                done += list(zip(site[line], by_k, strict=False))
        return Later(choice, guessed, scores, done, constraint)


class Batch:
    """Rows 0 .. `decoding` write a token each step; the rows behind them are one group whose prompt is being read.

    A prompt that several rows of the group share is read once: the others follow the row that reads it, and stand in
    `rows` only from then on.
    """

    def __init__(self, model: LoadedModel):
        self.model = model
        self.rows: list[Row] = []
        self.decoding = 0
        self.cache = KVCache()
        self._config = model.hf.config.get_text_config()
        self._special = torch.zeros(model.vocab_size, dtype=torch.bool)
        self._special[sorted(model.special_ids)] = True
        self._special = self._special.to(model.device)
        self._bank: Bank | None = None  # of the decoding rows
        self._group_bank: Bank | None = None
        self._group_start = 0
        self._group_logits: dict[Row, Tensor] = {}
        self._followers: dict[Row, list[Row]] = {}
        self._drafts = Drafts(model, Batch)
        self._line_banks: dict[tuple[int, ...], Bank | None] = {}  # for the passes that read guesses, by their owners

    @property
    def prefilling(self) -> bool:
        return len(self.rows) > self.decoding

    def join(self, rows: Sequence[Row]) -> None:
        """Begin to read the prompts of `rows`. One group at a time."""
        assert not self.prefilling
        by_reading: dict[Hashable, list[Row]] = {}
        for row in rows:
            by_reading.setdefault(row.reading, []).append(row)
        self._followers = {first: rest for first, *rest in by_reading.values()}
        for same in by_reading.values():
            share_readings(same)
        self.rows += self._followers
        self._group_bank = self._make_bank(list(self._followers))
        self._group_start = 0
        self._group_logits = {}

    @torch.inference_mode()
    def prefill(self, token_budget: int) -> list[Choice]:
        """Read the next chunk of the group's prompts, at most `token_budget` tokens; at the end, their first tokens."""
        group = self.rows[self.decoding :]
        if len(self._group_logits) < len(group):
            self._advance(group, token_budget)
        if len(self._group_logits) < len(group) or not self._groups_are_ready(group, token_budget):
            return []
        self.settle()
        self._group_bank = None
        for row in group:
            self._bring_followers(row)
        group = self.rows[self.decoding :]
        for row in group:
            row.decide()
            if row.may_be_rewound:
                row.prompt_logits = self._group_logits[row].clone()
        self.decoding = len(self.rows)
        return self._choose(group, torch.stack([self._group_logits[r] for r in group]))

    def _groups_are_ready(self, reading: list[Row], token_budget: int) -> bool:
        every = [*reading, *(row for rest in self._followers.values() for row in rest)]
        return all(group.read(token_budget) for group in _groups(every))

    def _bring_followers(self, first: Row) -> None:
        """Give those who share the prompt of `first` what reading it gave."""
        rest = self._followers.pop(first)
        if rest:
            places = slice(len(self.rows), len(self.rows) + len(rest))
            self.cache.copy(self.rows.index(first), places, first.prompt_length)
            self.rows += rest
        for row in rest:
            self._group_logits[row] = self._group_logits[first]
            _copy_tallies(first, row)

    def _advance(self, group: list[Row], token_budget: int) -> None:
        start = self._group_start
        stop = min(start + max(1, token_budget // len(group)), max(r.prompt_length for r in group))
        logits, last = self._read(group, start, stop)
        for i, row in enumerate(group):
            if start < row.prompt_length <= stop:
                self._group_logits[row] = logits[i, last.index(row.prompt_length - 1)]
            if row.state.params.prompt_logprobs:
                row.read += prompt_details(row, logits[i], start, self.model.native)
        self._tell_group(group, start)
        self._group_start = stop

    def _tell_group(self, group: list[Row], start: int) -> None:
        """Hand out what watches read of the prompts, to followers too."""
        bank = self._group_bank.scores if self._group_bank else None
        if bank is None:
            return
        told = bank.told()
        for i, row in enumerate(group):
            for member in (row, *self._followers.get(row, ())):
                _hand_out(member, start, row.prompt_length, told, i, bank)

    def _read(self, group: list[Row], start: int, stop: int) -> tuple[Tensor, list[int]]:
        """One pass over positions start to stop of the group; logits [n, k, vocab] at the k positions returned."""
        device = self.model.device
        ids = torch.tensor([(r.tokens[start:stop] + [0] * stop)[: stop - start] for r in group], device=device)
        lengths = torch.tensor([[r.prompt_length] for r in group], device=device)
        positions = torch.arange(start, stop, device=device)[None].expand_as(ids)
        inside = positions < lengths
        last = sorted({r.prompt_length - 1 for r in group if start < r.prompt_length <= stop}) or [stop - 1]
        if any(r.state.params.prompt_logprobs for r in group):
            last = list(range(start, stop))
        visible = round_up(stop)
        self.cache.extend(slice(self.decoding, len(self.rows)), start, stop, visible)
        keep = torch.tensor([p - start for p in last], device=device)
        owners = torch.arange(self.decoding, len(self.rows), device=device)
        step = Step(positions, inside, self._special[ids], inside)
        return self._forward(ids, step, visible, self._group_bank, owners, keep), last

    @torch.inference_mode()
    def step(self) -> list[Choice]:
        """One token for every decoding row. A row whose guesses stood has chosen more, which `take` gives."""
        while self.take():
            pass
        rows = self.rows[: self.decoding]
        if self._bank is None:
            self._bank = self._make_bank(rows, reading=False)
        # a row without an answer has been taken back to its prompt's end: its place is filled, and written over later
        again = [len(r.tokens) == r.prompt_length for r in rows]
        places = [len(r.tokens) - 1 + back for r, back in zip(rows, again, strict=True)]
        tokens = [r.tokens[-1] for r in rows]
        real = [not back for back in again]
        guesses = self._drafts.guess(rows)
        if guesses:
            logits, ahead = self._read_ahead(rows, guesses, places, tokens, real)
        else:
            logits, ahead = self.read_lines(None, tokens, places, self._bank, real), None
            if self._bank and (bank := self._bank.scores):
                told = bank.told()
                for i, row in enumerate(rows):
                    _hand_out(row, places[i], len(row.tokens), told, i, bank)
        for i, row in enumerate(rows):
            if again[i] and row.prompt_logits is not None:
                logits[i] = row.prompt_logits
        return self._choose(rows, logits) if ahead is None else self._choose_ahead(rows, logits, ahead)

    def take(self) -> list[Choice]:
        """The next token of every row that chose several in the last step."""
        taken = []
        for row in (r for r in self.rows if r.ahead):
            later = row.ahead.popleft()
            row.tokens.append(later.choice.token)
            if row.draft:
                row.draft.accepted += later.guessed
            if later.constraint is not None:
                row.constraint = later.constraint
                row.constraint.accept(later.choice.token)
            if later.scores:
                row.scores.append(later.scores)
            for edit, numbers in later.done:
                edit.tally = [x + y for x, y in zip(edit.tally, numbers, strict=True)]
            taken.append(later.choice)
        return taken

    def _read_ahead(
        self, rows: list[Row], guesses: dict[Row, list[int]], places: list[int], tokens: list[int], real: list[bool]
    ) -> tuple[Tensor, Ahead]:
        """A pass over a line of each row and, behind them all, one of each guess: logits [lines, vocab]."""
        owners = list(range(len(rows)))
        lines: dict[Row, list[int]] = {}
        for i, row in enumerate(rows):
            for n, guess in enumerate(guesses.get(row, ())):
                lines.setdefault(row, [i]).append(len(owners))
                owners.append(i)
                places.append(len(row.tokens) + n)
                tokens.append(guess)
                real.append(True)
        bank = self._bank_of(owners)
        logits = self.read_lines(owners, tokens, places, bank, real)
        done = None
        if bank and self._bank:
            done = bank.tally.clone()
            bank.tally.zero_()
            self._bank.tally += done[:, :, : len(rows)]
        told = bank.scores.told() if bank and bank.scores else []
        if bank and bank.scores:
            for i, row in enumerate(rows):
                _hand_out(row, places[i], len(row.tokens), told, i, bank.scores)
        return logits, Ahead(guesses, lines, places, bank, done, told)

    def _choose_ahead(self, rows: list[Row], logits: Tensor, ahead: Ahead) -> list[Choice]:
        """As `_choose`, where some rows have lines of guesses too."""
        alone = [i for i, row in enumerate(rows) if row not in ahead.lines]
        choices = self._choose([rows[i] for i in alone], logits[alone]) if alone else []
        for row, written in judge(ahead.guesses, ahead.lines, logits, self.model.native).items():
            tokens = [token for token, _ in written]
            lines = ahead.lines[row][: len(tokens)]
            found = self._tell_choices([row] * len(tokens), torch.tensor(tokens, device=logits.device), logits[lines])
            row.tokens.append(tokens[0])
            choices.append(found[0])
            if row.constraint is not None:
                row.constraint.accept(tokens[0])
            stood = len(tokens) - 1  # the last is no guess, or a wrong one's correction
            if row.draft:
                row.draft.accepted += stood > 0
            for n, line in enumerate(lines[1:], 1):
                row.ahead.append(ahead.later(found[n], line, written[n][1], guessed=n < stood))
        return choices

    def _bank_of(self, owners: list[int]) -> Bank | None:
        """For a pass in which line i is of row `owners[i]`. Its tally is of the pass alone."""
        key = tuple(owners)
        if key not in self._line_banks:
            if len(self._line_banks) >= LINE_BANKS:
                self._line_banks.pop(next(iter(self._line_banks)))
            self._line_banks[key] = self._make_bank([self.rows[i] for i in owners], reading=False)
        return self._line_banks[key]

    def read_lines(
        self,
        owners: list[int] | None,
        tokens: list[int],
        places: list[int],
        bank: Bank | None = None,
        real: list[bool] | None = None,
    ) -> Tensor:
        """Logits [lines, vocab] after one token at one place per line. Line i is of row `owners[i]`, of row i without.

        A line sees what its row holds up to its place, lines of the same pass included.
        """
        device = self.model.device
        ids = torch.tensor(tokens, device=device)[:, None]
        positions = torch.tensor(places, device=device)[:, None]
        whose = None if owners is None else torch.tensor(owners, device=device)
        visible = round_up(max(places) + 1)
        self.cache.append(self.decoding, positions[:, 0], visible, whose)
        no = torch.zeros_like(ids, dtype=torch.bool)
        true = ~no if real is None else torch.tensor(real, device=device)[:, None]
        step = Step(positions, no, self._special[ids], true)
        return self._forward(ids, step, visible, bank, whose)[:, 0]

    def _forward(
        self,
        ids: Tensor,
        step: Step,
        visible: int,
        bank: Bank | None,
        owners: Tensor | None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits [n, k, vocab] after `ids` [n, t], at the k places of the t in `keep`, or at the last one.

        Run i is of the cache's row `owners[i]`, or of row i without; the cache has been told so.
        """
        decode = self.model.decoder
        if bank:
            bank.begin(step)
        if decode is not None:
            logits = decode(ids, step.positions, self.cache, bank, owners, keep)
        else:
            logits = self._through_modules(ids, step.positions, visible, bank, keep)
        if bank:
            bank.end()
        return logits

    def _through_modules(
        self, ids: Tensor, positions: Tensor, visible: int, bank: Bank | None, keep: Tensor | None
    ) -> Tensor:
        wakes.release()
        self.model.hooks.bank = bank
        try:
            return self.model.hf(
                input_ids=ids,
                position_ids=positions,
                attention_mask=attention_masks(self._config, positions, visible, self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1 if keep is None else keep,
            ).logits
        finally:
            self.model.hooks.bank = None

    def _choose(self, rows: list[Row], logits: Tensor) -> list[Choice]:
        groups = _groups(rows)
        if not groups:
            return self.sample(rows, logits)
        alone = [i for i, r in enumerate(rows) if not r.group]
        choices = self.sample([rows[i] for i in alone], logits[alone]) if alone else []
        for group in groups:
            choices += group.choose(self, logits[[rows.index(r) for r in group.rows]])
        return choices

    def sample(self, rows: list[Row], logits: Tensor) -> list[Choice]:
        """One token for each of `rows` from `logits` [rows, vocab], as its parameters say."""
        states = [r.state for r in rows]
        tokens = choose(rows, logits, self.model.native)
        record(states, tokens)
        choices = self._tell_choices(rows, tokens, logits)
        for choice in choices:
            choice.row.tokens.append(choice.token)
            if choice.row.constraint is not None:
                choice.row.constraint.accept(choice.token)
        return choices

    def _tell_choices(self, rows: list[Row], tokens: Tensor, logits: Tensor) -> list[Choice]:
        """`tokens` int64[n] of `rows`, with their log-probabilities by `logits` [n, vocab] where they are asked for."""
        states = [r.state for r in rows]
        asked = [i for i, s in enumerate(states) if s.params.logprobs]
        details = self._details(logits[asked], tokens[asked], states, asked) if asked else {}
        return [
            Choice(row, token, *details.get(i, ()))
            for i, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True))
        ]

    def _details(
        self, logits: Tensor, tokens: Tensor, states: list[RowState], asked: list[int]
    ) -> dict[int, tuple[float, tuple[tuple[int, float], ...]]]:
        most = max(states[i].params.top_logprobs for i in asked)
        chosen, ids, values = logprobs(logits, tokens, most, self.model.native)
        found = {}
        for k, i in enumerate(asked):
            n = states[i].params.top_logprobs
            found[i] = (chosen[k], tuple(zip(ids[k, :n].tolist(), values[k, :n].tolist(), strict=True)))
        return found

    def carry(self, source: Row, target: Row, start: int) -> None:
        """Let `target` stand where `source` stands: what was read and done from position `start` on, not its tokens.

        Before that position the two are alike. Both are decoding rows of the same prompt with the same edits.
        """
        places = self.rows.index(source), self.rows.index(target)
        self.cache.move(*places, len(source.tokens), start)
        if self._bank:
            self._bank.carry(*places)
        for done, same in zip(source.edits, target.edits, strict=True):
            same.tally = list(done.tally)

    def count(self) -> None:
        """Bring the tallies of decoding rows up to date, in the midst of decoding."""
        if self._bank:
            self._bank.settle()

    def rewind(self, row: Row, n: int) -> None:
        """Take back the last `n` tokens that a decoding row has generated, up to all of them.

        The next `step` goes on from there as a row would that had never written them; only its generator does not go
        back, so that a row that draws its tokens draws others. Its penalties forget the tokens; what its edits did to
        them stays counted.
        """
        assert row in self.rows[: self.decoding]
        assert 0 <= n <= len(row.tokens) - row.prompt_length
        if n:
            del row.tokens[-n:]
        if row.constraint is not None:
            row.constraint.rewind(n)
        assert len(row.tokens) > row.prompt_length or row.prompt_logits is not None, "only where a watch regenerates"
        row.state.recount(row.tokens[: row.prompt_length], row.tokens[row.prompt_length :])

    @torch.inference_mode()
    def drop(self, row: Row) -> None:
        """Take a row out; the last rows move into its place, so that rows and cache stay without gaps."""
        self.settle()
        self._drafts.forget(row)
        if row not in self.rows:
            next(rest for rest in self._followers.values() if row in rest).remove(row)
            return
        hole = self.rows.index(row)
        if rest := self._followers.pop(row, []):  # who shares the prompt goes on reading it
            self._succeed(hole, rest[0])
            self._followers[rest[0]] = rest[1:]
            return
        if hole < self.decoding:
            self.decoding -= 1
            self._move(self.decoding, hole)
            hole = self.decoding
        self._move(len(self.rows) - 1, hole)
        self.rows.pop()
        if self.prefilling:
            self._group_logits.pop(row, None)
            self._group_bank = self._make_bank(self.rows[self.decoding :])
        if not self.rows:
            self.cache.clear()

    def _succeed(self, place: int, heir: Row) -> None:
        """Another row of the same prompt stands in the place of one that leaves while it is read."""
        row, self.rows[place] = self.rows[place], heir
        if row in self._group_logits:
            self._group_logits[heir] = self._group_logits.pop(row)
        _copy_tallies(row, heir)
        self._group_bank = self._make_bank(self.rows[self.decoding :])

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        row = self.rows[target] = self.rows[source]
        filled = len(row.tokens) if source < self.decoding + 1 else self._group_start
        if self.cache.layers and source < self.cache.layers[0][0].shape[0]:
            self.cache.move(source, target, filled)

    @torch.inference_mode()
    def settle(self) -> None:
        """Bring the rows' tallies up to date, for their receipts."""
        for bank in (self._bank, self._group_bank):
            if bank:
                bank.settle()
        self._bank = None
        self._line_banks = {}

    def _make_bank(self, rows: Sequence[Row], *, reading: bool = True) -> Bank | None:
        edits, readouts = [r.edits for r in rows], [list(r.readouts.values()) for r in rows if reading]
        watches = [r.group_watches if reading else r.watches for r in rows]
        if not any(edits) and not any(readouts) and not any(watches):
            return None
        return Bank(edits, self.model.device, self.model.compute_dtype, readouts, watches)


def _groups(rows: Sequence[Row]) -> list[Group]:
    return list(dict.fromkeys(row.group for row in rows if row.group))


def share_readings(rows: list[Row]) -> None:
    """What conditions and watches of rows with one prompt want of it is read once, by whoever reads it."""
    watches = list({watch.key: watch for row in rows for watch in row.watches}.values())
    shared: dict[tuple[int, str], Readout] = {}
    for row in rows:
        for condition in row.prompt_conditions:
            layer, pooling = condition.source.layer, condition.source.pooling
            shared.setdefault((layer, pooling), Readout(layer, pooling, row.prompt_length))
        row.readouts, row.group_watches = shared, watches


def _scores(
    row: Row, start: int, stop: int, told: list[list[list[float | None]]], place: int, bank: ScoreBank | None
) -> Scores | None:
    """What a row's watches read at the tokens from `start` on, those before `stop`; None where it is nothing."""
    if not row.watches or bank is None:
        return None
    slots = [told[bank.slots[place][watch.key]][place] for watch in row.watches]
    values = [list(column) for column in zip(*slots, strict=True)][: max(stop - start, 0)]
    return (start, values) if any(v is not None for column in values for v in column) else None


def _hand_out(
    row: Row, start: int, stop: int, told: list[list[list[float | None]]], place: int, bank: ScoreBank
) -> None:
    """Give a row what its watches read at the tokens from `start` on, those before `stop`."""
    if scores := _scores(row, start, stop, told, place, bank):
        row.scores.append(scores)


def _copy_tallies(source: Row, target: Row) -> None:
    for done, same in zip(source.prompt_edits, target.prompt_edits, strict=True):
        same.tally = list(done.tally)


def prompt_details(row: Row, logits: Tensor, start: int, native: Kernels | None = None) -> list[Detail]:
    """Of the prompt's tokens that `logits`, float[k, vocab] at the positions from `start` on, foretell."""
    ahead = row.tokens[start + 1 : min(start + 1 + len(logits), row.prompt_length)]
    if not ahead:
        return []
    top = row.state.params.top_logprobs
    tokens = torch.tensor(ahead, device=logits.device)
    chosen, ids, values = logprobs(logits[: len(ahead)], tokens, top, native)
    pairs = (tuple(zip(*both, strict=True)) for both in zip(ids.tolist(), values.tolist(), strict=True))
    return list(zip(chosen, pairs, strict=True))
