"""What was measured of a preset, in words, with the verdict first: lists show only how it begins."""

from __future__ import annotations

from steering.vectors.evaluation import Evaluation


def statement(measured: Evaluation, model_id: str, way: str) -> str:
    """Verdict, point, figures, and what was counted. `way` says what the prompts were, such as chat messages."""
    return f"{_verdict(measured, model_id)} {_figures(measured, way)} {_sentence(measured.measure)}"


def _verdict(measured: Evaluation, model_id: str) -> str:
    chance = measured.chance
    if chance is None:
        return f"Not compared with chance on {model_id}."
    if not chance.is_beaten:
        return f"Does not beat its null band on {model_id}: take what it does for chance."
    if measured.verdict == "works":
        return f"Works on {model_id}: it beats its null band."
    if measured.verdict == "weak":
        return f"Weak on {model_id}: it beats its null band, but the interval of its change includes zero."
    return f"Does not work on {model_id}: it beats its null band, but the text falls apart."


def _figures(measured: Evaluation, way: str) -> str:
    low, high = measured.ci
    said = [
        f"At layer {measured.layer} and {measured.strength:g}×, on {measured.n_prompts} held-out {way}: "
        f"{measured.steered_mean:.2f} {measured.unit} steered, {measured.base_mean:.2f} base "
        f"(change {low:+.2f} to {high:+.2f}, 95 %)"
    ]
    if measured.prompted_mean is not None:
        said.append(f"{measured.prompted_mean:.2f} by the same wish as a system prompt")
    if chance := measured.chance:
        said.append(
            f"{chance.low:.2f} to {chance.high:.2f} by {chance.count} random directions of its size "
            f"({chance.beaten} beaten, p = {chance.p:.3f})"
        )
    if measured.coherence is not None:
        said.append(f"coherence {measured.coherence:.2f} of 1")
    return f"{', '.join(said)}."


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
