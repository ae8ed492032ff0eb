"""Runs a trace again, to the same texts."""

from __future__ import annotations

from inference.policies.asking import Asker
from inference.policies.trace import Outcome, Trace


async def replay(trace: Trace, asker: Asker, *, allow_unit_tests: bool = False) -> Outcome:
    """The same rounds with the same seeds. What a clock ended then is ended after as many tokens now.

    Raises InvalidRequest("model_changed") and ("steering_changed") where the texts could not be the same.
    """
    raise NotImplementedError
