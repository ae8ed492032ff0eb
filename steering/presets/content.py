"""What a preset holds: interventions, a system prompt, sampling defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inference.types import SamplingParams, Wire
from steering.behaviors.watching import check_names
from steering.presets.sampling import check_sampling
from steering.refusals import need, storable
from steering.vectors.uses import VectorUse, check_uses

MAX_SYSTEM_PROMPT = 40_000
SAMPLING_FIELDS = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty",
    "presence_penalty", "seed", "stop", "typical_p", "ads_subset_size", "ads_beta", "adaptive_temperature",
    "temperature_schedule", "top_p_schedule", "beam_width", "length_penalty",
)  # fmt: skip


@dataclass(frozen=True)
class PresetContent(Wire):
    """Once saved, every use says its layer.

    `sampling` has only the fields that were set, by the names of SamplingParams; a request's own come before them.

    Uses that are switched off are not part of a preset. `behaviors` are watched for, each under its owner's name and
    with its version, and corrected unless `auto_correct` is off; those of `force_steering` steer whatever they read.
    """

    uses: tuple[VectorUse, ...] = ()
    system_prompt: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    behaviors: tuple[str, ...] = ()
    auto_correct: bool = True
    force_steering: tuple[str, ...] = ()


def parse_content(data: Any) -> PresetContent:
    """From JSON, with everything checked that needs no database and no model. Raises InvalidRequest."""
    content = PresetContent.from_wire(data)
    check_content(content)
    return content


def check_content(content: PresetContent) -> None:
    """Raises InvalidRequest naming the first thing that a preset cannot hold."""
    check_uses(content.uses, "this preset")
    need(all(use.on for use in content.uses), "use_off", "A preset holds no intervention that is switched off.")
    need(
        bool(content.uses or content.system_prompt or content.sampling or content.behaviors),
        "empty_preset",
        "This preset would change nothing. Add an intervention, a behavior, a system prompt or sampling settings.",
    )
    check_names(content.behaviors, content.force_steering, "this preset")
    need(
        len(content.system_prompt) <= MAX_SYSTEM_PROMPT,
        "too_long",
        f"The system prompt has {len(content.system_prompt):,} characters; {MAX_SYSTEM_PROMPT:,} is the most. "
        "Shorten it.",
    )
    storable(content.system_prompt, "The system prompt")
    unknown = sorted(set(content.sampling) - set(SAMPLING_FIELDS))
    need(
        not unknown,
        "preset_sampling",
        f"A preset cannot set {', '.join(unknown)[:80]}. It can set {', '.join(SAMPLING_FIELDS)}.",
    )
    sampling = SamplingParams.from_wire(content.sampling)
    check_sampling(sampling)
    for text in sampling.stop:
        storable(text, "A stop string")
