"""From what a person asks for to a study with its prompts, before anything is written."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from inference.types import Intervention, Message, ModelInfo, SamplingParams, Wire
from steering.datasets.models import Dataset
from steering.presets import library as presets
from steering.presets.models import Preset
from steering.presets.sampling import check_sampling
from steering.rating.models import Item, Study
from steering.refusals import need, storable
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse, check_uses, resolve_uses

LEAST, MOST, MAX_PROMPT, MAX_TOKENS = 2, 100, 4000, 400
MAX_STUDIES = 200
QUESTION = "Which answer is better?"


@dataclass(frozen=True)
class StudySettings(Wire):
    """What makes the completions: both sides get all of it but the interventions, which the steered one alone gets."""

    about: str
    interventions: tuple[Intervention, ...]
    sampling: SamplingParams
    chat: bool
    system_prompt: str = ""
    model: str = ""  # what requests say; empty for the only one


def of_vector(user: Any, vector: Vector, layer: int | None, strength: float, model: ModelInfo) -> StudySettings:
    """Raises InvalidRequest."""
    operation = vector.facts.operation
    use = VectorUse(vector=str(vector.pk), layer=layer, operation=operation, strength=strength)
    check_uses((use,), "the study")
    need(strength != 0, "strength", "A strength of 0 steers nothing, so both sides would be the same. Choose another.")
    at = vector.facts.layer if layer is None else layer
    need(at in vector.facts.layers, "layer", f"“{vector.name}” has no direction at layer {at}. Choose one it has.")
    about = f"{vector.name}, layer {at}, " + (f"{strength:+g}×" if operation == "add" else f"{operation} {strength:+g}")
    return StudySettings(about, resolve_uses(user, (use,), model), SamplingParams(), chat=model.has_chat_template)


def of_preset(preset: Preset, model: ModelInfo) -> StudySettings:
    """Both sides get the preset's system prompt and sampling; its vectors are what is rated. Raises InvalidRequest."""
    steering = presets.interventions_of(preset, model)
    need(
        any(i.strength for i in steering),
        "preset",
        f"{preset} steers with no vector, so both sides would be the same. Choose another preset, or a vector.",
    )
    need(
        not preset.parsed.behaviors,
        "preset",
        f"{preset} watches for behaviors, which a study does not do. Choose a preset without them, or a vector.",
    )
    sampling = SamplingParams.from_wire(preset.parsed.sampling)
    prompt = preset.parsed.system_prompt
    return StudySettings(f"preset {preset}", steering, sampling, model.has_chat_template, prompt)


def prompts_of(text: str) -> list[str]:
    """One a line; empty lines and repetitions fall away."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def prompts_in(dataset: Dataset) -> list[str]:
    """Its prompts, each once. Raises InvalidRequest where it has none."""
    found = list(dict.fromkeys(pair.prompt.strip() for pair in dataset.pairs() if pair.prompt.strip()))
    need(bool(found), "dataset", f"“{dataset.name}” has no prompts, only whole texts. Choose another, or write some.")
    return found


def study_create(
    *, owner: Any, name: str, question: str, settings: StudySettings, prompts: list[str], model: ModelInfo
) -> Study:
    """Raises InvalidRequest whose code is the field's name."""
    need(bool(model.id), "model", "No model is served at the moment. Start the study when one is ready.")
    need(LEAST <= len(prompts) <= MOST, "prompts", f"Give {LEAST} to {MOST} prompts, not {len(prompts)}.")
    for prompt in prompts:
        need(len(prompt) <= MAX_PROMPT, "prompts", f"A prompt has at most {MAX_PROMPT:,} characters. Shorten it.")
        storable(prompt, "A prompt")
    for text, what in ((name, "The name"), (question, "The question")):
        storable(text, what)
    need(settings.sampling.max_tokens <= MAX_TOKENS, "max_tokens", f"At most {MAX_TOKENS} tokens can be compared.")
    check_sampling(settings.sampling)
    need(
        Study.objects.filter(owner=owner).count() < MAX_STUDIES,
        "name",
        f"You have {MAX_STUDIES} studies, which is the limit. Delete one first.",
    )
    first = settings.sampling.seed if settings.sampling.seed is not None else secrets.randbits(31)
    settings = dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, seed=first))
    study = Study(owner=owner, name=name, question=question or QUESTION, model_id=model.id, settings=settings.to_wire())
    with transaction.atomic():
        study.save(force_insert=True)
        Item.objects.bulk_create(
            Item(study=study, position=n, prompt=prompt, seed=(first + n) % 2**53) for n, prompt in enumerate(prompts)
        )
    return study


def messages_of(settings: StudySettings, prompt: str) -> tuple[Message, ...]:
    system = (Message("system", settings.system_prompt),) if settings.system_prompt else ()
    return (*system, Message("user", prompt))


def text_of(settings: StudySettings, prompt: str) -> str:
    return f"{settings.system_prompt}\n\n{prompt}" if settings.system_prompt else prompt
