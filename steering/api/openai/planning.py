"""From an Ask to requests for the model side. Knows the library, presets and limits; starts nothing. Synchronous."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from inference.errors import InvalidRequest
from inference.types import (
    Draft,
    Ensemble,
    GenerationRequest,
    Intervention,
    Member,
    Message,
    ModelInfo,
    Operation,
    SamplingParams,
)
from inference.ways import PENALTIES, RANGES
from steering.access.principal import Principal
from steering.api.openai.ask import Ask, DraftAsk, EnsembleAsk, FeatureAsk, MemberAsk, Prompt, SteeringAsk, VectorAsk
from steering.api.openai.behavior_fields import watched_for
from steering.api.openai.catalog import find_preset, resolve
from steering.api.openai.errors import invalid
from steering.api.openai.parsing import DEFAULT_COMPLETION_TOKENS, DEFAULT_TOKENS
from steering.behaviors.watching import Watched
from steering.presets.library import interventions_of
from steering.presets.models import Preset
from steering.presets.names import SEPARATOR, split_model_name
from steering.vectors.lookup import find_vector
from steering.vectors.models import Vector
from steering.vectors.uses import MAX_STRENGTH, UseCondition, VectorUse, check_details, check_uses, resolve_uses

TEMPLATE_TOKENS = 64  # more than a chat template adds around all messages, and around each
SEEDS = 2**63


@dataclass(frozen=True)
class Plan:
    """`name` is what answers call the model. `tokens` bounds what prompts and answers can come to."""

    ask: Ask
    model: ModelInfo
    name: str
    sampling: SamplingParams
    requests: tuple[GenerationRequest, ...]
    tokens: int
    preset: str = ""
    strength: float = 1.0
    watched: tuple[Watched, ...] = ()
    logprobs: bool = False  # whether they were asked for; they may be read without that

    @property
    def steered(self) -> bool:
        return bool(self.requests[0].interventions)


def plan(who: Principal, ask: Ask, id: str) -> Plan:
    """Raises ApiError, Denied and InferenceError with the reason why this cannot be done exactly as asked."""
    model, preset = resolve(who, ask.model)
    steering = ask.steering or SteeringAsk()
    preset = _preset(who, model, preset, steering)
    sampling = _sampling(ask, preset, model)
    interventions = _interventions(who, model, preset, steering)
    behaviors = watched_for(who.user, ask.behaviors, preset, model)
    watches = tuple(each.watch for each in behaviors)
    asked = sampling.logprobs
    if ask.best_of:
        sampling = dataclasses.replace(sampling, logprobs=True)  # by which the best are chosen
    beside: dict[str, Any] = {
        "watches": watches,
        "constraint": ask.constraint,
        "tools": ask.tools.offered if ask.tools else (),
        "draft": _draft(ask.draft, model),
        "ensemble": _ensemble(who, ask.ensemble, model),
    }
    requests = tuple(
        dataclasses.replace(_request(id, model, prompt, _seeded(sampling, i), interventions), **beside)
        for prompt in _with_system_prompt(ask, preset)
        for i in range(ask.rows)
    )
    name = model.id if preset is None or SEPARATOR not in ask.model else ask.model
    offered = sum(len(tool.description) + len(tool.parameters) + len(tool.name) for tool in beside["tools"])
    prompts = sum(min(_most_tokens(p, model) + 4 * offered, model.context_length or 10**9) for p in ask.prompts)
    tokens = prompts + len(requests) * sampling.max_tokens
    shown = str(preset) if preset else ""
    return Plan(ask, model, name, sampling, requests, tokens, shown, steering.strength, behaviors, asked)


def _preset(who: Principal, model: ModelInfo, named: Preset | None, steering: SteeringAsk) -> Preset | None:
    """The one preset of the request, be it in the model's name or in the body."""
    if not steering.preset:
        return named
    wanted = steering.preset if SEPARATOR in steering.preset else f"{model.id}{SEPARATOR}{steering.preset}"
    of_model, name, version = split_model_name(wanted)
    if of_model.lower() != model.id.lower():
        raise invalid(f"This preset is of {of_model:.80}, and {model.id} was asked for.", "steering.preset")
    found = find_preset(who, model, name or "", version)
    if named is not None and named != found:
        raise invalid(f"The model's name says {named} and 'steering' says {found}. Name one.", "steering.preset")
    return found


# ---- sampling ----


def _sampling(ask: Ask, preset: Preset | None, model: ModelInfo) -> SamplingParams:
    defaults = dict(preset.parsed.sampling) if preset else {}
    if ask.method:  # which means the same, whatever the preset chose by
        defaults = {name: value for name, value in defaults.items() if name not in RANGES or name in PENALTIES}
    own = dict(ask.sampling)
    if "max_tokens" not in own:
        own["fit"] = True
        if "max_tokens" not in defaults:
            own["max_tokens"] = DEFAULT_COMPLETION_TOKENS if ask.kind == "prompt" else DEFAULT_TOKENS
    params = dataclasses.replace(SamplingParams.from_wire(defaults), **own)
    if params.max_tokens >= model.context_length > 0 and not params.fit:
        raise InvalidRequest(
            "max_tokens_too_large",
            f"This model's maximum context length is {model.context_length} tokens, prompt included, and "
            f"{params.max_tokens} new ones were asked for. Ask for fewer.",
        )
    return params


def _seeded(params: SamplingParams, place: int) -> SamplingParams:
    """The answers of one prompt differ: answer i has seed + i."""
    return params if params.seed is None else dataclasses.replace(params, seed=(params.seed + place) % SEEDS)


# ---- steering ----


def _interventions(
    who: Principal, model: ModelInfo, preset: Preset | None, steering: SteeringAsk
) -> tuple[Intervention, ...]:
    found = interventions_of(preset, model) if preset else ()
    for asked in steering.vectors:
        found += _directions(asked) if asked.directions else resolve_uses(who.user, _uses(who, asked, model), model)
    for feature in steering.features:
        found += resolve_uses(who.user, (_feature_use(who, feature, model),), model)
    return tuple(_scaled(intervention, steering.strength) for intervention in found)


def _feature_use(who: Principal, asked: FeatureAsk, model: ModelInfo) -> VectorUse:
    """What is not said: its maximum once, where a corpus was indexed; to be removed, all of it."""
    strength, unit = asked.strength, asked.unit
    if strength is None and asked.operation in ("add", "clamp"):
        if unit not in (None, "max"):
            raise invalid("A feature has no usual strength in this unit. Say 'strength'.", "steering.features")
        strength, unit = 1.0, "max"
    elif strength is None and asked.operation == "ablate":
        strength = 1.0
    elif strength is None:
        raise invalid(f"'{asked.operation}' needs 'strength', an activation.", "steering.features")
    use = VectorUse(
        feature=asked.feature,
        operation=asked.operation,
        strength=strength,
        unit=unit or "raw",
        positions=asked.positions,
        norm_preserving=asked.norm_preserving,
        schedule=asked.schedule,
        condition=_named_condition(who, asked.condition, model),
    )
    check_uses((use,), "steering")
    return use


def _named_condition(who: Principal, condition: UseCondition | None, model: ModelInfo) -> UseCondition | None:
    if condition is None or not condition.vector:
        return condition
    return dataclasses.replace(condition, vector=str(find_vector(who.user, condition.vector, model).pk))


def _directions(asked: VectorAsk) -> tuple[Intervention, ...]:
    return (
        Intervention(
            operation=asked.operation or "add",
            strength=1.0 if asked.strength is None else asked.strength,
            unit="raw",
            positions=asked.positions,
            directions=asked.directions,
        ),
    )


def _uses(who: Principal, asked: VectorAsk, model: ModelInfo) -> tuple[VectorUse, ...]:
    vector = find_vector(who.user, asked.vector, model)
    operation = asked.operation or vector.facts.operation
    strength, unit = _strength(asked, operation, vector)
    condition = _named_condition(who, asked.condition, model)
    uses = tuple(
        VectorUse(
            vector=str(vector.pk),
            layer=_layer(vector, layer),
            operation=operation,
            strength=strength,
            unit=unit,
            positions=asked.positions,
            norm_preserving=asked.norm_preserving,
            schedule=asked.schedule,
            condition=condition,
        )
        for layer in asked.layers or (vector.facts.layer,)
    )
    check_details(uses, "steering")
    return uses


def _strength(asked: VectorAsk, operation: Operation, vector: Vector) -> tuple[float, Any]:
    """What is not said is what the vector recommends."""
    if asked.strength is not None:
        return asked.strength, asked.unit or "relative"
    if operation in ("ablate", "affine"):
        return 1.0, asked.unit or "relative"
    if operation == "rotate":
        raise invalid("'rotate' needs 'strength', the angle from the vector in degrees.", "steering")
    if asked.unit == "raw":
        raise invalid(f"'{vector.name}' recommends no raw strength. Say 'strength', or leave 'unit' out.", "steering")
    return vector.facts.strength, "relative"


def _layer(vector: Vector, layer: int) -> int:
    if layer not in vector.facts.layers:
        known = ", ".join(map(str, vector.facts.layers))
        raise InvalidRequest(
            "layer_not_in_vector", f"“{vector.name}” has no direction at layer {layer}. It has layers {known}."
        )
    return layer


def _scaled(intervention: Intervention, factor: float) -> Intervention:
    strength = intervention.strength * factor
    if abs(strength) > MAX_STRENGTH:
        raise invalid(
            f"Multiplied, a strength becomes {strength:g}; {MAX_STRENGTH:,} is the most.", "steering.strength"
        )
    return dataclasses.replace(intervention, strength=strength)


# ---- drafts and ensembles ----


def _draft(asked: DraftAsk | None, model: ModelInfo) -> Draft | None:
    if asked is None:
        return None
    draft = Draft(_companion(asked.model, model, "draft_model"))
    return dataclasses.replace(draft, tokens=asked.tokens) if asked.tokens else draft


def _companion(name: str, model: ModelInfo, param: str) -> str:
    """The id of another model at hand with the same tokenizer; "" is said by "" and "default"."""
    if name in ("", "default"):
        return ""
    found = next((id for id in model.companions if id.lower() == name.lower()), None)
    if found is None:
        there = "None is; whoever runs this server can name some in STEERBOARD_COMPANIONS."
        if model.companions:
            there = f"At hand: {', '.join(model.companions)}."
        raise invalid(f"'{name:.100}' is no model at hand with the tokenizer of {model.id}. {there}", param)
    return found


def _ensemble(who: Principal, asked: EnsembleAsk | None, model: ModelInfo) -> Ensemble | None:
    if asked is None:
        return None
    return Ensemble(tuple(_member(who, member, model) for member in asked.members), asked.combine)


def _member(who: Principal, asked: MemberAsk, model: ModelInfo) -> Member:
    """A member's preset, in the name of its model or in its steering, acts with its vectors alone."""
    name, _, preset_name = asked.model.partition(SEPARATOR)
    own = name.lower() in ("", "default", model.id.lower())
    steering = asked.steering or SteeringAsk()
    if not own and (preset_name or asked.steering):
        raise invalid(
            f"Only members of {model.id} can be steered. Leave the steering of '{name:.100}' out.", asked.param
        )
    named = find_preset(who, model, *_name_and_version(preset_name)) if preset_name else None
    preset = _preset(who, model, named, steering)
    if preset and (preset.parsed.system_prompt or preset.parsed.behaviors):
        raise invalid(
            f"The preset {preset} has a system prompt or behaviors, and all members of an ensemble share one prompt. "
            "Use a preset of vectors alone, or name them.",
            asked.param,
        )
    companion = "" if own else _companion(name, model, asked.param)
    return Member(asked.weight, _interventions(who, model, preset, steering), companion)


def _name_and_version(text: str) -> tuple[str, str | None]:
    name, _, version = text.partition("@")
    return name, version or None


# ---- prompts ----


def _with_system_prompt(ask: Ask, preset: Preset | None) -> tuple[Prompt, ...]:
    """A preset's system prompt comes before the request's own, in one message, since templates take only one."""
    text = preset.parsed.system_prompt if preset else ""
    if not text:
        return ask.prompts
    if ask.kind == "prompt":
        raise invalid(
            f"The preset {preset} has a system prompt, which a plain prompt has no place for. Use chat completions, "
            "or a preset without a system prompt.",
            "model",
        )
    messages = [each for prompt in ask.prompts for each in prompt if isinstance(each, Message)]
    if messages[0].role == "system":
        return ((Message("system", f"{text}\n\n{messages[0].content}"), *messages[1:]),)
    return ((Message("system", text), *messages),)


def _request(
    id: str, model: ModelInfo, prompt: Prompt, params: SamplingParams, interventions: tuple[Intervention, ...]
) -> GenerationRequest:
    request = GenerationRequest(id, model.id, sampling=params, interventions=interventions)
    if isinstance(prompt, str):
        return dataclasses.replace(request, prompt=prompt)
    if prompt and isinstance(prompt[0], Message):
        return dataclasses.replace(request, messages=prompt)
    return dataclasses.replace(request, token_ids=prompt)  # type: ignore[arg-type]


def _most_tokens(prompt: Prompt, model: ModelInfo) -> int:
    """No tokenizer is at hand; a token has at least one byte, and no more tokens than fit the context are read."""
    if isinstance(prompt, str):
        most = len(prompt.encode()) + 2
    else:
        texts = [_all_text(each) for each in prompt if isinstance(each, Message)]
        most = sum(len(text.encode()) for text in texts) + TEMPLATE_TOKENS * (len(texts) + 1) if texts else len(prompt)
    return min(most, model.context_length or most)


def _all_text(message: Message) -> str:
    return message.content + "".join(call.name + call.arguments for call in message.tool_calls)
