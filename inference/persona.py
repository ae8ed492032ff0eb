"""Pairs that the model writes itself: for a persona vector from a trait, and from a description in one step.

Recipes over a client: async generators of Progress, then one Result. Persona vectors (Chen et al., arXiv 2507.21509)
are the mean difference over the tokens of answers that were written under contrastive system prompts and are read
without them: hand the pairs to CreateVector with method "mean_difference", pooling "mean", span "answer" and `chat`.

Small models write much that is of no use. What they wrote is checked, and judged by the model itself; the Result says
how many pairs were written, why others were left out, and how well the judge tells the two sides apart.
"""

from __future__ import annotations

import time
import unicodedata
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from inference import errors
from inference.client import Inference
from inference.judging import p_yes, yes_item
from inference.persona_words import (
    EXAMPLE_REPLIES,
    INSTRUCTIONS,
    QUESTIONS,
    REPLY,
    SITUATIONS,
    opposite_of,
    reply_prompt,
)
from inference.statistics import auroc, longest_repeat
from inference.types import (
    Failed,
    GenerationRequest,
    Message,
    Pair,
    Progress,
    Result,
    SamplingParams,
    Score,
    ScoreItem,
    Wire,
)
from inference.writing import write_all

Judge = Literal["auto", "relative", "strict", "none"]

LEAST_PAIRS = 6  # fewer are refused: they show hardly an effect
MOST_PAIRS = 200
MOST_TOKENS = 256
LONGEST_TRAIT = 400  # characters
LONGEST_TEXT = 2000
SURPLUS = 1.5  # pairs written for each that is missing, since some will be of no use
SHORTEST_WORDS = 2
LONGEST_LOOP = 6  # words that stand twice in a text: it repeats itself
ALIKE = 0.8  # share of words that two sides have in common, from which on they are the same
BY_CHANCE = 0.6  # area under the curve below which a judge hardly tells the sides apart
SCORED_AT_ONCE = 32
LABELS = ("behaviour:", "situation:", "reply:")


@dataclass(frozen=True)
class Contrast(Wire):
    """Two system prompts, one for each side."""

    positive: str
    negative: str


@dataclass(frozen=True)
class PersonaPairs(Wire):
    """Ask for `count` usable pairs of answers that show a trait and its opposite.

    Empty `opposite`, `instructions` and `questions` stand for ours. `judge`: "relative" keeps a pair when the model
    finds the trait rather in the positive answer than in the negative one; "strict" as the paper does, when it says yes
    to one and no to the other; "none" asks no judge. "auto" is "relative" as long as the judge tells the sides of all
    pairs apart, and else keeps all pairs and says so: a filter by chance makes nothing better. Up to `rounds` times,
    what is missing is written with other seeds. Needs a chat template. Result.payload as in `written_pairs`.
    """

    id: str
    trait: str
    opposite: str = ""
    count: int = 32
    instructions: tuple[Contrast, ...] = ()
    questions: tuple[str, ...] = ()
    max_tokens: int = 48
    temperature: float = 0.8
    judge: Judge = "auto"
    rounds: int = 3
    seed: int = 0
    model: str = ""
    kind: Literal["persona_pairs"] = "persona_pairs"


@dataclass(frozen=True)
class DescribedPairs(Wire):
    """Ask for `count` usable pairs of replies from one sentence. Fields as in PersonaPairs; any model will do.

    Replies are short, one line each; a model without a chat template is shown examples instead of being told.
    """

    id: str
    description: str
    opposite: str = ""
    count: int = 32
    situations: tuple[str, ...] = ()
    max_tokens: int = 32
    temperature: float = 0.8
    judge: Judge = "auto"
    rounds: int = 3
    seed: int = 0
    model: str = ""
    kind: Literal["described_pairs"] = "described_pairs"


def instructions_for(trait: str, opposite: str = "") -> tuple[Contrast, ...]:
    """Contrastive system prompts by template, to be edited."""
    words = {"trait": trait.strip(), "opposite": opposite.strip() or opposite_of(trait.strip())}
    return tuple(Contrast(p.format(**words), n.format(**words)) for p, n in INSTRUCTIONS)


def most_tokens(job: PersonaPairs | DescribedPairs) -> int:
    """What a job may read and write at most, roughly, before anything was counted."""
    shown = 120 if isinstance(job, PersonaPairs) else 320
    written = int(job.count * SURPLUS * job.rounds) * 2
    judged = 0 if job.judge == "none" else 2 * (90 + job.max_tokens)
    return written * (shown + job.max_tokens + judged)


def persona_pairs(client: Inference, job: PersonaPairs) -> AsyncIterator[Progress | Result]:
    """Raises InvalidRequest with a cure for what cannot be asked, or when too few pairs were usable."""
    check(job)
    contrasts = job.instructions or instructions_for(job.trait, job.opposite)
    questions = job.questions or QUESTIONS

    def ask(question: str, turn: int, chat: bool) -> _Asked:
        contrast = contrasts[turn % len(contrasts)]
        messages = [(Message("system", s), Message("user", question)) for s in (contrast.positive, contrast.negative)]
        return _Asked(question, *({"messages": each} for each in messages))

    return written_pairs(client, job, _Recipe(job.trait, questions, ask, needs_chat=True))


def pairs_from_description(client: Inference, job: DescribedPairs) -> AsyncIterator[Progress | Result]:
    """Raises InvalidRequest as `persona_pairs` does."""
    check(job)
    sides = (job.description.strip(), job.opposite.strip() or opposite_of(job.description.strip()))

    def ask(situation: str, turn: int, chat: bool) -> _Asked:
        if not chat:
            return _Asked(situation, *({"prompt": reply_prompt(side, situation)} for side in sides))
        systems = [Message("system", REPLY.format(behaviour=side)) for side in sides]
        return _Asked(situation, *({"messages": (system, Message("user", situation))} for system in systems))

    situations = job.situations or SITUATIONS
    return written_pairs(client, job, _Recipe(job.description, situations, ask, stop=("\n", "Behaviour:")))


@dataclass(frozen=True)
class _Asked:
    """What both sides answer, and how each is asked: the input of a GenerationRequest."""

    prompt: str
    positive: dict[str, Any]
    negative: dict[str, Any]


@dataclass(frozen=True)
class _Recipe:
    trait: str
    prompts: Sequence[str]
    ask: Callable[[str, int, bool], _Asked]
    stop: tuple[str, ...] = ()
    needs_chat: bool = False


@dataclass(frozen=True)
class _Kept:
    pair: Pair
    scores: tuple[float, float] | None  # P(yes) that each side shows the trait


@dataclass
class _Tally:
    """How far it is, and what became of what was written."""

    began: float = field(default_factory=time.monotonic)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    judged: list[tuple[float, float]] = field(default_factory=list)
    kept: list[_Kept] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    trusted: bool = True  # the judge, in the last round

    def progress(self, id: str, done: int, total: int, note: str) -> Progress:
        passed = time.monotonic() - self.began
        facts = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "written": self.written,
            "usable": len(self.kept),
            "left_out": dict(self.left_out),
        }
        return Progress(id, 0, done, total, note, passed / done * (total - done) if done else None, facts)


async def written_pairs(
    client: Inference, job: PersonaPairs | DescribedPairs, recipe: _Recipe
) -> AsyncIterator[Progress | Result]:
    """Write, check and judge until there are enough pairs, or the rounds are over.

    Payload: {"pairs": [{"prompt", "positive", "negative", "scores": [P(yes), P(yes)] or null}], "asked", "written",
    "left_out": {reason: pairs}, "judge", "auroc" (of the judge between all sides, or null), "said": sentences,
    "prompt_tokens", "completion_tokens", "model", "revision", "seed"}.
    """
    info = await client.describe(job.model)
    if recipe.needs_chat and info.id and not info.has_chat_template:
        raise errors.InvalidRequest(
            "no_chat_template",
            f"{info.id} has no chat template, so it cannot be told how to behave. Use “from a description” instead.",
        )
    tally, done = _Tally(), 0
    steps = 2 if job.judge == "none" else 4  # per pair: two texts, two judgements
    for round in range(job.rounds):
        missing = job.count - len(tally.kept)
        if missing <= 0:
            break
        asked = _round(recipe, job, round, max(4, int(missing * SURPLUS)), info.has_chat_template)
        total = done + steps * len(asked)
        drafts: list[Pair] = []
        async with aclosing(_drafts(client, job, recipe, asked, round, tally)) as written:
            async for draft, ended in written:
                if draft:
                    drafts.append(draft)
                note = f"Wrote {tally.written} pairs, {len(tally.kept) + len(drafts)} of them usable so far"
                yield tally.progress(job.id, done + ended, total, note)
        done += 2 * len(asked)
        if job.judge == "none":
            tally.kept += [_Kept(draft, None) for draft in drafts]
        else:
            async with aclosing(_judged(client, job, recipe.trait, drafts, info.has_chat_template, tally)) as judged:
                async for ended in judged:
                    note = f"Wrote {tally.written} pairs, judging which show it"
                    yield tally.progress(job.id, done + ended, total, note)
            done = total
    _refuse_too_few(tally, job)
    yield Result(job.id, 0, _payload(job, tally, info.id, info.revision))


def _round(recipe: _Recipe, job: PersonaPairs | DescribedPairs, round: int, count: int, chat: bool) -> list[_Asked]:
    """Every prompt comes once before any comes twice; the order is the seed's."""
    order = np.random.default_rng([job.seed, round]).permutation(len(recipe.prompts))
    return [recipe.ask(recipe.prompts[order[i % len(order)]], i + round, chat) for i in range(count)]


async def _drafts(
    client: Inference,
    job: PersonaPairs | DescribedPairs,
    recipe: _Recipe,
    asked: Sequence[_Asked],
    round: int,
    tally: _Tally,
) -> AsyncGenerator[tuple[Pair | None, int], None]:
    """Each pair that can be used, or None where a text or a pair cannot, with how many texts have ended."""
    seeds = np.random.default_rng([job.seed, round, 1]).integers(2**31, size=2 * len(asked)).tolist()
    requests = [
        GenerationRequest(uuid.uuid4().hex, job.model, sampling=_sampling(job, recipe, seed), **side)
        for seed, side in zip(seeds, (side for each in asked for side in (each.positive, each.negative)), strict=True)
    ]
    texts: dict[int, str] = {}
    ended = 0
    async with aclosing(write_all(client, requests)) as written:
        async for place, found in written:
            ended += 1
            tally.prompt_tokens += found.prompt_tokens
            tally.completion_tokens += found.completion_tokens
            texts[place] = tidied(found.text, found.complete)
            pair = None
            if place ^ 1 in texts:
                first = place & ~1
                pair = _usable(Pair(texts[first], texts[first + 1], asked[first // 2].prompt), tally)
            yield pair, ended


def _sampling(job: PersonaPairs | DescribedPairs, recipe: _Recipe, seed: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=job.max_tokens, temperature=job.temperature, top_p=0.95, seed=seed, stop=recipe.stop, fit=True
    )


def _usable(pair: Pair, tally: _Tally) -> Pair | None:
    tally.written += 1
    problem = problem_of(pair)
    texts = (_plain(pair.positive), _plain(pair.negative))
    if not problem and texts in tally.seen:
        problem = "written before"
    if problem:
        tally.left_out[problem] += 1
        return None
    tally.seen.add(texts)
    return pair


def problem_of(pair: Pair) -> str:
    """Why a written pair is of no use, in a few words; empty where nothing speaks against it."""
    sides = (pair.positive, pair.negative)
    if any(len(side.split()) < SHORTEST_WORDS for side in sides):
        return "a side without words"
    if any(label in side.casefold() for side in sides for label in LABELS):
        return "the form instead of a text"
    if any(side in EXAMPLE_REPLIES for side in sides):
        return "copied from the examples"
    if any(longest_repeat(side) >= LONGEST_LOOP for side in sides):
        return "a text that repeats itself"
    first, second = (set(_plain(side).split()) for side in sides)
    if len(first & second) >= ALIKE * len(first | second):
        return "two sides alike"
    return ""


async def _judged(
    client: Inference, job: PersonaPairs | DescribedPairs, trait: str, drafts: Sequence[Pair], chat: bool, tally: _Tally
) -> AsyncGenerator[int, None]:
    """Keep the pairs that pass; yields how many texts were judged."""
    question = f"Does this text show the following? {trait.strip().rstrip('.')}."
    scored: list[tuple[Pair, tuple[float, float]]] = []
    for start in range(0, len(drafts), SCORED_AT_ONCE // 2):
        some = drafts[start : start + SCORED_AT_ONCE // 2]
        items = tuple(yes_item(question, side, chat=chat) for pair in some for side in (pair.positive, pair.negative))
        values = [p_yes(logprobs) for logprobs in await _score(client, job.model, items)]
        # the engine counts no tokens of a Score; a token has about four characters
        tally.prompt_tokens += sum(sum(map(len, _texts(item))) for item in items) // 4
        scored += zip(some, zip(values[0::2], values[1::2], strict=True), strict=True)
        yield 2 * len(scored)
    tally.judged += [scores for _, scores in scored]
    tally.trusted = job.judge != "auto" or _told_apart(tally) >= BY_CHANCE
    for pair, scores in scored:
        if not tally.trusted or passes(scores, job.judge):
            tally.kept.append(_Kept(pair, scores))
        else:
            tally.left_out["the trait in the wrong side, for the judge"] += 1


def _told_apart(tally: _Tally) -> float:
    return auroc(*zip(*tally.judged, strict=True)) if tally.judged else 0.5


def passes(scores: tuple[float, float], judge: Judge) -> bool:
    positive, negative = scores
    return positive > 0.5 > negative if judge == "strict" else positive > negative


def _texts(item: ScoreItem) -> list[str]:
    return [item.prompt or "", *(message.content for message in item.messages or ())]


async def _score(client: Inference, model: str, items: tuple[ScoreItem, ...]) -> list[list[float]]:
    job = Score(uuid.uuid4().hex, items, model)
    async with aclosing(client.run(job)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Result):
                return [list(item["logprobs"]) for item in event.payload["items"]]
    raise errors.Unavailable("no_result", "The judge stopped without a result. Start again.")


def tidied(text: str, complete: bool = True) -> str:
    """A text as one would keep it: without controls, and without the half sentence at which it was cut off."""
    kept = "".join(c if c in "\n\u200d" or unicodedata.category(c)[0] != "C" else " " for c in text)
    kept = kept.strip().strip('"“”').strip()[:LONGEST_TEXT]
    if complete:
        return kept
    end = max(kept.rfind(mark) for mark in ".!?…")
    return kept[: end + 1] if end >= len(kept) // 3 else kept


def _plain(text: str) -> str:
    return " ".join(word for word in "".join(c if c.isalnum() else " " for c in text.casefold()).split())


def check(job: PersonaPairs | DescribedPairs) -> None:
    """Raises InvalidRequest with a cure for what cannot be asked; needs no model."""
    if isinstance(job, PersonaPairs):
        systems = tuple(side for each in job.instructions for side in (each.positive, each.negative))
        trait, prompts = job.trait, job.questions + systems
    else:
        trait, prompts = job.description, job.situations

    def need(holds: bool, code: str, message: str) -> None:
        if not holds:
            raise errors.InvalidRequest(code, message)

    need(bool(trait.strip()), "no_trait", "Say in a word or a sentence what the vector should do.")
    need(len(trait) <= LONGEST_TRAIT, "trait_too_long", f"Say it in at most {LONGEST_TRAIT} characters.")
    bounds = f"Ask for {LEAST_PAIRS} to {MOST_PAIRS} pairs; six show an effect, 24 make a vector reliable."
    need(LEAST_PAIRS <= job.count <= MOST_PAIRS, "pair_count", bounds)
    need(4 <= job.max_tokens <= MOST_TOKENS, "max_tokens", f"A text may have 4 to {MOST_TOKENS} tokens.")
    need(0 < job.temperature <= 2, "temperature", "The temperature is above 0 and at most 2, or every try is the same.")
    need(1 <= job.rounds <= 10, "rounds", "Let it try 1 to 10 times.")
    need(job.seed >= 0, "seed", "The seed is 0 or more.")
    blank = not all(prompt.strip() for prompt in prompts)
    need(not blank, "empty_prompt", "A question, situation or system prompt is empty. Write it, or remove it.")
    longest = max(map(len, (job.opposite, *prompts)))
    need(longest <= LONGEST_TEXT, "prompt_too_long", f"A question or prompt has more than {LONGEST_TEXT:,} characters.")
    same = _plain(job.opposite) == _plain(trait)
    need(not same, "same_sides", "Trait and opposite are the same. Say what the other side should do instead.")


def _refuse_too_few(tally: _Tally, job: PersonaPairs | DescribedPairs) -> None:
    if len(tally.kept) >= LEAST_PAIRS:
        return
    why = "; ".join(f"{count} had {reason}" for reason, count in tally.left_out.most_common(3))
    raise errors.InvalidRequest(
        "too_few_usable",
        f"Of {tally.written} pairs that the model wrote, {len(tally.kept)} could be used, and {LEAST_PAIRS} are the "
        f"least ({why}). Say the trait and its opposite in other words, turn the judge off, ask a larger model, or "
        "write the pairs yourself.",
    )


def _payload(job: PersonaPairs | DescribedPairs, tally: _Tally, model: str, revision: str) -> dict[str, Any]:
    by_judge = job.judge != "none" and tally.trusted
    best = sorted(tally.kept, key=_margin, reverse=True)[: job.count] if by_judge else tally.kept[: job.count]
    chosen = [kept for kept in tally.kept if any(kept is one for one in best)]
    told = _told_apart(tally) if tally.judged else None
    return {
        "pairs": [kept.pair.to_wire() | {"scores": kept.scores and list(kept.scores)} for kept in chosen],
        "asked": job.count,
        "written": tally.written,
        "usable": len(tally.kept),
        "left_out": dict(tally.left_out),
        "judge": job.judge,
        "auroc": told,
        "said": _said(job, tally, len(chosen), told),
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "model": model,
        "revision": revision,
        "seed": job.seed,
    }


def _margin(kept: _Kept) -> float:
    return kept.scores[0] - kept.scores[1] if kept.scores else 0.0


def _said(job: PersonaPairs | DescribedPairs, tally: _Tally, chosen: int, told: float | None) -> list[str]:
    """What happened, in sentences for people."""
    said = [f"{job.count} pairs were asked for; the model wrote {tally.written}, and {len(tally.kept)} are usable."]
    if chosen < len(tally.kept):
        which = (
            f"first {chosen}"
            if job.judge == "none" or not tally.trusted
            else f"{chosen} that differ most in the judge's eyes"
        )
        said.append(f"The {which} were taken.")
    if chosen < job.count:
        said.append("That is fewer than asked for: add pairs of your own, or start again with other words.")
    if told is not None and told < BY_CHANCE:
        then = "its choice means little here" if tally.trusted else "it was not listened to"
        said.append(
            f"The judge, the same model, does not tell the sides apart (AUC {told:.2f}; 0.50 is chance), so {then}. "
            "Read every pair."
        )
    elif told is not None:
        said.append(f"The judge, the same model, tells the sides apart with an AUC of {told:.2f} (0.50 is chance).")
    return said
