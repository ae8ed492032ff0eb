"""What an experiment is, in sentences; and what to be warned of before it begins."""

from __future__ import annotations

from steering.datasets.behaviours import WORTH, Measure
from steering.experiments.settings import Evaluate, Find, Settings, Sweep, unit_of

BREAKS = 1.0  # relative units: as much is added as an ordinary token has
STRAINS = 0.6
ASKED = {"answers": "whole answers", "letters": "letters in both orders"}
DOUBTFUL: tuple[Measure, ...] = ("judge", "letters")


def sentence_of(settings: Settings) -> str:
    match settings:
        case Sweep():
            parts = [
                many(len(settings.vectors), "vector") if len(settings.vectors) > 1 else "",
                many(len(settings.layers), "layer"),
                many(len(settings.strengths), "strength"),
                many(len(settings.operations), "operation") if len(settings.operations) > 1 else "",
                many(len(settings.prompts), "prompt"),
            ]
            what = " × ".join(part for part in parts if part)
        case Find():
            what = (
                f"{many(len(settings.layers), 'layer')}, the dose of each halved {settings.steps} times on "
                f"{many(len(settings.prompts), 'prompt')}, then one point proved on {len(settings.held_out)} held-out "
                f"ones beside {settings.directions} random directions"
            )
        case Evaluate():
            what = f"L{settings.layer} at {settings.strength:g}× on {many(len(settings.prompts), 'prompt')}"
            kinds = [name for kind, name in ASKED.items() if kind in settings.beside]
            if kinds:
                what += f", and {many(len(settings.choices), 'pair')} by {' and '.join(kinds)}"
    return f"{what}. Coherence is judged by the unsteered model."


def warnings_of(settings: Settings) -> list[str]:
    """Doses that are known to break text, said before anything is run."""
    strongest = max(map(abs, _strengths(settings)), default=0.0) if _relative(settings) else 0.0
    found = []
    if strongest >= BREAKS and not isinstance(settings, Find):
        found.append(
            f"{strongest:g}× adds as much as an ordinary token has, or more: the text will almost surely fall apart. "
            "0.1 to 0.4 is where steering usually works."
        )
    elif strongest > STRAINS and not isinstance(settings, Find):
        found.append(f"{strongest:g}× is a large dose, at which text often falls apart. 0.1 to 0.4 is usual.")
    beside = settings.beside if isinstance(settings, Evaluate) else ()
    found += [WORTH[kind] for kind in DOUBTFUL if kind == settings.behaviour.kind or kind in beside]
    if len(settings.prompts) < 4:
        found.append(f"{many(len(settings.prompts), 'prompt')} cannot carry an interval. Take at least 4.")
    return found


def _relative(settings: Settings) -> bool:
    operations = settings.operations if isinstance(settings, Sweep) else (settings.operation,)
    return any(unit_of(operation) == "relative" for operation in operations)


def _strengths(settings: Settings) -> tuple[float, ...]:
    match settings:
        case Sweep():
            return settings.strengths
        case Find():
            return (settings.most,)
        case Evaluate():
            return (settings.strength,)


def many(count: int, thing: str) -> str:
    return f"1 {thing}" if count == 1 else f"{count} {thing}s"
