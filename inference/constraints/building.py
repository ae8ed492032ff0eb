"""From a constraint to a matcher of llguidance, within bounds of size and of what a step may cost. Needs no torch."""

from __future__ import annotations

import json
from typing import Any

from inference.constraints import grammars, patterns, schemas
from inference.errors import InvalidRequest
from inference.types import Constraint

# A gap in JSON is nothing, a space, or a line break with an indent: a small model cannot write blanks for ever. Control
# characters without a short escape cannot be written, so that no name can be written in two ways.
JSON_OPTIONS = {
    "whitespace_pattern": r"\x20|\n(?:\x20{0,24}|\t{0,8})",
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
# Of a step: some 10 ms, 30 at the most. Where a grammar is ambiguous, time grows with the cube of a row's items; an
# object takes four for each property that may be left out.
FUEL, ITEMS, ROW_ITEMS, STATES = 100_000, 10_000, 1_000, 50_000


def grammar_of(constraint: Constraint) -> str:
    """For llguidance. Raises InvalidRequest."""
    from llguidance import LLMatcher

    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(patterns.whole(constraint.text))
    if constraint.kind == "grammar":
        return LLMatcher.grammar_from_lark(grammars.rewrite(constraint.text, JSON_OPTIONS))
    if constraint.kind == "json" and constraint.text:
        raise InvalidRequest("bad_constraint", "The constraint json takes no text. For a schema, choose json_schema.")
    schema = schemas.rewrite(schemas.read_json(constraint.text or "{}", "The schema"))
    if schema is False:
        raise InvalidRequest("bad_schema", "The schema is false, which nothing fulfils. Write one that something does.")
    try:
        return LLMatcher.grammar_from_json_schema(json.dumps({} if schema is True else schema), overrides=JSON_OPTIONS)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidRequest("bad_schema", f"The schema cannot be read: {error}. Correct it.") from error


def built(tokenizer: Any, grammar: str) -> tuple[Any, str]:
    """A matcher over llguidance's view of a tokenizer, or the sentence that says why there is none."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(
        step_lexer_fuel=FUEL,
        step_max_items=ITEMS,
        max_items_in_row=ROW_ITEMS,
        max_lexer_states=STATES,
        verbose_errors=False,
    )
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()  # what the first token needs is then known to every row
    if matcher.is_error():
        return None, _said(matcher.get_error())
    if warnings := matcher.get_grammar_warnings():
        return None, _said(warnings[0])
    return matcher, ""


# What llguidance says of the commonest, and what we say instead.
_SAID = {
    "oneOf constraints": "The cases of a oneOf may hold together. Use anyOf, or give each a property with a const",
    "are not disjoint": "A name may match several of patternProperties. Let them begin differently",
    "NoExtension": "Nothing can fulfil it. Correct it",
    "min/maxProperties only": "minProperties and maxProperties need all of properties in required. List them there",
}


def _said(error: str) -> str:
    first = (error.strip().splitlines() or ["It is too large"])[0][:300].rstrip(".")
    ours = next((sentence for words, sentence in _SAID.items() if words in first), "")
    return f"{ours or f'{first}. Make it simpler, or correct it'}."
