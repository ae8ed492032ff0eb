"""What one row may still write: its matcher, moved on token by token, and the mask of what may come next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inference.types import AppliedConstraint


class RowConstraint:
    """A constraint on its way through one row. Knows token ids; neither thread-safe nor shared between rows.

    `complete`: what was accepted fulfils the constraint. `ended`: nothing may follow, so the row is to end. `problem`:
    a sentence that says why nothing can be chosen any more; then masks allow nothing.
    """

    def __init__(self, kind: str, matcher: Any, vocab_size: int):
        self.kind = kind
        self.problem = ""
        self.masked = 0  # tokens that were chosen under a mask and stand
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def complete(self) -> bool:
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        raise NotImplementedError

    def mask(self) -> Tensor:
        """bool[vocab] on the CPU: the tokens that may come next, the end of text among them where it may end."""
        return torch.zeros(self._vocab_size, dtype=torch.bool)

    def accept(self, token: int) -> None:
        """A token that the mask allowed was chosen. NO_TOKEN changes nothing."""

    def rewind(self, n: int) -> None:
        """Take back the last `n` tokens that were accepted."""

    def copy(self) -> RowConstraint:
        """Another that goes on from here, apart from this one: for beams and drafts."""
        raise NotImplementedError

    def applied(self, problem: str = "") -> AppliedConstraint:
        """For the receipt; `problem` says what ended the text, where that was not the constraint."""
        return AppliedConstraint(self.kind, self.complete, self.masked, self.problem or problem)
