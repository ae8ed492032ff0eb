"""What each recipe asks for, as plain JSON. `version` says by which rules: a change of meaning is a new number."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from inference.types import Operation, Unit, Wire
from steering.refusals import need, parse_uuid, storable

MAX_POINTS = 20_000
MAX_PROMPTS = 200
MAX_TERMS = 400
MAX_PROMPT = 8_000
MAX_STRENGTH = 360.0  # relative units, or degrees
RANDOM_DIRECTIONS = 20  # the fewest for which "beats all of them" is below 5 %
COHERENCE_FLOOR = 0.3  # e ** -1.2: the text may surprise the unsteered model by 1.2 nats per token more than its own

UNITLESS = ("ablate", "affine", "rotate")
NO_CONCEPT = "Say what to look for in a few words, such as calm and patient words: naming and the judge need it."
ALONE = ("add", "ablate", "clamp", "cap", "floor")  # operations for which a direction alone is enough

Kind = Literal["words", "mentions", "lexicon_rate", "lexicon_balance", "json", "list_lines", "naming", "judge"]
Beside = Literal["naming", "answers", "letters", "judge"]
LISTED = ("lexicon_rate", "lexicon_balance", "mentions")  # kinds that need a list of words
NAMED = ("naming", "judge")  # those that need a concept


@dataclass(frozen=True)
class Behaviour(Wire):
    """How much of a behaviour is in a text: a measure of `steering.datasets.measures`, or what the base says.

    `naming` is how many nats per token likelier an answer becomes when `concept` is asked for; `judge` is the base's
    own rating of how much of `concept` it has, 0 to 2. `steering.datasets.behaviours` says what each is worth.
    """

    kind: Kind
    says: str = ""
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"
    terms: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    concept: str = ""

    @property
    def sign(self) -> float:
        return 1.0 if self.better == "higher" else -1.0


@dataclass(frozen=True)
class Writing(Wire):
    """How every text of an experiment is written. `wish` is the behaviour as a system prompt, for comparison."""

    chat: bool = True
    max_tokens: int = 40
    temperature: float = 0.0
    repetition_penalty: float = 1.15  # greedy answers of a small model loop without one, base and steered alike
    seed: int = 1729
    wish: str = ""


@dataclass(frozen=True)
class Sweep(Wire):
    """Every vector at every layer, with every operation, at every strength, on every prompt.

    `directions` random directions of equal norm are measured at the best cell, 0 to leave them out.
    """

    vectors: tuple[str, ...]
    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    prompts: tuple[str, ...]
    behaviour: Behaviour
    operations: tuple[Operation, ...] = ("add",)
    writing: Writing = field(default_factory=Writing)
    floor: float = COHERENCE_FLOOR
    directions: int = 0
    version: int = 1

    @property
    def cells(self) -> int:
        return len(self.vectors) * len(self.layers) * len(self.strengths) * len(self.operations)

    @property
    def points(self) -> int:
        return (self.cells + 1 + bool(self.writing.wish) + self.directions) * len(self.prompts)


@dataclass(frozen=True)
class Find(Wire):
    """The best layer and strength of one vector on `prompts`, then measured once on `held_out`.

    `steps` halve the dose per layer, from `most` relative units.
    """

    vector: str
    layers: tuple[int, ...]
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    behaviour: Behaviour
    operation: Operation = "add"
    writing: Writing = field(default_factory=Writing)
    floor: float = COHERENCE_FLOOR
    most: float = 0.8
    steps: int = 5
    directions: int = RANDOM_DIRECTIONS
    version: int = 1

    @property
    def points(self) -> int:
        tuning = (len(self.layers) * self.steps + 1) * len(self.prompts)
        return tuning + (2 + bool(self.writing.wish) + self.directions) * len(self.held_out)


@dataclass(frozen=True)
class Choice(Wire):
    """A question with two answers, of which `positive` shows the behaviour."""

    prompt: str
    positive: str
    negative: str


@dataclass(frozen=True)
class Evaluate(Wire):
    """One working point, measured in every way there is. `doses` are parts of `strength` for the propensity curve.

    `beside` are the measures that are shown beside the behaviour's own; `choices` are for `answers` and `letters`,
    `concept` is for `naming` and `judge`.
    """

    vector: str
    layer: int
    strength: float
    prompts: tuple[str, ...]
    behaviour: Behaviour
    choices: tuple[Choice, ...] = ()
    operation: Operation = "add"
    writing: Writing = field(default_factory=Writing)
    doses: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    concept: str = ""
    beside: tuple[Beside, ...] = ()
    floor: float = COHERENCE_FLOOR
    version: int = 2

    @property
    def points(self) -> int:
        written = (2 + bool(self.writing.wish)) * len(self.prompts)
        each = ("answers" in self.beside) + 2 * ("letters" in self.beside)
        return written + each * len(self.choices) * len(self.doses)


Settings = Sweep | Find | Evaluate
SETTINGS: dict[str, type[Settings]] = {"sweep": Sweep, "find": Find, "evaluate": Evaluate}


def check(settings: Settings) -> None:
    """What needs no database and no model. Raises InvalidRequest naming the way out."""
    for vector in vectors_of(settings):
        parse_uuid(vector, "vector")
    _check_prompts(settings)
    _check_behaviour(settings.behaviour)
    _check_writing(settings.writing)
    need(0 < settings.floor <= 1, "floor", "The coherence floor lies between 0 and 1; 0.3 is usual.")
    match settings:
        case Sweep():
            _check_sweep(settings)
        case Find():
            _check_find(settings)
        case Evaluate():
            _check_evaluate(settings)
    need(
        settings.points <= MAX_POINTS,
        "too_many_points",
        f"This is {settings.points:,} completions; {MAX_POINTS:,} is the most for one experiment. Take fewer layers, "
        "strengths or prompts.",
    )


def vectors_of(settings: Settings) -> tuple[str, ...]:
    return settings.vectors if isinstance(settings, Sweep) else (settings.vector,)


def _check_sweep(sweep: Sweep) -> None:
    need(bool(sweep.vectors), "no_vector", "Choose at least one vector to sweep.")
    need(bool(sweep.layers), "no_layer", "Name at least one layer, such as 6-12.")
    need(bool(sweep.strengths), "no_strength", "Name at least one strength, such as 0.2, 0.4, 0.6.")
    need(bool(sweep.operations), "no_operation", "Choose at least one operation.")
    for name in ("vectors", "layers", "strengths", "operations"):
        values = getattr(sweep, name)
        need(len(set(values)) == len(values), "twice", f"One of the {name} is named twice. Name each once.")
    small = all(abs(strength) <= MAX_STRENGTH for strength in sweep.strengths)
    need(small, "strength", "Strengths go from -360 to 360.")
    if sweep.directions:
        for operation in sweep.operations:
            _check_alone(operation)
    need(0 <= sweep.directions <= 100, "directions", "Take 0 to 100 random directions; 20 make a band.")


def _check_evaluate(evaluate: Evaluate) -> None:
    need(abs(evaluate.strength) <= MAX_STRENGTH, "strength", "Strengths go from -360 to 360.")
    need(len(evaluate.choices) <= MAX_PROMPTS, "too_many_choices", f"At most {MAX_PROMPTS} questions are asked.")
    need(
        2 <= len(set(evaluate.doses)) == len(evaluate.doses) <= 21,
        "doses",
        "The propensity curve needs 2 to 21 different doses.",
    )
    beside = set(evaluate.beside)
    need(len(beside) == len(evaluate.beside), "twice", "One of the measures beside is named twice. Name each once.")
    need(
        bool(evaluate.choices) or not beside & {"answers", "letters"},
        "no_choices",
        "There are no pairs to ask about. Leave out whole answers and letters, or take a vector of pairs.",
    )
    need(bool(evaluate.concept.strip()) or not beside & set(NAMED), "no_concept", NO_CONCEPT)
    for choice in evaluate.choices:
        for text in (choice.positive, choice.negative):
            need(bool(text.strip()), "empty_answer", "A question lacks one of its two answers. Write both.")
        for text in (choice.prompt, choice.positive, choice.negative):
            need(
                len(text) <= MAX_PROMPT, "too_long", f"A question has more than {MAX_PROMPT:,} characters. Shorten it."
            )
            storable(text, "A question")
    storable(evaluate.concept, "The concept")


def _check_alone(operation: str) -> None:
    """A random direction stands beside the vector only where a direction alone says what to do."""
    need(
        operation in ALONE,
        "no_null",
        f"“{operation}” needs more than a direction, so there is no random one to compare with. Use one of "
        f"{', '.join(ALONE)}, or sweep it without random directions.",
    )


def _check_find(find: Find) -> None:
    _check_alone(find.operation)
    need(bool(find.layers), "no_layer", "Name at least one layer to try, such as 6-12.")
    need(len(set(find.layers)) == len(find.layers), "twice", "A layer is named twice. Name each once.")
    need(0 < find.most <= MAX_STRENGTH, "most", "The largest dose to try is above 0 and at most 360.")
    need(1 <= find.steps <= 12, "steps", "Halve the dose 1 to 12 times; 5 come within 0.03 of the edge.")
    need(
        RANDOM_DIRECTIONS <= find.directions <= 200,
        "directions",
        f"A null band needs at least {RANDOM_DIRECTIONS} random directions, and takes at most 200.",
    )
    need(
        len(find.held_out) >= 4,
        "few_held_out",
        f"{len(find.held_out)} held-out prompts cannot carry an interval. Give at least 8 prompts, of which half are "
        "held out.",
    )
    both = set(find.prompts) & set(find.held_out)
    need(not both, "leak", "A prompt is both tuned on and held out. Leave it in one of the two.")


def _check_prompts(settings: Settings) -> None:
    held_out = settings.held_out if isinstance(settings, Find) else ()
    for prompts in (settings.prompts, held_out):
        need(len(prompts) <= MAX_PROMPTS, "too_many_prompts", f"{len(prompts)} prompts are more than {MAX_PROMPTS}.")
        need(len(set(prompts)) == len(prompts), "twice", "A prompt is there twice. Leave each once.")
    need(bool(settings.prompts), "no_prompts", "Give at least one prompt, one on a line.")
    for prompt in (*settings.prompts, *held_out):
        need(bool(prompt.strip()), "empty_prompt", "A prompt is empty. Take the line out.")
        need(len(prompt) <= MAX_PROMPT, "too_long", f"A prompt has more than {MAX_PROMPT:,} characters. Shorten it.")
        storable(prompt, "A prompt")


def _check_behaviour(behaviour: Behaviour) -> None:
    kind = behaviour.kind
    terms = (*behaviour.terms, *behaviour.against)
    if kind in LISTED:
        need(bool(behaviour.terms), "no_terms", "Name the words that show the behaviour, such as calm*, gently.")
    if kind in NAMED:
        need(bool(behaviour.concept.strip()), "no_concept", NO_CONCEPT)
    need(len(terms) <= MAX_TERMS, "too_many_terms", f"At most {MAX_TERMS} words can be looked for.")
    need(all(0 < len(t) <= 80 for t in terms), "bad_term", "A word to look for has 1 to 80 characters.")
    for text in (*terms, behaviour.concept, behaviour.says):
        storable(text, "The behaviour")


def _check_writing(writing: Writing) -> None:
    need(1 <= writing.max_tokens <= 1024, "max_tokens", "An answer has 1 to 1,024 tokens; 40 are enough to compare.")
    need(0 <= writing.temperature <= 2, "temperature", "The temperature lies between 0 and 2; 0 is greedy.")
    need(0.5 <= writing.repetition_penalty <= 2, "repetition_penalty", "The repetition penalty lies between 0.5 and 2.")
    need(0 <= writing.seed < 2**31, "seed", "The seed is a whole number from 0 to 2147483647.")
    storable(writing.wish, "The system prompt")
    need(len(writing.wish) <= MAX_PROMPT, "too_long", f"The system prompt has more than {MAX_PROMPT:,} characters.")


def split(prompts: tuple[str, ...], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Half to tune on, half (the larger one) held out; the same halves for the same seed."""
    order = list(range(len(prompts)))
    random.Random(seed).shuffle(order)  # noqa: S311  no secret
    tuned = sorted(order[: len(prompts) // 2])
    return tuple(prompts[i] for i in tuned), tuple(prompts[i] for i in sorted(order[len(prompts) // 2 :]))


def unit_of(operation: str) -> Unit:
    """Where strength has a scale of its own, a unit means nothing."""
    return "raw" if operation in UNITLESS else "relative"
