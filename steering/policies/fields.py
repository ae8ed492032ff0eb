"""The form of a policy: every field once, with the line that explains it; and the way from JSON to the form and back.

The form shows most of a policy, not all of it, and what people typed may be wrong. So it is merged into the JSON that
it was drawn from: a field that nobody touched changes nothing there, and what the form does not show stays.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inference.policies.schema import explain
from inference.ways import METHODS
from steering.policies.content import shown_text

Kind = Literal[
    "text",
    "number",
    "whole",
    "flag",
    "choice",
    "many",
    "texts",
    "numbers",
    "json",
    "code",
    "blocks",
    "vector",
    "preset",
]
MISSING = object()


@dataclass(frozen=True)
class Field:
    """`path` is where it stands in the JSON, `default` what holds where it is left empty, `says` what it does."""

    path: str
    kind: Kind
    label: str
    says: str
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return "id_" + self.path.replace(".", "_")

    @property
    def placeholder(self) -> str:
        if self.default is None or self.default == () or isinstance(self.default, bool):
            return ""
        return _plain(self.default)

    @property
    def needed_by(self) -> str:
        """The methods that use it, with spaces between; empty for fields that always count."""
        section, _, name = self.path.partition(".")
        if section != "sampling" or name in ALWAYS:
            return ""
        name = RENAMED.get(name, name)
        return " ".join(way.name for way in METHODS.values() if name in way.takes or NEEDED.get(name) == way.needs)


ALWAYS = (
    "method", "repetition_penalty", "frequency_penalty", "presence_penalty", "num_candidates", "diversity_strength",
)  # fmt: skip
RENAMED = {"adaptive_temperature_schedule": "temperature_schedule", "adaptive_top_p_schedule": "top_p_schedule"}
RENAMED |= {"adaptive_top_p": "top_p_schedule"}
NEEDED = {
    "speculative_steps": "draft", "draft_model": "draft", "ensemble_models": "ensemble", "voting": "ensemble",
}  # fmt: skip
LABELS: dict[str, tuple[str, Kind] | str] = {
    "objective.name": "What is best",
    "objective.latency_budget_ms": "Time budget, ms",
    "objective.token_budget": "Token budget",
    "task_profile.name": "Task",
    "model.model": "Model",
    "sampling.method": ("Method", "choice"),
    "sampling.temperature": "Temperature",
    "sampling.top_k": "Top-k",
    "sampling.top_p": "Top-p",
    "sampling.min_p": "Min-p",
    "sampling.typical_p": "Typical-p",
    "sampling.ads_subset_size": "Diverse subset",
    "sampling.ads_beta": "Diversity",
    "sampling.beam_width": "Beam width",
    "sampling.speculative_steps": "Guessed at a time",
    "sampling.draft_model": "Draft model",
    "sampling.ensemble_models": "Members, one a line",
    "sampling.voting": ("Voting", "choice"),
    "sampling.num_candidates": "Candidates",
    "sampling.diversity_strength": "Spread of candidates",
    "sampling.repetition_penalty": "Repetition penalty",
    "sampling.frequency_penalty": "Frequency penalty",
    "sampling.presence_penalty": "Presence penalty",
    "sampling.adaptive_temperature": "Adaptive temperature",
    "sampling.adaptive_temperature_schedule": "Temperatures",
    "sampling.adaptive_top_p": "Adaptive top-p",
    "sampling.adaptive_top_p_schedule": "Values of top-p",
    "steering.enabled": "Steer",
    "steering.vector_id": ("Vector", "vector"),
    "steering.preset": ("Preset", "preset"),
    "steering.strength": "Strength",
    "steering.layer_scope": "Layers",
    "steering.token_start": "From token",
    "steering.token_end": "To before token",
    "constraints.json_mode": "JSON only",
    "constraints.json_schema": "JSON schema",
    "constraints.required_fields": "Required fields, one a line",
    "constraints.regex_pattern": "Pattern",
    "constraints.grammar": ("Grammar", "code"),
    "constraints.forbidden_terms": "Forbidden terms, one a line",
    "constraints.stop_sequences": "Stop before, one a line",
    "constraints.tool_schema": "Tools",
    "verifiers.enabled": ("Checks", "many"),
    "verifiers.repair_on_failure": "Repair",
    "verifiers.max_retries": "Repairs at most",
    "verifiers.rerank": "Rerank",
    "verifiers.code_unit_tests": ("Unit tests, an empty line between", "blocks"),
    "verifiers.unit_test_timeout_ms": "Time for tests, ms",
    "optimization.best_of_n": "Best of",
    "optimization.retry_on_failure": "Retries",
    "optimization.confidence_triggered_regeneration": "Retry when unsure",
    "optimization.confidence_threshold": "Confidence threshold",
    "optimization.self_revision_loops": "Self-revisions",
    "optimization.branch_and_prune": "Branch and prune",
    "optimization.fallback_methods": "Fallback methods, one a line",
}
UNIT_TESTS = ("verifiers.code_unit_tests", "verifiers.unit_test_timeout_ms")
TITLES = {
    "objective": ("Objective", "What the policy is for, and what a run may cost."),
    "sampling": ("Sampling", "How each candidate chooses its tokens. Only what the method takes is shown."),
    "steering": ("Steering", "A vector or a preset that acts on every candidate."),
    "constraints": ("Constraints", "What every answer must be."),
    "verifiers": ("Verifiers", "What looks at every finished candidate. Only what passes is accepted."),
    "optimization": ("Optimization", "How many tries there are, and what is good enough."),
}
SECTION_OF = {"task_profile": "objective", "model": "objective"}


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    says: str
    fields: tuple[Field, ...]


def _fields() -> Iterator[Field]:
    """In the order of LABELS; what each means is the schema's own word."""
    explained = {one.path: one for part in explain().values() for one in part}
    for path, named in LABELS.items():
        one = explained[path]
        label, kind = (named, one.kind) if isinstance(named, str) else named
        says = "" if path == "sampling.method" else one.about.replace("`", "")  # each method says what it does
        yield Field(path, kind, label, says, one.default, one.choices)  # type: ignore[arg-type]


FIELDS = {field.path: field for field in _fields()}
SECTIONS = tuple(
    Section(name, *said, tuple(f for f in FIELDS.values() if SECTION_OF.get(s := f.path.partition(".")[0], s) == name))
    for name, said in TITLES.items()
)


# ---- JSON to form ----


def value_at(content: Mapping[str, Any], path: str) -> Any:
    """What stands there, or MISSING."""
    section, _, name = path.partition(".")
    part = content.get(section)
    return part.get(name, MISSING) if isinstance(part, Mapping) else MISSING


def shown(field: Field, content: Mapping[str, Any]) -> Any:
    """What the form shows: a text; a bool for a flag; a list of texts for `many`."""
    found = _shown(field, content)
    if isinstance(found, bool):
        return found
    return [shown_text(one) for one in found] if isinstance(found, list) else shown_text(found)


def _shown(field: Field, content: Mapping[str, Any]) -> Any:
    value = value_at(content, field.path)
    if field.kind == "flag":
        return bool(field.default if value is MISSING or value is None else value)
    if field.kind == "many":
        return [str(one) for one in value] if isinstance(value, list) else []
    if value is MISSING or value is None:
        return ""
    if isinstance(value, list) and field.kind in ("texts", "numbers", "blocks"):
        return _LIST[field.kind](value)
    if field.kind == "json":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return _plain(value)


_LIST: dict[str, Any] = {
    "texts": lambda values: "\n".join(_on_one_line(value) for value in values),
    "blocks": lambda values: "\n\n".join(map(str, values)),
    "numbers": lambda values: ", ".join(map(_plain, values)),
}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _on_one_line(value: Any) -> str:
    """A line break within a text is written \\n."""
    return _plain(value).replace("\\", "\\\\").replace("\n", "\\n")


def _unfolded(line: str) -> str:
    return re.sub(r"\\(n|\\)", lambda m: "\n" if m[1] == "n" else "\\", line)


# ---- form to JSON ----


def merged(base: dict[str, Any], posted: Any) -> dict[str, Any]:
    """`base` with what the form says. What is no number stays the text that was typed, for the check to refuse."""
    content = copy.deepcopy(base)
    for field in FIELDS.values():
        given = typed(field, posted)
        if given == _as_typed(shown(field, base)):
            continue
        section, _, name = field.path.partition(".")
        part = content.get(section)
        if part is None:
            part = content[section] = {}
        if not isinstance(part, dict):
            continue  # it is refused as it stands
        value = _value(field, given)
        if value is MISSING:
            part.pop(name, None)
        else:
            part[name] = value
        if not part and section not in base:
            del content[section]
    return content


def typed(field: Field, posted: Any) -> Any:
    """What the form holds, in the form of `shown`."""
    if field.kind == "flag":
        return posted.get(field.path) == "1"
    if field.kind == "many":
        return [one for one in posted.getlist(field.path) if one]
    return _as_typed(posted.get(field.path, ""))


def _as_typed(value: Any) -> Any:
    """As a browser sends it back: with other line ends, and perhaps without those at the ends."""
    return value.replace("\r\n", "\n").strip("\n") if isinstance(value, str) else value


def _value(field: Field, given: Any) -> Any:
    if field.kind == "flag":
        return MISSING if given == bool(field.default) else given
    if field.kind == "many":
        return given or MISSING
    if not given.strip():
        return MISSING
    match field.kind:
        case "number" | "whole":
            return number(given.strip())
        case "texts":
            return [_unfolded(line) for line in given.split("\n") if line.strip()]
        case "blocks":
            return [block.strip("\n") for block in re.split(r"\n\s*\n", given) if block.strip()]
        case "numbers":
            return [number(part) for part in given.replace(",", " ").split()]
        case "json":
            return _json(given)
    return given if field.kind == "code" else given.strip()


def number(text: str) -> Any:
    """As a whole number, else a number, else the text itself."""
    for kind in (int, float):
        try:
            found = kind(text)
        except ValueError:
            continue
        return found if math.isfinite(found) else text
    return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def path_of(message: str) -> str:
    """The field that a refusal of the schema is about, by its first words: "sampling.top_p must be …"; or empty."""
    found = re.match(r"([a-z_]+\.[a-z_]+)\b", message)
    return found[1] if found and found[1] in FIELDS else ""


def broken_json(content: Mapping[str, Any]) -> dict[str, str]:
    """By path, why a text that should be JSON is not: said where it was typed, with line and column."""
    found = {}
    for field in FIELDS.values():
        value = value_at(content, field.path)
        if field.kind == "json" and isinstance(value, str):
            try:
                json.loads(value)
                found[field.path] = "This is a text within quotes, not a schema. A schema begins with {."
            except json.JSONDecodeError as error:
                found[field.path] = (
                    f"This is not JSON: {error.msg[:1].lower()}{error.msg[1:]}, at line {error.lineno}, column "
                    f"{error.colno}."
                )
            except (ValueError, RecursionError):
                found[field.path] = "This is not JSON that can be kept. Make it smaller or flatter."
    return found
