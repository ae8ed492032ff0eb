"""A recorded measurement of what a vector does, as the detail page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

VERDICTS = {"works": "works", "weak": "weak", "fails": "does not work"}


@dataclass(frozen=True)
class Evaluation:
    """Scores are means over held-out prompts, in the units of `measure`; `ci` is of steered minus base, 95 %."""

    verdict: str
    sentence: str
    measure: str
    layer: int
    strength: float
    n_prompts: int
    base_mean: float
    steered_mean: float
    prompted_mean: float | None
    ci: tuple[float, float]
    samples: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, recorded: dict[str, Any]) -> Self | None:
        """Read the recorded JSON; None where nothing was measured."""
        if not recorded:
            return None
        low, high = recorded["ci"]
        return cls(
            verdict=recorded["verdict"],
            sentence=recorded["sentence"],
            measure=recorded["measure"].get("description") or recorded["measure"].get("says", ""),
            layer=recorded["layer"],
            strength=recorded["strength"],
            n_prompts=recorded["n_prompts"],
            base_mean=recorded["base_mean"],
            steered_mean=recorded["steered_mean"],
            prompted_mean=recorded.get("prompted_mean"),
            ci=(low, high),
            samples=tuple(recorded.get("samples", ())),
        )

    @property
    def verdict_word(self) -> str:
        return VERDICTS.get(self.verdict, self.verdict)

    @property
    def effect(self) -> float:
        return self.steered_mean - self.base_mean

    @property
    def prompted_effect(self) -> float | None:
        return None if self.prompted_mean is None else self.prompted_mean - self.base_mean
