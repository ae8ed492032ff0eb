"""What a run of a policy asks of Steerboard: completions of the served model, vectors and presets of the library.

Everything goes over the gateway's client, and every token that it reads and writes is counted, also of what is left
early: that is what a run is charged.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from inference.client import Inference
from inference.errors import InvalidRequest
from inference.policies.asking import Asker, client_asker
from inference.policies.schema import Policy, SteeringPart
from inference.types import (
    Event,
    Finished,
    GenerationRequest,
    Intervention,
    JobRequest,
    ModelInfo,
    Result,
    Started,
    Token,
)
from steering.access.principal import Principal
from steering.policies.threads import in_thread
from steering.presets import library as presets
from steering.presets.names import SEPARATOR, split_model_name
from steering.refusals import need
from steering.vectors.lookup import find_vector
from steering.vectors.uses import VectorUse, check_uses, resolve_uses

DEFAULT = ("", "default")  # names that mean the model that is served


@dataclass
class Tally:
    """Tokens read and written so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    completions: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def asker_of(client: Inference, model: ModelInfo, lender: Any, tally: Tally) -> Asker:
    """Asks `model`. Vectors and presets are those that `lender` may use: whoever runs, or the owner of what is run."""

    async def resolve(part: SteeringPart) -> tuple[Intervention, ...]:
        return await in_thread(interventions_of)(lender, part, model)

    return client_asker(cast(Inference, Counted(client, tally)), model.id, resolve)


class Counted:
    """Passes everything on to `client`, and counts the tokens into a tally as they come."""

    def __init__(self, client: Inference, tally: Tally):
        self._client, self._tally = client, tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        written = 0
        async with aclosing(self._client.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Started):
                    self._tally.prompt_tokens += event.prompt_tokens
                elif isinstance(event, Token):
                    written += 1
                    self._tally.completion_tokens += 1
                elif isinstance(event, Finished):  # tokens that were held back, or taken back, count too
                    self._tally.completion_tokens += max(0, event.usage.completion_tokens - written)
                    self._tally.completions += 1
                yield event

    async def run(self, job: JobRequest) -> AsyncIterator[Event]:
        async with aclosing(self._client.run(job)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Result):
                    self._tally.prompt_tokens += sum(_tokens(item) for item in event.payload.get("items", ()))
                yield event


def _tokens(item: Any) -> int:
    """Those that were foretold of one scored item."""
    found = item.get("tokens", 0) if isinstance(item, dict) else 0
    return sum(found) if isinstance(found, list) else int(found)


# ---- steering ----


def interventions_of(lender: Any, part: SteeringPart, model: ModelInfo) -> tuple[Intervention, ...]:
    """What a stored vector or a preset means here. Synchronous. Raises NotFound, InvalidRequest."""
    if part.vector_id:
        return _of_vector(lender, part, model)
    return _of_preset(lender, part.preset, part.strength, model) if part.preset else ()


def _of_vector(lender: Any, part: SteeringPart, model: ModelInfo) -> tuple[Intervention, ...]:
    """At the layer that it recommends, or at each of the policy's."""
    assert part.vector_id
    vector = find_vector(lender, part.vector_id, model)
    layers = part.layer_scope or (vector.facts.layer,)
    for layer in layers:
        need(
            layer in vector.facts.layers,
            "layer_not_in_vector",
            f"“{vector.name}” has no direction at layer {layer}. It has layers "
            f"{', '.join(map(str, vector.facts.layers))}.",
        )
    operation = vector.facts.operation
    uses = tuple(
        VectorUse(vector=str(vector.pk), layer=layer, operation=operation, strength=part.strength, unit=part.unit)  # type: ignore[arg-type]
        for layer in layers
    )
    check_uses(uses, "this policy")
    return resolve_uses(lender, uses, model)


def _of_preset(lender: Any, name: str, strength: float, model: ModelInfo) -> tuple[Intervention, ...]:
    """Its vectors and features, each as strong as in the preset times the policy's strength."""
    wanted = name if SEPARATOR in name else f"{model.id}{SEPARATOR}{name}"
    of_model, short, version = split_model_name(wanted)
    if of_model.lower() != model.id.lower():
        raise InvalidRequest(
            "preset_model_mismatch", f"The preset {name:.80} is of {of_model:.80}, and {model.id} was asked."
        )
    preset = presets.find(lender, model.id, short or "", version)
    need(
        not preset.parsed.behaviors,
        "preset_watches",
        f"The preset {preset} watches for behaviors, which candidates of a policy do not. Name a preset that only "
        "steers, or a vector.",
    )
    found = presets.interventions_of(preset, model)
    need(
        bool(found),
        "preset_steers_nothing",
        f"The preset {preset} has no vector: it works by its system prompt or sampling, which a policy does not take "
        "from it. Name a preset with a vector.",
    )
    return tuple(dataclasses.replace(one, strength=one.strength * strength) for one in found)


# ---- models ----


def models_of(policy: Policy) -> list[str]:
    """Every model that a policy names itself."""
    named = (policy.model.model, policy.sampling.draft_model or "", *policy.sampling.ensemble_models)
    return [name for name in dict.fromkeys(named) if name not in DEFAULT]


def check_models(who: Principal, policies: Iterable[Policy], model: ModelInfo) -> None:
    """Raises Denied for a model that the key may not use."""
    who.require_model(model.id)
    for policy in policies:
        for name in models_of(policy):
            who.require_model(name)


async def ready(client: Inference, name: str, seconds: float = 600.0) -> ModelInfo:
    """The model once it has loaded. Raises InvalidRequest("model_not_ready")."""
    deadline = asyncio.get_running_loop().time() + seconds
    while (model := await client.describe(name)).state == "loading":
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.5)
    if model.state not in ("ready", "draining"):
        said = model.problem or "The model is not ready."
        raise InvalidRequest("model_not_ready", f"{said} Wait until it is, then run this again.")
    return model
