"""The form of a policy: every field once, with the line that explains it; and the way from JSON to the form and back.

The form shows most of a policy, not all of it, and what people typed may be wrong. So it is merged into the JSON that
it was drawn from: a field that nobody touched changes nothing there, and what the form does not show stays.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "number", "whole", "flag", "choice", "many", "lines", "numbers", "json", "code", "vector", "preset"]
BASE = "base"  # the JSON that a form was drawn from
MISSING = object()
NUMERIC = ("number", "whole")
LISTS = ("lines", "numbers", "many")


@dataclass(frozen=True)
class Field:
    """`path` is where it stands in the JSON, `default` what holds where it is left empty."""

    path: str
    kind: Kind
    label: str
    says: str
    default: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    on: bool = False  # of a flag: what holds where nothing is said

    @property
    def id(self) -> str:
        return "id_" + self.path.replace(".", "_")

    @property
    def parameter(self) -> str:
        """The name under which a method takes it; empty for other fields."""
        section, _, name = self.path.partition(".")
        return name if section == "sampling" else ""


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    says: str
    fields: tuple[Field, ...]


VERIFIERS = (
    ("syntax", "Syntax: where JSON is asked for, it is JSON"),
    ("json_schema", "Schema: it validates against the JSON schema below"),
    ("regex", "Pattern: the whole answer matches the pattern below"),
    ("code_compile", "Code compiles"),
    ("unit_tests", "Unit tests pass"),
    ("tool_args", "Tool arguments fit the tool's schema"),
    ("factuality", "A local judge finds it factual"),
)
VOTING = (
    ("majority", "majority: the text that most members wrote"),
    ("score", "score: the text that scores best"),
    ("mean", "mean: one text from the members' probabilities together"),
)

SECTIONS = (
    Section("objective", "Objective", "What the policy is for, and what it may cost.", (
        Field("objective.name", "text", "Optimise for", "A few words for people and for the trace.", "quality"),
        Field("objective.latency_budget_ms", "whole", "Latency budget, ms", "No further round begins after this; the best so far is returned."),
        Field("objective.token_budget", "whole", "Token budget", "All candidates and retries together write at most this many tokens."),
        Field("task_profile.name", "text", "Task", "What kind of task this is, for people.", "general"),
    )),
    Section("sampling", "Sampling", "How each candidate chooses its tokens. Only the parameters that the method takes are shown.", (
        Field("sampling.method", "choice", "Method", "", "top-k"),
        Field("sampling.temperature", "number", "Temperature", "0 always takes the likeliest token; higher is more varied.", "0.7"),
        Field("sampling.top_k", "whole", "Top-k", "Only the k likeliest tokens are drawn from.", "50"),
        Field("sampling.top_p", "number", "Top-p", "Only the likeliest tokens that together reach this probability.", "0.9"),
        Field("sampling.min_p", "number", "Min-p", "Only tokens at least this share as likely as the likeliest."),
        Field("sampling.typical_p", "number", "Typical-p", "Tokens whose surprise is nearest to what is expected, up to this mass."),
        Field("sampling.ads_subset_size", "whole", "Diverse subset", "How many tokens are drawn together as a diverse set at each step."),
        Field("sampling.ads_beta", "number", "Diversity, 0 to 1", "How much being different counts against being likely."),
        Field("sampling.repetition_penalty", "number", "Repetition penalty", "Above 1, tokens that stand there already become less likely."),
        Field("sampling.frequency_penalty", "number", "Frequency penalty", "Taken off for every time that a token was written."),
        Field("sampling.presence_penalty", "number", "Presence penalty", "Taken off once for a token that was written."),
        Field("sampling.beam_width", "whole", "Beam width", "How many beginnings are followed at once.", "4"),
        Field("sampling.speculative_steps", "whole", "Speculative steps", "Tokens guessed ahead, then judged in one pass.", "4"),
        Field("sampling.draft_model", "text", "Draft model", "A loaded companion that guesses; empty looks guesses up in the text."),
        Field("sampling.ensemble_models", "lines", "Ensemble members", "One a line: the served model, or companions of it."),
        Field("sampling.voting", "choice", "Voting", "How the members agree on one answer.", "majority", VOTING),
        Field("sampling.adaptive_temperature", "flag", "Temperature by schedule", "Each candidate and round takes the next value of the schedule."),
        Field("sampling.adaptive_temperature_schedule", "numbers", "Temperatures", "A list, such as 0.2, 0.5, 0.9; the last value holds from there."),
        Field("sampling.adaptive_top_p", "flag", "Top-p by schedule", "Each candidate and round takes the next value of the schedule."),
        Field("sampling.adaptive_top_p_schedule", "numbers", "Top-p values", "A list, such as 0.9, 0.7, 0.5."),
        Field("sampling.num_candidates", "whole", "Candidates", "Answers written at once, in one batch; the best one wins.", "1"),
        Field("sampling.diversity_strength", "number", "Spread of candidates", "How much hotter the second and third candidate are than the first.", "0"),
    )),
    Section("steering", "Steering", "A vector or a preset that acts on every candidate.", (
        Field("steering.enabled", "flag", "Steer", "Off leaves the rest here without effect."),
        Field("steering.vector_id", "vector", "Vector", "One of your library, at the layer that it recommends."),
        Field("steering.preset", "preset", "Preset", "The vectors of a preset, by name."),
        Field("steering.strength", "number", "Strength", "Of a vector in residual norms; of a preset a factor on its own.", "1"),
        Field("steering.layer_scope", "numbers", "Layers", "Only these layers of the vector; empty is the recommended one."),
        Field("steering.token_start", "whole", "From token", "Counted from 0, the prompt's first token."),
        Field("steering.token_end", "whole", "Before token", "Steering ends before this token."),
    )),
    Section("constraints", "Constraints", "What every answer must be. A candidate that breaks one is not accepted.", (
        Field("constraints.json_mode", "flag", "JSON only", "The answer must be a JSON value."),
        Field("constraints.json_schema", "json", "JSON schema", "The answer must validate against it; tokens that cannot are never written."),
        Field("constraints.required_fields", "lines", "Required fields", "Names that the JSON object must have, one a line."),
        Field("constraints.regex_pattern", "text", "Pattern", "The whole answer must match this regular expression."),
        Field("constraints.grammar", "code", "Grammar", "In Lark’s syntax, with the rule start."),
        Field("constraints.forbidden_terms", "lines", "Forbidden terms", "One a line; upper and lower case count as the same."),
        Field("constraints.stop_sequences", "lines", "Stop at", "One a line: the answer ends before any of them."),
        Field("constraints.tool_schema", "json", "Tool schema", "The JSON schema of the tool’s arguments."),
    )),
    Section("verifiers", "Verifiers", "Checks on the finished text. What fails is not accepted; the model is told why and tries again.", (
        Field("verifiers.enabled", "many", "Check", "", "", VERIFIERS),
        Field("verifiers.repair_on_failure", "flag", "Repair", "Tell the model what failed, and let it write again.", on=True),
        Field("verifiers.max_retries", "whole", "Repairs at most", "How often what failed is written again.", "1"),
        Field("verifiers.rerank", "flag", "Rerank", "Order candidates by what the verifiers found.", on=True),
        Field("verifiers.code_language", "text", "Language of code", "What the code checks expect.", "python"),
        Field("verifiers.code_unit_tests", "code", "Unit tests", "Python statements, run after the code of the answer; an assertion that fails is a failure."),
        Field("verifiers.unit_test_timeout_ms", "whole", "Time for tests, ms", "The tests are ended after this.", "1500"),
    )),
    Section("optimization", "Optimization", "How many tries there are, and what counts as good enough.", (
        Field("optimization.best_of_n", "whole", "Best of", "Candidates in a round, all rows of one batch.", "1"),
        Field("optimization.retry_on_failure", "whole", "Retries", "Further rounds when nothing was accepted.", "1"),
        Field("optimization.confidence_triggered_regeneration", "flag", "Retry when unsure", "Also try again when the score lies below the threshold."),
        Field("optimization.confidence_threshold", "number", "Score threshold", "From 0 to 1.", "0.5"),
        Field("optimization.self_revision_loops", "whole", "Self-revisions", "How often the model is asked to improve its own answer.", "0"),
        Field("optimization.branch_and_prune", "flag", "Branch and prune", "Write short beginnings first and finish only the best."),
        Field("optimization.fallback_methods", "lines", "Fallback methods", "One a line, tried in turn after the retries."),
    )),
)  # fmt: skip
FIELDS = {field.path: field for section in SECTIONS for field in section.fields}


# ---- JSON to form ----


def value_at(content: Mapping[str, Any], path: str) -> Any:
    """What stands there, or MISSING."""
    section, _, name = path.partition(".")
    part = content.get(section)
    return part.get(name, MISSING) if isinstance(part, dict) else MISSING


def shown(field: Field, content: Mapping[str, Any]) -> Any:
    """What the form shows: a text; a bool for a flag; a list of texts for `many`."""
    value = value_at(content, field.path)
    if field.kind == "flag":
        return bool(value) if isinstance(value, bool) else field.on if value is MISSING else bool(value)
    if field.kind == "many":
        return [str(one) for one in value] if isinstance(value, list) else []
    if value is MISSING or value is None:
        return ""
    if field.kind == "lines" or (field.kind == "code" and isinstance(value, list)):
        return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
    if field.kind == "numbers":
        return ", ".join(_plain(one) for one in value) if isinstance(value, list) else _plain(value)
    if field.kind == "json":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 and float(f"{value:g}") == value else json.dumps(
        value, ensure_ascii=False
    )


# ---- form to JSON ----


def merged(base: dict[str, Any], posted: Any) -> dict[str, Any]:
    """`base` with what the form says. What is no number stays the text that was typed, for the check to refuse."""
    content = copy.deepcopy(base)
    for field in FIELDS.values():
        given = typed(field, posted)
        if given == shown(field, base):
            continue
        section, _, name = field.path.partition(".")
        part = content.setdefault(section, {})
        if not isinstance(part, dict):
            continue
        value = _value(field, given)
        if value is MISSING:
            part.pop(name, None)
        else:
            part[name] = value
    return {name: part for name, part in content.items() if part != {} or name in base}


def typed(field: Field, posted: Any) -> Any:
    """What the form holds, in the form of `shown`."""
    if field.kind == "flag":
        return posted.get(field.path) == "1"
    if field.kind == "many":
        return [one for one in posted.getlist(field.path) if one]
    text = posted.get(field.path, "").replace("\r\n", "\n")
    return text if field.kind in ("code", "json", "lines") else text.strip()


def _value(field: Field, given: Any) -> Any:
    if field.kind == "flag":
        return MISSING if given == field.on else given
    if field.kind == "many":
        return given or MISSING
    if not given.strip():
        return MISSING
    match field.kind:
        case "number" | "whole":
            return number(given)
        case "lines":
            return [line for line in given.split("\n") if line.strip()]
        case "numbers":
            return [number(part) for part in given.replace(",", " ").split()]
        case "json":
            return _json(given)
        case "code" if field.path == "verifiers.code_unit_tests":
            return [given]
    return given


def number(text: str) -> Any:
    """As a whole number, else a number, else the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def broken_json(content: Mapping[str, Any]) -> dict[str, str]:
    """By path, why a text that should be JSON is not: said where it was typed, with line and column."""
    found = {}
    for field in FIELDS.values():
        value = value_at(content, field.path)
        if field.kind == "json" and isinstance(value, str):
            try:
                json.loads(value)
            except json.JSONDecodeError as error:
                found[field.path] = (
                    f"This is not JSON: {error.msg[:1].lower()}{error.msg[1:]}, at line {error.lineno}, column "
                    f"{error.colno}."
                )
            except (ValueError, RecursionError):
                found[field.path] = "This is not JSON that can be kept. Make it smaller or flatter."
    return found
