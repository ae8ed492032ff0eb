"""From a constraint to the matcher of a row: checked, compiled once per content, within bounds of time and size.

Callers' threads do this, never the engine's. llguidance counts what building a lexer and taking a step may cost, so a
constraint that would take long ends with an error instead; a deadline stands behind that.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from inference.constraints import grammars, patterns, schemas
from inference.constraints.row import RowConstraint, words
from inference.errors import Busy, InvalidRequest
from inference.types import Constraint

log = logging.getLogger(__name__)

KEPT = 64  # compiled constraints
SECONDS = 2.0  # for one to be compiled; most take a millisecond
AT_ONCE = 4  # compilations
# A gap in JSON is nothing, a space, or a line break with an indent: a small model cannot write blanks for ever. Control
# characters without a short escape cannot be written, so that no name can be written in two ways.
JSON_OPTIONS = {
    "whitespace_pattern": r"\x20|\n(?:\x20{0,24}|\t{0,8})",
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
# Of a step: some 10 ms at the most. Time grows with the cube of a row's items where a grammar is ambiguous, which
# those of schemas are not; an object takes four for each property that may be left out.
FUEL, ITEMS, ROW_ITEMS, STATES = 100_000, 10_000, 600, 50_000
SCHEMA_ROW_ITEMS = 2_000


class Compiler:
    """Of one model. Any thread may call it; the tokenizer is read the first time that it is needed (half a second)."""

    def __init__(self, tokenizer: Any, vocab_size: int, eos_ids: Collection[int], special_ids: Collection[int]):
        self._hf = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = sorted(i for i in eos_ids if i < vocab_size)
        self._allowed = np.full(words(vocab_size), -1, dtype=np.int32)
        bits = np.unpackbits(self._allowed.view(np.uint8), bitorder="little")
        bits[sorted({*special_ids} - {*eos_ids})] = 0
        self._allowed = np.packbits(bits, bitorder="little").view(np.int32)
        self._tokenizer: Any = None
        self._reading = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._known: OrderedDict[Constraint, Any] = OrderedDict()
        self._lock = threading.Lock()

    def row(self, constraint: Constraint) -> RowConstraint:
        """For a new row. Raises InvalidRequest, or Busy where too many are being compiled."""
        with self._lock:
            matcher = self._known.get(constraint)
            if matcher is not None:
                self._known.move_to_end(constraint)
        if matcher is None:
            matcher = self._compiled(constraint)
            with self._lock:
                self._known[constraint] = matcher
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
        return RowConstraint(constraint.kind, matcher, self._vocab_size, self._allowed, self._eos_ids)

    def _compiled(self, constraint: Constraint) -> Any:
        grammar = grammar_of(constraint)
        tokenizer = self._read_tokenizer()
        if not self._places.acquire(timeout=SECONDS):
            raise Busy("constraints_busy", "Too many constraints are being compiled. Try again shortly.", retry_after=2)
        matcher, problem = _within(
            SECONDS, lambda: self._built(tokenizer, grammar, constraint.kind), self._places.release
        )
        if problem:
            raise InvalidRequest("constraint_unsupported", f"The {_named(constraint)} cannot be used: {problem}")
        return matcher

    def _built(self, tokenizer: Any, grammar: str, kind: str) -> tuple[Any, str]:
        return built(tokenizer, grammar, kind)

    def _read_tokenizer(self) -> Any:
        with self._reading:
            if self._tokenizer is None:
                self._tokenizer = _wrapped(self._hf, self._vocab_size, self._eos_ids)
            return self._tokenizer


def built(tokenizer: Any, grammar: str, kind: str) -> tuple[Any, str]:
    """A matcher over llguidance's view of a tokenizer, within the limits, or the sentence that says why not."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(
        step_lexer_fuel=FUEL,
        step_max_items=ITEMS,
        max_items_in_row=ROW_ITEMS if kind == "grammar" else SCHEMA_ROW_ITEMS,
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


def _wrapped(tokenizer: Any, vocab_size: int, eos_ids: list[int]) -> Any:
    from llguidance.hf import from_tokenizer

    try:
        if not eos_ids:
            raise ValueError("it has no token that ends a text")
        return from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=eos_ids)
    except Exception as error:  # Rust's errors are plain ValueErrors, or less
        raise InvalidRequest(
            "constraints_need_tokenizer",
            f"This model's tokenizer cannot be constrained: {error}. Leave the constraint out, or serve a model with a "
            "fast tokenizer (byte-level BPE, or SentencePiece with byte fallback).",
        ) from error


def _named(constraint: Constraint) -> str:
    names = {"json_schema": "JSON schema", "regex": "pattern", "grammar": "grammar"}
    return names.get(constraint.kind, "constraint")


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


def _within(seconds: float, work: Callable[[], tuple[Any, str]], then: Callable[[], None]) -> tuple[Any, str]:
    """What `work` returns, or a refusal when time is up; it is then left to end by itself."""
    found: list[tuple[Any, str]] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            log.exception("a constraint could not be compiled")
            found.append((None, f"{error}. Correct it."))
        finally:
            then()

    thread = threading.Thread(target=run, name="constraint", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else (None, f"it takes longer than {seconds:g} s to prepare. Make it simpler.")
