"""What one row may still write: its matcher, moved on token by token, and the mask of what may come next."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.sampling import NO_TOKEN
from inference.types import AppliedConstraint

_STUCK = "Nothing that the model can write continues this text. Make the constraint simpler."


def words(vocab_size: int) -> int:
    """int32 words that hold a bit per token."""
    return (vocab_size + 31) // 32


class RowConstraint:
    """A constraint on its way through one row. Knows token ids; neither thread-safe nor shared between rows.

    `complete`: what was accepted fulfils the constraint. `ended`: nothing may follow, so the row is to end. `problem`:
    a sentence that says why nothing can be chosen any more; then masks allow nothing.
    """

    def __init__(self, kind: str, matcher: Any, vocab_size: int, allowed: np.ndarray, eos_ids: Sequence[int]):
        """`matcher` is llguidance's at the text's beginning, and stays so; `allowed`, int32 words, is text."""
        self.kind = kind
        self.problem = ""
        self._beginning = matcher
        self.matcher = matcher.deep_copy()
        self._vocab_size = vocab_size
        self._allowed = allowed
        self._eos_ids = frozenset(eos_ids)
        self._accepted: list[int] = []  # NO_TOKEN where nothing could be chosen

    @property
    def masked(self) -> int:
        """Tokens that were chosen under a mask and stand."""
        return sum(token != NO_TOKEN for token in self._accepted)

    @property
    def complete(self) -> bool:
        return not self.problem and self.matcher.is_accepting()

    @property
    def ended(self) -> bool:
        return not self.problem and self.matcher.is_stopped()

    def mask(self) -> Tensor:
        """bool[vocab] on the CPU: the tokens that may come next, the end of text among them where it may end."""
        bits = allowed_next([self], self._vocab_size)
        return torch.from_numpy(
            np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._vocab_size].view(np.bool_)
        )

    def allows(self, token: int) -> bool:
        """Whether `token` may come next, the end of the text aside."""
        text = token // 32 < len(self._allowed) and bool(self._allowed[token // 32] >> (token % 32) & 1)
        return text and not self.problem and token not in self._eos_ids and self.matcher.validate_tokens([token]) == 1

    def settle(self, bits: np.ndarray) -> None:
        """Finish int32 words that the matcher has filled: no special tokens, and nothing where it is stuck."""
        bits &= self._allowed
        if self.matcher.is_error():
            self._fail(self.matcher.get_error())
        elif not bits.any():
            self._fail("")
        if self.problem:
            bits[:] = 0

    def accept(self, token: int) -> None:
        """A token that the mask allowed was chosen."""
        self._accepted.append(token)
        if token != NO_TOKEN and not self.problem and not self.matcher.consume_token(token):
            self._fail(self.matcher.get_error())

    def rewind(self, n: int) -> None:
        """Take back the last `n` tokens that were accepted."""
        if not n:
            return
        gone = sum(token != NO_TOKEN for token in self._accepted[-n:])
        del self._accepted[-n:]
        if self.problem or not self.matcher.rollback(gone):
            self.problem = ""
            self.matcher = self._beginning.deep_copy()
            self.matcher.consume_tokens(self._accepted)

    def copy(self) -> RowConstraint:
        """Another that goes on from here, apart from this one: for beams and drafts."""
        other = copy.copy(self)
        other.matcher, other._accepted = self.matcher.deep_copy(), list(self._accepted)
        return other

    def applied(self, problem: str = "", *, cut: bool = False) -> AppliedConstraint:
        """For the receipt. `problem`: what ended the text where it is not complete. `cut`: some of it was left out."""
        complete = self.complete and not cut
        return AppliedConstraint(self.kind, complete, self.masked, "" if complete else self.problem or problem)

    def _fail(self, error: str) -> None:
        first = (error.strip().splitlines() or [""])[0].rstrip(".")
        self.problem = f"The constraint became too complex to follow ({first}). Make it simpler." if first else _STUCK


def allowed_next(constraints: Sequence[RowConstraint], vocab_size: int) -> np.ndarray:
    """int32[constraints, words]: a bit for each token, set where it may come next.

    One after another: threads of llguidance's would wait for those of the matrix products, which spin.
    """
    bits = np.zeros((len(constraints), words(vocab_size)), dtype=np.int32)
    for constraint, row in zip(constraints, bits, strict=True):
        constraint.matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        constraint.settle(row)
    return bits
