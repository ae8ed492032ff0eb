"""A recorded measurement of what a vector does, as the detail page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

VERDICTS = {"works": "works", "weak": "weak", "fails": "does not work"}
SIGNIFICANT = 0.05  # beating all of 20 random directions has p = 1/21


@dataclass(frozen=True)
class Chance:
    """What `count` random directions of the same size did at the same layer: the middle 95 % of their means."""

    count: int
    low: float
    high: float
    beaten: int
    p: float

    @property
    def is_beaten(self) -> bool:
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class Evaluation:
    """Scores are means over held-out prompts, in `unit`; `ci` is of steered minus base, 95 %.

    `chance` and `coherence` are None for those that were measured without.
    """

    verdict: str
    sentence: str
    measure: str
    unit: str
    layer: int
    strength: float
    n_prompts: int
    base_mean: float
    steered_mean: float
    prompted_mean: float | None
    ci: tuple[float, float]
    samples: tuple[dict[str, Any], ...]
    chance: Chance | None = None
    coherence: float | None = None
    version: str = ""

    @classmethod
    def of(cls, recorded: dict[str, Any]) -> Self | None:
        """Read the recorded JSON; None where nothing was measured."""
        if not recorded:
            return None
        low, high = recorded["ci"]
        null = recorded.get("null")
        return cls(
            verdict=recorded["verdict"],
            sentence=recorded["sentence"],
            measure=recorded["measure"].get("description") or recorded["measure"].get("says", ""),
            unit=recorded["measure"].get("unit", ""),
            layer=recorded["layer"],
            strength=recorded["strength"],
            n_prompts=recorded["n_prompts"],
            base_mean=recorded["base_mean"],
            steered_mean=recorded["steered_mean"],
            prompted_mean=recorded.get("prompted_mean"),
            ci=(low, high),
            samples=tuple(recorded.get("samples", ())),
            chance=Chance(**{name: null[name] for name in ("count", "low", "high", "beaten", "p")}) if null else None,
            coherence=recorded.get("coherence"),
            version=recorded.get("version", ""),
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


def recommended(recorded: dict[str, Any]) -> dict[str, Any]:
    """What Find puts in the place of a vector's own forecast of where it works. A file cannot say it: it is older."""
    if "null" not in recorded:
        return {}
    return {
        "recommended_layer": recorded["layer"],
        "recommended_strength": recorded["strength"],
        "reason": recorded["how"],
    }
