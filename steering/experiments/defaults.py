"""What a new experiment is about, unless somebody changes it: enough to start at once with any vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.types import ModelInfo, Operation
from steering.datasets.behaviours import BESIDE, WITHOUT_WORDS, behaviour_of
from steering.datasets.starter_catalog import Starter, starter
from steering.experiments.settings import ALONE, NAMED, Behaviour, Beside, Choice, Evaluate, Find, Sweep, Writing, split
from steering.vectors.models import Vector

TUNING_PROMPTS = 6
SWEEP_PROMPTS = 6
FIND_LAYERS = 6
SWEEP_STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
CHOICES = 20
CONCEPT = 400  # characters
SEED = 1729
PROMPTS = (
    "How was your day?",
    "Tell me about a place that you know well.",
    "I have to write a letter to my neighbour. How should I begin?",
    "What should I think about before I buy a bicycle?",
    "Describe a morning in a small town.",
    "My train was cancelled and I do not know what to do.",
    "What makes a good meal?",
    "Explain how rain comes about.",
    "Somebody at work did not answer my message.",
    "Tell me a short story.",
    "What can I do on a free afternoon?",
    "How do I learn a song by heart?",
    "Write a few lines about the sea.",
    "I lost my keys this morning.",
    "Why do people keep pets?",
    "What happened in the meeting?",
)


@dataclass(frozen=True)
class About:
    """What is known of the behaviour of a vector: prompts that did not build it, a measure, the same as a wish."""

    tuning: tuple[str, ...]
    held_out: tuple[str, ...]
    behaviour: Behaviour
    wish: str
    chat: bool
    beside: tuple[Beside, ...] = BESIDE  # type: ignore[assignment]
    note: str = ""
    repetition_penalty: float = Writing.repetition_penalty

    @property
    def writing(self) -> Writing:
        return Writing(chat=self.chat, wish=self.wish, seed=SEED, repetition_penalty=self.repetition_penalty)


def about(vector: Vector | None, model: ModelInfo) -> About:
    known = _starter_of(vector)
    if known is None:
        tuning, held_out = split(PROMPTS, SEED)
        concept = concept_of(vector)
        wish = f"In everything you write, show this: {concept}." if concept else ""
        return About(tuning, held_out, _without_words(concept), wish, model.has_chat_template or not model.id)
    chat = known.mode == "chat" and (model.has_chat_template or not model.id)
    behaviour, beside, note = _measured(known)
    return About(
        _tuning(known), known.held_out_prompts, behaviour, known.wish, chat, beside, note, known.repetition_penalty
    )


def concept_of(vector: Vector | None) -> str:
    """What is to be named, in a few words: the first line of what the dataset says it is, else its name."""
    if vector is None:
        return ""
    data = vector.dataset
    said = (data.description.strip().splitlines() or [data.name]) if data is not None else [vector.name]
    return said[0].strip().rstrip(".")[:CONCEPT]


def _without_words(concept: str) -> Behaviour:
    return Behaviour(WITHOUT_WORDS, says=says_of(WITHOUT_WORDS, concept), unit=UNITS[WITHOUT_WORDS], concept=concept)


UNITS = {"naming": "nats per token", "judge": "rating, 0 to 2"}


def says_of(kind: str, concept: str) -> str:
    if kind == "naming":
        return f"How much likelier naming “{concept}” makes an answer to the unsteered model."
    return f"The local judge's rating of “{concept}”, 0 to 2."


def _measured(known: Starter) -> tuple[Behaviour, tuple[Beside, ...], str]:
    """How a starter is measured, what may be shown beside, and what is to be said of both."""
    kept = behaviour_of(known.slug)
    concept = kept.concept if kept else known.name
    beside: Any = kept.also if kept else BESIDE
    note = kept.note if kept else ""
    if kept and kept.default != "naming" and "naming" in beside:
        note += " Naming suits it too."
    if kept is None or kept.default != "words":
        return _without_words(concept), beside, note
    measure: dict[str, Any] = {
        name: known.measure[name] for name in ("kind", "says", "unit", "better") if name in known.measure
    }
    lists: dict[str, Any] = {name: tuple(known.measure.get(name, ())) for name in ("terms", "against")}
    return Behaviour(**measure, **lists, concept=concept), beside, note


def _starter_of(vector: Vector | None) -> Starter | None:
    if vector is None:
        return None
    if vector.is_starter:
        return starter(vector.slug)
    return starter(vector.dataset.slug) if vector.dataset is not None and vector.dataset.is_starter else None


def _tuning(known: Starter) -> tuple[str, ...]:
    prompts = known.tuning_prompts or tuple(dict.fromkeys(pair.prompt for pair in known.pairs()))
    left = tuple(prompt for prompt in prompts if prompt and prompt not in known.held_out_prompts)
    return left[:TUNING_PROMPTS] or PROMPTS[:TUNING_PROMPTS]


def near(vector: Vector, count: int) -> tuple[int, ...]:
    """`count` layers around the recommended one, of those that have a size of their own and no attention sink yet."""
    facts = vector.facts
    usable = [layer for layer in facts.layers if layer in facts.residual_norms]
    usable = [layer for layer in usable if facts.sink_from is None or layer < facts.sink_from] or usable
    return tuple(sorted(sorted(usable, key=lambda layer: (abs(layer - facts.layer), layer))[:count]))


def _alone(vector: Vector) -> Operation:
    """What the vector was trained for, where random directions can do the same; a map adds its mean effect."""
    return vector.facts.operation if vector.facts.operation in ALONE else "add"


def sweep_of(vector: Vector, model: ModelInfo) -> Sweep:
    known = about(vector, model)
    return Sweep(
        vectors=(str(vector.pk),),
        layers=near(vector, FIND_LAYERS),
        strengths=SWEEP_STRENGTHS,
        operations=(_alone(vector),),
        prompts=known.tuning[:SWEEP_PROMPTS],
        behaviour=known.behaviour,
        writing=known.writing,
    )


def find_of(vector: Vector, model: ModelInfo) -> Find:
    known = about(vector, model)
    return Find(
        vector=str(vector.pk),
        layers=near(vector, FIND_LAYERS),
        operation=_alone(vector),
        prompts=known.tuning,
        held_out=known.held_out,
        behaviour=known.behaviour,
        writing=known.writing,
    )


def evaluate_of(vector: Vector, model: ModelInfo, layer: int | None = None, strength: float | None = None) -> Evaluate:
    known = about(vector, model)
    facts, choices = vector.facts, choices_of(vector)
    concept = known.behaviour.concept
    return Evaluate(
        vector=str(vector.pk),
        layer=facts.layer if layer is None else layer,
        strength=facts.dose if strength is None else strength,
        operation=facts.operation,
        prompts=known.held_out,
        behaviour=known.behaviour,
        choices=choices,
        writing=known.writing,
        concept=concept,
        beside=tuple(m for m in known.beside if m != known.behaviour.kind and (concept if m in NAMED else choices)),
    )


def choices_of(vector: Vector) -> tuple[Choice, ...]:
    """Questions made of its dataset's pairs. They built the vector, so they show what it can do at best."""
    pairs = vector.dataset.pairs() if vector.dataset is not None else ()
    asked = [pair for pair in pairs if pair.positive.strip() and pair.negative.strip()][:CHOICES]
    return tuple(Choice(p.prompt, p.positive, p.negative) for p in asked)
