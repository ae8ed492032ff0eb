"""Which column plays which role, and the examples that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inference.types import Pair
from steering.datasets.limits import MAX_LINE_BYTES, BadText
from steering.datasets.records import Record, Table

ROLES = ("prompt", "positive", "negative")
NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "prompts", "question", "questions", "instruction", "input", "query", "user", "context"),
    "positive": (
        "positive", "positives", "positive_answer", "positive_answers", "answer_matching_behavior",
        "positive_text", "positive_texts", "positive_completion", "pos", "chosen", "wanted",
    ),
    "negative": (
        "negative", "negatives", "negative_answer", "negative_answers", "answer_not_matching_behavior",
        "negative_text", "negative_texts", "negative_completion", "neg", "rejected", "unwanted",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Why a record gives no example. `lines` is how many lines it takes up from `line` on."""

    line: int
    lines: int
    raw: str
    message: str
    title: str

    @property
    def can_be_mended(self) -> bool:
        """In a text box of a page; a line that is far too long cannot."""
        return len(self.raw) <= MAX_LINE_BYTES


@dataclass(frozen=True)
class Read:
    """`lines[i]` is the line from which `rows[i]` came."""

    rows: tuple[Pair, ...]
    lines: tuple[int, ...]
    problems: tuple[Problem, ...]


def plain_name(column: str) -> str:
    return "_".join(column.strip().lower().replace("-", " ").replace("_", " ").split())


def looks_like_header(first: list[str], second: list[str]) -> bool:
    """Known names; or single words above a row that holds more than single words."""
    known = {name for names in NAMES.values() for name in names}
    if any(plain_name(cell) in known for cell in first):
        return True
    return all(map(_is_word, first)) and not all(map(_is_word, second))


def _is_word(cell: str) -> bool:
    return cell.strip().replace("-", "_").isidentifier()


def guess(columns: tuple[str, ...]) -> dict[str, str]:
    """Role to column; a role without a column is left out. Unnamed columns are taken in their order."""
    found = {role: column for role in ROLES if (column := _first_known(role, columns))}
    unnamed = all(column.startswith("column ") for column in columns)
    if unnamed and len(columns) >= 2:
        roles = ROLES if len(columns) >= 3 else ROLES[1:]
        return dict(zip(roles, columns, strict=False))
    return found


def _first_known(role: str, columns: tuple[str, ...]) -> str:
    by_name = {plain_name(column): column for column in reversed(columns)}
    return next((by_name[name] for name in NAMES[role] if name in by_name), "")


def kind_of(mapping: Mapping[str, str]) -> str:
    if plain_name(mapping.get("positive", "")) == "answer_matching_behavior":
        return "caa"
    return "pairs" if mapping.get("prompt") else "texts"


def form_of(table: Table, mapping: Mapping[str, str]) -> str:
    """The form of the file in words."""
    names = {plain_name(mapping.get(role, "")) for role in ROLES}
    if "answer_matching_behavior" in names:
        return "CAA: a question with a matching and a not matching answer"
    if "positive_answer" in names:
        return "Mechanex: a prompt with a positive and a negative answer"
    if any(isinstance(record.values.get(mapping.get("positive", "")), list) for record in table.records):
        return "lists of positive and negative texts, paired in their order"
    if mapping.get("prompt"):
        return "a prompt with a positive and a negative answer"
    return "a positive and a negative text"


def read_rows(table: Table, mapping: Mapping[str, str]) -> Read:
    rows: list[Pair] = []
    lines: list[int] = []
    problems: list[Problem] = []
    for record in table.records:
        try:
            found = list(_pairs(record, mapping))
        except BadLine as error:
            problems.append(Problem(record.line, record.lines, record.raw, str(error), error.title))
            continue
        rows += found
        lines += [record.line] * len(found)
    return Read(tuple(rows), tuple(lines), tuple(problems))


class BadLine(BadText):
    """`title` ends the sentence “line 3 …”."""

    def __init__(self, title: str, message: str):
        super().__init__(message)
        self.title = title


def _pairs(record: Record, mapping: Mapping[str, str]) -> Iterator[Pair]:
    if record.problem:
        raise BadLine("cannot be read", record.problem)
    sides = {role: _side(record, role, mapping) for role in ROLES}
    if any(isinstance(sides[role], list) for role in ("positive", "negative")):
        yield from _zipped(sides)
    elif isinstance(sides["prompt"], list):
        raise BadLine("has a list of prompts only", "Give lists for both sides too, or one prompt.")
    else:
        yield checked(Pair(sides["positive"], sides["negative"], sides["prompt"]))


def _side(record: Record, role: str, mapping: Mapping[str, str]) -> Any:
    column = mapping.get(role, "")
    if role == "prompt" and (not column or record.values.get(column) is None):
        return ""
    if column not in record.values:
        has = " and ".join(f"“{name}”" for name in list(record.values)[:4])
        wanted = " or ".join(f"“{name}”" for name in dict.fromkeys((column, role)) if name)
        raise BadLine(f"has no {role} side", f"This line has {has or 'nothing'} but no {wanted}. Add it.")
    value = record.values[column]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    if not isinstance(value, str):
        raise BadLine(f"has a {role} that is not text", f"“{column}” is {_name(value)}. Write a text in quotes.")
    return value


def _zipped(sides: Mapping[str, Any]) -> Iterator[Pair]:
    positives, negatives, prompt = sides["positive"], sides["negative"], sides["prompt"]
    if not isinstance(positives, list) or not isinstance(negatives, list):
        raise BadLine("has a list on one side only", "Give a list on both sides, or one text on each.")
    prompts = prompt if isinstance(prompt, list) else [prompt] * len(positives)
    if not len(positives) == len(negatives) == len(prompts):
        counts = f"{len(positives)} positive and {len(negatives)} negative texts"
        more = f" for {len(prompts)} prompts" if isinstance(prompt, list) else ""
        raise BadLine("has lists of different lengths", f"There are {counts}{more}. Give as many of each.")
    for number, (prompt, positive, negative) in enumerate(zip(prompts, positives, negatives, strict=True), 1):
        yield checked(Pair(positive, negative, prompt), f", pair {number} of its lists,")


def checked(pair: Pair, where: str = "") -> Pair:
    """The pair, or BadLine when it cannot be kept as it is."""
    for role in ("positive", "negative"):
        if not getattr(pair, role).strip():
            advice = f"The {role} text{where} is empty. Write it, or remove the line."
            raise BadLine(f"has an empty {role} side", advice)
    for role in ROLES:
        _refuse_unstorable(role, getattr(pair, role))
    if len(as_line(pair).encode()) > MAX_LINE_BYTES:
        most = MAX_LINE_BYTES // 1024
        raise BadLine("is too long", f"The texts of one pair together have more than {most} kB. Shorten them.")
    return pair


def _refuse_unstorable(role: str, text: str) -> None:
    if "\0" in text:
        raise BadLine("has a NUL character", f"The {role} text has a NUL character. Remove it.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadLine("has half a character", f"The {role} text has half of a character pair. Remove it.") from None


def as_line(pair: Pair) -> str:
    return json.dumps({role: getattr(pair, role) for role in ROLES}, ensure_ascii=False)


def _name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list that holds more than texts" if value else "an empty list"
    return "an object" if isinstance(value, dict) else "a number"
