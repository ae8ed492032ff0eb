"""How much of a behaviour is in a text, judged by its words alone and by no vector.

A measure is data, kept with each starter dataset:

    lexicon_rate     words and phrases of `terms`, per 100 words
    lexicon_balance  those of `terms` minus those of `against`, per 100 words
    mentions         1.0 if any of `terms` occurs, else 0.0; the mean over answers is a share
    words            number of words
    json             1.0 if a JSON object or array that is not empty can be read out of it, else 0.0
    list_lines       share of the lines that are points of a list

`better` says which way is wanted: "higher" or "lower". A term matches whole words, whatever their case; a term that
ends in * matches every word that begins so. None of these understands a text: a denial counts like a claim.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['’\-&.][^\W_]+)*")
POINT = re.compile(r"\s*(?:[-*+•–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])\s+\S")
MOST_STARTS = 100  # brackets at which JSON is looked for


def score(text: str, measure: Mapping[str, Any]) -> float:
    """The measure of one answer. An empty answer scores 0. Raises ValueError for a kind that does not exist."""
    match measure["kind"]:
        case "words":
            return float(count_words(text))
        case "mentions":
            return float(count_terms(text, measure["terms"]) > 0)
        case "lexicon_rate":
            return per_hundred(count_terms(text, measure["terms"]), text)
        case "lexicon_balance":
            surplus = count_terms(text, measure["terms"]) - count_terms(text, measure["against"])
            return per_hundred(surplus, text)
        case "json":
            return float(has_json(text))
        case "list_lines":
            return list_lines(text)
    raise ValueError(f"There is no measure of kind {measure['kind']!r}.")


def count_words(text: str) -> int:
    return len(WORD.findall(text))


def count_terms(text: str, terms: list[str]) -> int:
    """Occurrences of any of the terms; where two begin at one place, the longer counts."""
    return len(_pattern(tuple(terms)).findall(text.replace("’", "'")))


def per_hundred(count: int, text: str) -> float:
    words = count_words(text)
    return 100.0 * count / words if words else 0.0


@lru_cache(maxsize=64)
def _pattern(terms: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(_term, longest_first))})(?!\w)", re.IGNORECASE)


def _term(term: str) -> str:
    stem = re.escape(term.removesuffix("*")).replace(r"\ ", r"\s+")
    return stem + r"\w*" if term.endswith("*") else stem


def has_json(text: str) -> bool:
    """Whether an object or array stands somewhere in it, whole and with something inside, whatever is around it."""
    starts = [found.start() for found in re.finditer(r"[\[{]", text)]
    return any(_json_at(text, start) for start in starts[:MOST_STARTS])


def _json_at(text: str, start: int) -> bool:
    try:
        value, _ = json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)
    except (ValueError, RecursionError):
        return False
    return bool(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def list_lines(text: str) -> float:
    """Share of the lines with anything on them that begin as a point does: "1. ", "a) ", "- ", "* ", "• "."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sum(POINT.match(line) is not None for line in lines) / len(lines) if lines else 0.0


def distinct_2(text: str) -> float:
    """Share of word pairs that are different ones: 1.0 is lively, near 0 is a loop. 1.0 for fewer than two pairs."""
    words = [word.casefold() for word in WORD.findall(text)]
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def repetition(text: str, n: int = 4) -> float:
    """Share of runs of `n` words that were already said before: 0.0 is none, near 1 is a loop."""
    words = [word.casefold() for word in WORD.findall(text)]
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0
