"""What a verifier is given beside the texts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.policies.asking import Asker
from inference.policies.schema import Policy
from inference.policies.trace import Verdict

TIME_UP = "it was not looked at: the time was up"


@dataclass(frozen=True, eq=False)
class Case:
    """`deadline` is by `time.monotonic`."""

    policy: Policy
    question: str
    asker: Asker
    deadline: float | None = None

    def left(self) -> float | None:
        """Seconds until the deadline, None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    @property
    def late(self) -> bool:
        left = self.left()
        return left is not None and left <= 0


async def each(name: str, penalty: float, look: Callable[[str], str], texts: Sequence[str]) -> list[Verdict]:
    """A verdict on each text, found on a thread. `look` gives the reason why it fails, or nothing."""
    return [await asyncio.to_thread(_verdict, name, penalty, look, text) for text in texts]


def _verdict(name: str, penalty: float, look: Callable[[str], str], text: str) -> Verdict:
    begun = time.perf_counter()
    reason = look(text)
    return Verdict(name, not reason, reason, penalty if reason else 0.0, round(time.perf_counter() - begun, 4))
