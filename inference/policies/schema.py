"""A policy: what is wanted, how it is written, and what must hold. Names and defaults are those of Mechanex's schema.

Every field says in its metadata what it means (`about`), and where there are any, its `low` and `high` ends and
`choices`, so that a form can be drawn from it (`explain`). `Policy.parse` refuses what is unknown, out of range or
contradictory.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from inference.errors import InvalidRequest
from inference.wire import Wire

MOST_CANDIDATES = 16  # of a round: rows of one batch
MOST_RETRIES = 8
MOST_NAMES = 16  # in one list
MOST_TESTS = 50
LONGEST_TEXT = 100_000  # characters of a schema, pattern, grammar or test

VERIFIERS = ("syntax", "json_schema", "regex", "code_compile", "unit_tests", "tool_args", "factuality")
UNITS = ("relative", "raw")
VOTING = ("majority", "texts", "mixture", "product")
LANGUAGES = ("python",)


def _says(
    about: str,
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    of: type | None = None,
) -> Any:
    """A field with its meaning. `of` makes the default: dict. `above`: the lower end is left out."""
    metadata = {"about": about, "low": low, "high": high, "above": above, "choices": choices}
    if of is not None:
        return dataclasses.field(default_factory=of, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TaskProfile(Wire):
    """What the policy is for, in words for people. It changes nothing."""

    name: str = _says("What kind of task this is, in your words. It changes nothing.", "general")
    category: str | None = _says("A word to sort policies by. It changes nothing.", None)
    description: str | None = _says("What the task is, for people. It changes nothing.", None)


@dataclass(frozen=True)
class Objective(Wire):
    """What the best answer is, and what it may cost."""

    name: str = _says(
        "What is to be best, in your words. It changes nothing: the score is the same for all.", "quality"
    )
    maximize: bool = _says("The answer with the highest score wins. Choosing the worst is not offered.", True)
    latency_budget_ms: int | None = _says(
        "Milliseconds for the whole run. When they are over, what still writes is cancelled and the best so far is "
        "the answer.",
        None,
        low=1,
        high=3_600_000,
    )
    token_budget: int | None = _says(
        "Tokens that all candidates of all rounds may write together. Each gets an equal part of what is left.",
        None,
        low=1,
        high=10_000_000,
    )


@dataclass(frozen=True)
class ModelPart(Wire):
    """The model that answers."""

    model: str = _says('The id of a served model; "default" is the one that is served by default.', "default")
    base_url: str | None = _says("Refused: no other host is asked. Name a model that is served here.", None)


@dataclass(frozen=True)
class Sampling(Wire):
    """How tokens are chosen, and how many candidates are written. `inference.ways` has what each method takes."""

    method: str = _says(
        "greedy, top-k, top-p, min-p, typical, ads, guided-generation, constrained-beam-search, ssd (or "
        "speculative-decoding), ensemble-sampling. One and the same wherever a method is named.",
        "top-k",
    )
    temperature: float = _says("How freely tokens are chosen; 0 always takes the likeliest.", 0.7, low=0, high=10)
    top_k: int = _says("top-k: how many of the likeliest tokens are in. 0 is off.", 50, low=0, high=10_000_000)
    top_p: float = _says("top-p: tokens are in until their probability reaches this.", 0.9, above=0, high=1)
    min_p: float | None = _says("min-p: tokens at least this share as likely as the likeliest.", None, low=0, high=1)
    typical_p: float | None = _says("typical: the mass of the tokens of ordinary surprise.", None, above=0, high=1)
    ads_subset_size: int | None = _says("ads: how many tokens a diverse subset has.", None, low=2, high=16)
    ads_beta: float | None = _says("ads: how much being different counts against being likely.", None, low=0, high=1)
    repetition_penalty: float | None = _says("Divides the logits of tokens that occurred.", None, above=0, high=10)
    frequency_penalty: float | None = _says("Taken off a token's logit each time it occurred.", None, low=-2, high=2)
    presence_penalty: float | None = _says("Taken off the logits of tokens that occurred.", None, low=-2, high=2)
    num_candidates: int = _says(
        "Candidates of a round; the larger of this and best_of_n counts. They are rows of one batch.",
        1,
        low=1,
        high=MOST_CANDIDATES,
    )
    diversity_strength: float = _says(
        "Candidates after the first get hotter: by 0, 0.1 or 0.2 times this, in turn.", 0.0, low=0, high=10
    )
    beam_width: int = _says("constrained-beam-search: continuations that are kept.", 4, low=1, high=16)
    speculative_steps: int = _says("speculative-decoding: tokens that are guessed at a time.", 4, low=1, high=16)
    draft_model: str | None = _says(
        "speculative-decoding: a companion model that guesses. Without one, guesses are looked up in the text.", None
    )
    ensemble_models: tuple[str, ...] = _says("ensemble-sampling: the models that answer together.", ())
    voting: str = _says(
        "How an ensemble answers. majority: token by token where all models share a tokenizer, else by a vote over "
        "finished texts. texts: always by a vote over finished texts. mixture, product: token by token.",
        "majority",
        choices=VOTING,
    )
    adaptive_temperature: bool = _says(
        "Each candidate takes its temperature from the schedule below. Without a schedule each token's follows how "
        "sure the model is.",
        False,
    )
    adaptive_temperature_schedule: tuple[float, ...] = _says("Temperatures by candidate, then by round.", ())
    adaptive_top_p: bool = _says("Each candidate takes its top_p from the schedule below.", False)
    adaptive_top_p_schedule: tuple[float, ...] = _says("Values of top_p by candidate, then by round.", ())


@dataclass(frozen=True)
class SteeringPart(Wire):
    """What steers every candidate. Name one of `vector_id`, `vector` and `preset`."""

    enabled: bool = _says("Steering is applied. A vector that is named but not enabled does nothing.", False)
    method: str = _says("How the vector was made, for people. It changes nothing.", "caa")
    vector_id: str | None = _says("A stored vector.", None)
    vector: dict[str, tuple[float, ...]] | None = _says(
        "Directions by layer, or by hook name such as blocks.9.hook_resid_post. They are added to the residual stream "
        "behind the block, raw: each times the strength.",
        None,
    )
    file_url: str | None = _says("Refused: no other host is asked. Import the vector's file instead.", None)
    preset: str | None = _says("A steering preset by name.", None)
    strength: float = _says(
        "Of a stored vector: in residual norms of its layer, unless `unit` says raw. Of directions given here: a "
        "factor. Of a preset: a factor on its own strengths.",
        1.0,
        low=-10_000,
        high=10_000,
    )
    layer_scope: tuple[int, ...] = _says("Only these layers; empty: those that the vector recommends.", ())
    token_start: int | None = _says("The first token that is steered; 0 is the prompt's first.", None, low=0)
    token_end: int | None = _says("The first token that is no longer steered.", None, low=1)
    unit: str = _says(
        "Of a stored vector's strength. relative: residual norms of its layer. raw: how many times the vector is "
        "added, as programs of Mechanex mean it.",
        "relative",
        choices=UNITS,
    )


@dataclass(frozen=True)
class Constraints(Wire):
    """What the answer must be. One of the first five kinds is enforced token by token; all are checked at the end."""

    json_mode: bool = _says("The answer is one JSON object or array and nothing else.", False)
    json_schema: dict[str, Any] | None = _says("A JSON Schema (Draft 2020-12) for the answer.", None)
    required_fields: tuple[str, ...] = _says("Names that the answer, a JSON object, must have.", ())
    regex_pattern: str | None = _says("The whole answer matches this pattern.", None)
    grammar: str | None = _says("A grammar in Lark's syntax with the rule `start`; or `regex:` and a pattern.", None)
    forbidden_terms: tuple[str, ...] = _says(
        "None of these may occur, in upper or lower case. Checked, not enforced.", ()
    )
    stop_sequences: tuple[str, ...] = _says("Writing ends before any of these.", ())
    tool_schema: dict[str, Any] | None = _says(
        'The answer is a call {"tool_name", "arguments"}. A list of tools under "tools" (each with "name" and '
        '"parameters"), one tool, or a JSON Schema of the arguments alone.',
        None,
    )


@dataclass(frozen=True)
class Verifiers(Wire):
    """What looks at every finished candidate. An answer is accepted only where all of them pass."""

    enabled: tuple[str, ...] = _says(
        "syntax: JSON, or fenced code, parses. json_schema: it validates. regex: the whole text matches. code_compile: "
        "the first fenced block, else the text, compiles. unit_tests: it passes the tests below, in a sandbox. "
        "tool_args: a tool is called with the arguments that it takes. factuality: the model itself is asked whether "
        "the answer is true.",
        (),
        choices=VERIFIERS,
    )
    repair_on_failure: bool = _says("A retry shows the model its answer and says what was wrong.", True)
    max_retries: int = _says(
        "How many retries may be such repairs; further ones begin anew.", 1, low=0, high=MOST_RETRIES
    )
    rerank: bool = _says("Among equal scores the likeliest answer wins; else the first.", True)
    code_language: str = _says("The language of code. Only python is checked here.", "python", choices=LANGUAGES)
    code_unit_tests: tuple[str, ...] = _says(
        "Python statements that fail by raising, such as `assert add(1, 2) == 3`.", ()
    )
    unit_test_timeout_ms: int = _says("For all unit tests of a candidate.", 1500, low=100, high=60_000)


@dataclass(frozen=True)
class Optimization(Wire):
    """How much is tried."""

    best_of_n: int = _says("Candidates of a round; the best is the answer.", 1, low=1, high=MOST_CANDIDATES)
    retry_on_failure: int = _says(
        "Further rounds while no candidate is accepted, each a little colder.", 1, low=0, high=MOST_RETRIES
    )
    confidence_triggered_regeneration: bool = _says(
        "Also retry when the best answer's confidence is below the threshold.", False
    )
    confidence_threshold: float = _says(
        "Confidence is exp of the mean log-probability of the answer's tokens: 1 is certain.", 0.5, low=0, high=1
    )
    self_revision_loops: int = _says(
        "How often the model is asked to improve its own answer; one that scores lower is not taken.", 0, low=0, high=4
    )
    branch_and_prune: bool = _says(
        "When half of the tokens are written, the less likely half of the candidates ends.", False
    )
    fallback_methods: tuple[str, ...] = _says("Sampling methods that are tried in turn after the retries.", ())


@dataclass(frozen=True)
class Policy(Wire):
    """The whole. Everything may be left out."""

    id: str | None = _says("The id under which it is stored.", None)
    name: str | None = _says("Its name.", None)
    description: str | None = _says("What it is for.", None)
    metadata: dict[str, Any] = _says("Whatever you want to keep with it. It changes nothing.", of=dict)
    task_profile: TaskProfile = _says("What the policy is for.", TaskProfile())
    objective: Objective = _says("What is wanted, and what it may cost.", Objective())
    model: ModelPart = _says("The model that answers.", ModelPart())
    sampling: Sampling = _says("How tokens are chosen.", Sampling())
    steering: SteeringPart = _says("What steers.", SteeringPart())
    constraints: Constraints = _says("What the answer must be.", Constraints())
    verifiers: Verifiers = _says("What looks at the answer.", Verifiers())
    optimization: Optimization = _says("How much is tried.", Optimization())

    @classmethod
    def parse(cls, data: Any) -> Policy:
        """From JSON. A part that is null stands for its default.

        Raises InvalidRequest: "unknown_field" naming the nearest, "invalid_field" for a wrong type, "bad_<field>" for a
        value out of range, and those of `inference.policies.checking` for parts that contradict each other.
        """
        from inference.policies.checking import check

        _refuse_unknown(cls, data, "policy")
        policy = cls.from_wire(_without_null_parts(data))
        _check_ranges(policy, "")
        check(policy)
        return policy

    @property
    def candidates(self) -> int:
        """Candidates of a round."""
        return max(1, self.optimization.best_of_n, self.sampling.num_candidates)

    @property
    def title(self) -> str:
        return self.name or self.task_profile.name


PARTS: dict[str, type[Wire]] = {
    "task_profile": TaskProfile,
    "objective": Objective,
    "model": ModelPart,
    "sampling": Sampling,
    "steering": SteeringPart,
    "constraints": Constraints,
    "verifiers": Verifiers,
    "optimization": Optimization,
}


@dataclass(frozen=True)
class Explained(Wire):
    """A field as a form may show it. `path` is dotted; `kind` is text, flag, whole, number, texts, numbers or json."""

    path: str
    name: str
    kind: str
    default: Any
    about: str
    low: float | None
    high: float | None
    above: float | None
    choices: tuple[str, ...]


def explain() -> dict[str, tuple[Explained, ...]]:
    """Every field of every part, in order."""
    return {part: tuple(_explained(part, kind)) for part, kind in PARTS.items()}


def _explained(part: str, kind: type[Wire]) -> Iterable[Explained]:
    hints = get_type_hints(kind)
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]
        said = f.metadata
        yield Explained(
            f"{part}.{f.name}", f.name, _KINDS[str(hints[f.name])], f.default, said["about"], said["low"],
            said["high"], said["above"], said["choices"],
        )  # fmt: skip


_KINDS = {
    str(hint): word
    for word, hints in {
        "text": (str, str | None),
        "flag": (bool,),
        "whole": (int, int | None),
        "number": (float, float | None),
        "texts": (tuple[str, ...],),
        "numbers": (tuple[float, ...], tuple[int, ...]),
        "json": (dict[str, Any] | None, dict[str, tuple[float, ...]] | None),
    }.items()
    for hint in hints
}


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean x? `, or nothing where no known name looks like it."""
    near = difflib.get_close_matches(name[:60], list(known), 1, 0.5)
    return f"Did you mean {near[0]}? " if near else ""


def _refuse_unknown(kind: type[Any], data: Any, where: str) -> None:
    if not isinstance(data, Mapping):
        raise InvalidRequest("invalid_field", f"{where} must be an object. Send a policy as JSON.")
    known = [f.name for f in dataclasses.fields(kind)]
    for name in data:
        if name not in known:
            raise InvalidRequest(
                "unknown_field",
                f"{where} has no field {str(name)[:60]!r}. {nearest(str(name), known)}There are {', '.join(known)}.",
            )
    for name, part in PARTS.items() if kind is Policy else ():
        if data.get(name) is not None:
            _refuse_unknown(part, data[name], name)


def _without_null_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """null stands for the default, except where null is a value."""
    found = {k: v for k, v in data.items() if v is not None}
    for name, part in PARTS.items():
        if isinstance(found.get(name), Mapping):
            nullable = {f.name for f in dataclasses.fields(part) if f.default is None}  # type: ignore[arg-type]
            found[name] = {k: v for k, v in found[name].items() if v is not None or k in nullable}
    return found


def _check_ranges(item: Any, path: str) -> None:
    for f in dataclasses.fields(item):
        value, where = getattr(item, f.name), f"{path}{f.name}"
        if dataclasses.is_dataclass(value):
            _check_ranges(value, f"{where}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(where, f.name, value, f.metadata)
        elif f.metadata["choices"]:
            for one in (value,) if isinstance(value, str) else value:
                _check_choice(where, one, f.metadata["choices"])


def _check_range(where: str, name: str, value: float, said: Mapping[str, Any]) -> None:
    low, high, above = said["low"], said["high"], said["above"]
    if (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above):
        return
    ends = [f"above {above:g}" if above is not None else f"at least {low:g}" if low is not None else ""]
    ends += [f"at most {high:g}" if high is not None else ""]
    raise InvalidRequest(f"bad_{name}", f"{where} must be {' and '.join(filter(None, ends))}. It was {value:g}.")


def _check_choice(where: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        said = f"{where} has no {value[:60]!r}. {nearest(value, choices)}There are {', '.join(choices)}."
        raise InvalidRequest("unknown_name", said)
