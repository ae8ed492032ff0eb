"""From a constraint to the matcher of a row: checked, compiled once per content, within bounds of time and size.

Callers' threads do this, never the engine's. llguidance counts what building a lexer and taking a step may cost, so a
constraint that would take long ends with an error instead; a deadline stands behind that.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from inference.constraints.building import built, grammar_of
from inference.constraints.row import RowConstraint, words
from inference.errors import Busy, InvalidRequest
from inference.types import Constraint

log = logging.getLogger(__name__)

KEPT = 64  # compiled constraints
SECONDS = 2.0  # for one to be compiled; most take a millisecond
AT_ONCE = 4  # compilations


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
        build = functools.partial(self._built, tokenizer, grammar)
        matcher, problem = _within(SECONDS, build, self._places.release)
        if problem:
            raise InvalidRequest("constraint_unsupported", f"The {_named(constraint)} cannot be used: {problem}")
        return matcher

    def _built(self, tokenizer: Any, grammar: str) -> tuple[Any, str]:
        return built(tokenizer, grammar)

    def _read_tokenizer(self) -> Any:
        with self._reading:
            if self._tokenizer is None:
                self._tokenizer = _wrapped(self._hf, self._vocab_size, self._eos_ids)
            return self._tokenizer


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
