"""What the workshop asks of the model: one text, or the base's and the persona's beside it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from inference.errors import InvalidRequest
from inference.types import Finished, GenerationRequest, ModelInfo, SamplingParams, Token
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.compat import running
from steering.compat.served import model_of
from steering.compat.workshop.personas import Ready, persona_of, ready
from steering.threads import in_thread
from steering.vectors.uses import resolve_uses

MOST_CHARACTERS = 4000
MOST_TOKENS = 400
MOST_STRENGTH = 5.0
REPETITION_PENALTY = 1.15  # with which the personas were measured
TOP_K = 50  # as the demo's library has it where nothing is said
SEED_BITS = 31
LANES = ("base", "steered")


@dataclass(frozen=True)
class Asked:
    """`who` is None for the base alone. `strength` counts in the persona's own doses."""

    prompt: str
    model: ModelInfo
    who: Ready | None
    strength: float
    layer: int | None
    sampling: SamplingParams

    def request(self, id: str, user: Any, *, steered: bool) -> GenerationRequest:
        uses = (self.who.use(self.strength, self.layer),) if self.who and steered else ()
        return GenerationRequest(
            id,
            model=self.model.id,
            prompt=self.prompt,
            sampling=self.sampling,
            interventions=resolve_uses(user, uses, self.model),
        )

    def facts(self) -> dict[str, Any]:
        """What every answer says of how it was made."""
        who = self.who
        return {
            "prompt": self.prompt,
            "steering": who.persona.key if who else None,
            "strength": self.strength if who else 0.0,
            "layer": (who.layer if self.layer is None else self.layer) if who else None,
            "seed": self.sampling.seed,
            "model": self.model.id,
        }


def parse(body: Fields, who: Principal) -> Asked:
    """Synchronous. Raises ApiError, InvalidRequest, NotFound, Denied, Unavailable."""
    prompt = body.required_text("prompt")
    if not prompt.strip() or len(prompt) > MOST_CHARACTERS:
        raise InvalidRequest("bad_prompt", f"Write a prompt of 1 to {MOST_CHARACTERS:,} characters.")
    model = model_of(who)
    persona = persona_of(body.text("steering") or "")
    temperature = body.number("temperature")
    seed = body.whole("seed", 0, 2**SEED_BITS - 1)
    return Asked(
        prompt,
        model,
        ready(persona, model) if persona else None,
        _strength(body),
        body.whole("layer", 0, max(model.n_layers - 1, 0)),
        sampling_of(
            body.whole("max_length", 1, MOST_TOKENS) or 60,
            0.7 if temperature is None else temperature,
            secrets.randbits(SEED_BITS) if seed is None else seed,
        ),
    )


def sampling_of(tokens: int, temperature: float, seed: int) -> SamplingParams:
    return SamplingParams(tokens, temperature, top_k=TOP_K, repetition_penalty=REPETITION_PENALTY, seed=seed)


def _strength(body: Fields) -> float:
    given = body.number("strength")
    strength: float = settings.WORKSHOP_STRENGTH if given is None else given
    if not -MOST_STRENGTH <= strength <= MOST_STRENGTH:
        raise InvalidRequest(
            "bad_strength",
            f"A strength counts in the persona's own doses, from {-MOST_STRENGTH:g} to {MOST_STRENGTH:g}: "
            "1 is the dose it was measured with.",
        )
    return strength


async def pieces(who: Principal, asked: Asked, lanes: tuple[str, ...]) -> AsyncIterator[tuple[str, str]]:
    """(lane, piece of its text) as they come, of "base" and "steered", which are rows of one batch."""
    id = f"workshop-{secrets.token_hex(12)}"
    requests = [await in_thread(asked.request)(id, who.user, steered=lane == "steered") for lane in lanes]
    async for row, event in running.generate(who, requests, source="workshop"):
        if isinstance(event, Token | Finished) and event.text:
            yield lanes[row], event.text


async def texts(who: Principal, asked: Asked, lanes: tuple[str, ...]) -> dict[str, str]:
    whole = dict.fromkeys(lanes, "")
    async for lane, piece in pieces(who, asked, lanes):
        whole[lane] += piece
    return whole
