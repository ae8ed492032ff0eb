"""Findings as a table in plain text."""

from __future__ import annotations

from typing import Any

from steering.experiments.models import Experiment

CONDITIONS = ("base", "steered", "prompting")


def table_of(experiment: Experiment) -> str:
    found = experiment.findings
    lines = [_speed(experiment)]
    if experiment.recipe == Experiment.Recipe.SWEEP:
        lines += [_cell(cell["group"], cell) for cell in found["cells"]]
        lines.append(f"best: {found['best'] or 'no coherent cell'}")
    if experiment.recipe == Experiment.Recipe.FIND:
        lines += [_cell(f"tuning {cell['group']}", cell) for cell in found["cells"]]
    lines += [_cell(name, found[name]) for name in CONDITIONS if name in found]
    if null := found.get("null"):
        lines.append(
            f"{null['count']} random directions: {null['mean']:.3f}, {null['low']:.3f} to {null['high']:.3f}; "
            f"beaten {null['beaten']}, p = {null['p']:.3f}"
        )
    if over := found.get("over_prompting"):
        lines.append(f"steering over prompting: {_interval(over)}")
    for kind in ("answers", "letters"):
        if odds := found.get(kind):
            lines.append(f"{kind}: slope {_interval(odds['steerability'])}; wrong way {_interval(odds['against'])}")
    if naming := found.get("naming"):
        lines += [f"naming, {name}: {_interval(gain)} nats/token" for name, gain in naming["gains"].items()]
    if neutral := found.get("neutral"):
        lines.append(f"KL on neutral text {_interval(neutral['kl'])} nats/token; same top token {neutral['top1']:.2f}")
    if judge := found.get("judge"):
        lines += [f"judge, {name}: {_interval(row['overall'])}" for name, row in judge["ratings"].items()]
    lines += [f"test {t['of']}: p = {t['p']:.4f}, corrected {t['adjusted']:.4f}" for t in found.get("tests", ())]
    if "verdict" in found:
        lines.append(f"{found['verdict'].upper()} at {found.get('best', '-')}: {found['sentence']}")
    return "\n".join(lines) + "\n"


def _speed(experiment: Experiment) -> str:
    seconds = experiment.seconds or 0.0
    return f"{experiment.done} points in {seconds:.1f} s, {experiment.completion_tokens:,} tokens written"


def _cell(name: str, cell: dict[str, Any]) -> str:
    low = "" if cell["coherent"] else " (below the floor)"
    return (
        f"{name:<24} behaviour {_interval(cell['behaviour'])}  change {_interval(cell['change'])}  "
        f"coherence {cell['coherence']:.2f}{low}  wrong {len(cell['wrong'])}"
    )


def _interval(found: dict[str, float]) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
