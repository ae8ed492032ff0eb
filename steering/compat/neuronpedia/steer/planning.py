"""From what is asked to what the engine does. Each method of Neuronpedia's is one operation here, exactly.

With c = strength x multiplier and v a feature's decoder row or a vector (made unit with `normalize_steering`):
SIMPLE_ADDITIVE     h + c v                              add, strength c
ORTHOGONAL_DECOMP   h + (c - 1)(h.u) u, u = v / |v|      ablate, strength 1 - c
PROJECTION_CAP      h + (min(h.u, c) - h.u) u            cap, strength c
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import numpy as np

from inference.errors import InvalidRequest
from inference.types import (
    Direction,
    FeatureRef,
    GenerationRequest,
    Intervention,
    ModelInfo,
    Operation,
    Positions,
    ReadVector,
    SamplingParams,
    Site,
)
from steering.access.principal import Principal
from steering.compat.neuronpedia import asking
from steering.compat.neuronpedia.asking import new_id
from steering.compat.neuronpedia.sources import check_width, feature_of, served_model, site_of
from steering.compat.neuronpedia.steer.ask import Item, Method, SteerAsk, Type
from steering.compat.neuronpedia.steer.prompts import Prompt
from steering.compat.neuronpedia.wire import bad

OPERATIONS: dict[Method, Operation] = {
    "SIMPLE_ADDITIVE": "add",
    "ORTHOGONAL_DECOMP": "ablate",
    "PROJECTION_CAP": "cap",
}
WHOLE = (Positions(),)
SPARING = (Positions(generated=False, special=False), Positions(prompt=False))  # special tokens of the prompt
SEEDS = 2**63
MOST_STRENGTH = 1_000_000  # features of large models take thousands, and the multiplier ten times that


@dataclass(frozen=True)
class Target:
    """An item that was found: a feature, or numbers at a site."""

    strength: float
    feature: FeatureRef | None = None
    direction: Direction | None = None


def check(who: Principal, ask: SteerAsk) -> tuple[ModelInfo, tuple[Target, ...]]:
    """The model and what to steer by. Synchronous. Raises Refusal, InferenceError, Denied."""
    model = served_model(who, ask.model)
    if ask.assistant_axis:
        raise bad(
            "This server has no assistant axis of any model: nothing measured would stand in the answer. Leave "
            "is_assistant_axis out, or watch with a detector of the library.",
            "no_assistant_axis",
        )
    if "STEERED" in ask.types and not ask.items:
        raise bad(
            "Invalid request data: STEERED is asked for, and there is nothing to steer by. Send features or vectors, "
            "or ask for DEFAULT alone.",
            "nothing_to_steer_by",
        )
    return model, tuple(_target(who, model, ask, item) for item in ask.items)


def _target(who: Principal, model: ModelInfo, ask: SteerAsk, item: Item) -> Target:
    strength = item.strength * ask.multiplier
    if not abs(strength) <= MOST_STRENGTH:
        raise bad(
            f"A strength of {item.strength:g} times {ask.multiplier:g} is beyond {MOST_STRENGTH:,}. Send less.",
            "strength",
        )
    if item.hook:
        check_width(model, item.values)
        return Target(strength, direction=Direction(site_of(model, item.hook), np.array(item.values, np.float32)))
    if item.model and served_model(who, item.model).id != model.id:
        raise bad(f"A feature of {item.model:.80} was sent for {ask.model:.80}. Send one model's.", "wrong_model")
    return Target(strength, feature_of(model, item.source, item.index))


async def requests_of(
    who: Principal, ask: SteerAsk, model: ModelInfo, targets: tuple[Target, ...], prompt: Prompt
) -> dict[Type, GenerationRequest]:
    """One row for each kind of answer, all of one id, so that they are one batch and end together."""
    steering = await interventions_of(who, ask, model, targets) if "STEERED" in ask.types else ()
    plain = GenerationRequest(new_id(), model.id, token_ids=prompt.ids, sampling=sampling_of(ask))
    steered = dataclasses.replace(plain, interventions=steering)
    return {kind: steered if kind == "STEERED" else plain for kind in ask.types}


def sampling_of(ask: SteerAsk) -> SamplingParams:
    """`n_logprobs` alternatives of the steered model's own log-probabilities, before penalty and temperature."""
    return SamplingParams(
        max_tokens=ask.max_tokens,
        temperature=ask.temperature,
        frequency_penalty=ask.freq_penalty,
        seed=ask.seed % SEEDS,
        logprobs=ask.n_logprobs > 0,
        top_logprobs=ask.n_logprobs,
    )


async def interventions_of(
    who: Principal, ask: SteerAsk, model: ModelInfo, targets: tuple[Target, ...]
) -> tuple[Intervention, ...]:
    """In the order in which they were sent. Raises InvalidRequest, also for a site that cannot be steered so, Denied.

    What has to be read for it is read one after another, so that a request holds one place at a time.
    """
    made = [await _intervention(who, ask, model, target) for target in targets]
    places = WHOLE if ask.special else SPARING
    return tuple(dataclasses.replace(each, positions=where) for each in made for where in places)


async def _intervention(who: Principal, ask: SteerAsk, model: ModelInfo, target: Target) -> Intervention:
    operation, c = OPERATIONS[ask.method], target.strength
    strength = 1 - c if operation == "ablate" else c
    if target.direction is not None:
        values = _unit(target.direction.values) if ask.normalize else target.direction.values
        return Intervention(operation, strength, directions=(Direction(target.direction.site, values),))
    ref = cast(FeatureRef, target.feature)
    if operation == "add" and not ask.normalize:
        return Intervention(operation, strength, feature=ref)
    site, row = await decoder_row(who, model, ref)
    if operation == "add":
        return Intervention(operation, strength / _length(row), feature=ref)
    return Intervention(operation, strength, directions=(Direction(Site.parse(site), row),))


async def decoder_row(who: Principal, model: ModelInfo, ref: FeatureRef) -> tuple[str, np.ndarray]:
    """The hook where a feature writes, and what: float32[width of the hook]."""
    found = await asking.ask(who, ReadVector(new_id(), ref.source, ref.index, model=model.id))
    return found["hook_out"], np.array(found["decoder"], dtype=np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float64) / _length(values)).astype(np.float32)


def _length(values: np.ndarray) -> float:
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not length > 0 or not np.isfinite(length):
        raise InvalidRequest("bad_direction", "A direction to steer by is zero, which has no unit. Send another.")
    return length
