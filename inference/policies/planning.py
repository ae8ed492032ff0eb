"""From a policy and a place in it to the requests of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inference.errors import InvalidRequest
from inference.policies.asking import About, Wanted
from inference.policies.guiding import guide_of
from inference.policies.schema import Policy
from inference.policies.settings import Place, derived_seed, settings_for
from inference.policies.telling import Prompt
from inference.policies.trace import Enforced, RoundKind, Settings
from inference.types import Constraint, Draft, Ensemble, Intervention, Member, Message
from inference.ways import way_of

BEAMS = "constrained-beam-search"
SAME_FOR_ALL = "greedy"


@dataclass(frozen=True)
class Plan:
    """A round. `step` counts retries, for the steps of temperature; `foreign`: its method is a fallback."""

    index: int
    kind: RoundKind
    method: str
    candidates: int
    max_tokens: int
    step: int = 0
    told: tuple[Message, ...] = ()
    why: str = ""
    foreign: bool = False


@dataclass(frozen=True)
class Voices:
    """How an ensemble answers: together, token by token, or each for itself with a vote at the end."""

    ensemble: Ensemble | None = None
    voters: tuple[str, ...] = ()  # models; "" is the one that answers


@dataclass(frozen=True)
class Kit:
    """What all candidates of a run have in common."""

    policy: Policy
    about: About
    interventions: tuple[Intervention, ...]
    seed: int
    constraint: Constraint | None
    enforced: Enforced

    @classmethod
    def of(cls, policy: Policy, about: About, interventions: tuple[Intervention, ...], seed: int) -> Kit:
        return cls(policy, about, interventions, seed, *guide_of(policy.constraints))


def rows_of(kit: Kit, plan: Plan) -> int:
    """Requests of a round: beams are candidates of one, and greedy candidates would all be the same."""
    return 1 if way_of(plan.method).name in (BEAMS, SAME_FOR_ALL) else plan.candidates


def wanted_of(kit: Kit, plan: Plan, prompt: Prompt, max_tokens: Sequence[int]) -> list[tuple[Wanted, Settings]]:
    """The requests of a round, and what the trace says of each. Raises InvalidRequest. `max_tokens` is one for each."""
    voices = voices_of(kit, plan.method)
    return [_one(kit, plan, prompt, voices, slot, most) for slot, most in enumerate(max_tokens)]


def _one(kit: Kit, plan: Plan, prompt: Prompt, voices: Voices, slot: int, most: int) -> tuple[Wanted, Settings]:
    seed = derived_seed(kit.seed, plan.index, slot)
    place = Place(slot, plan.step, plan.candidates)
    params, unused = settings_for(
        kit.policy, plan.method, place, max_tokens=max(1, most), seed=seed, foreign=plan.foreign
    )
    draft = _draft(kit, plan)
    voter = voices.voters[slot % len(voices.voters)] if voices.voters else ""
    wanted = Wanted(
        params,
        interventions=kit.interventions,
        constraint=kit.constraint,
        draft=draft,
        ensemble=voices.ensemble,
        model=voter if voter in kit.about.served and voter != kit.about.model else "",
        **({"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}),
    )
    if voter and not wanted.model and voter != kit.about.model:  # a companion alone: the served model has no say
        wanted = replace(wanted, ensemble=Ensemble((Member(weight=0.0), Member(model=voter))))
    members = tuple(m.model or kit.about.model for m in voices.ensemble.members) if voices.ensemble else ()
    return wanted, Settings(
        params,
        voter or kit.about.model,
        kit.constraint.kind if kit.constraint else "",
        draft.model if draft else None,
        draft.tokens if draft else 0,
        members,
        voices.ensemble.combine if voices.ensemble else "",
        unused,
    )


def voices_of(kit: Kit, method: str) -> Voices:
    """Raises InvalidRequest for models that are not here, or that cannot answer as is asked."""
    s, about = kit.policy.sampling, kit.about
    if way_of(method).name != "ensemble-sampling":
        return Voices()
    models = ["" if name in ("default", about.model) else name for name in s.ensemble_models]
    unknown = [name for name in models if name and name not in (*about.companions, *about.served)]
    if unknown:
        here = ", ".join(dict.fromkeys((about.model, *about.companions, *about.served)))
        raise InvalidRequest("unknown_ensemble_model", f"{unknown[0]} is not at hand. Choose among {here}.")
    apart = [name for name in models if name and name not in about.companions]
    if s.voting in ("mixture", "product") and apart:
        raise InvalidRequest(
            "ensemble_apart",
            f"{apart[0]} shares no tokenizer with {about.model}, so tokens cannot be combined. Use voting texts.",
        )
    if s.voting != "texts" and not apart:
        combine = "product" if s.voting == "product" else "mixture"
        return Voices(Ensemble(tuple(Member(model=name) for name in models), combine))  # type: ignore[arg-type]
    if kit.interventions and any(models):
        raise InvalidRequest(
            "steering_apart",
            f"Steering is for {about.model}; the others cannot take it. Leave it out, or vote without.",
        )
    return Voices(voters=tuple(name or about.model for name in models))


def candidates_of(kit: Kit, method: str) -> int:
    """Candidates of a round: at least one per voter. What cannot be planned is refused when it is asked."""
    try:
        return max(kit.policy.candidates, len(voices_of(kit, method).voters))
    except InvalidRequest:
        return kit.policy.candidates


def _draft(kit: Kit, plan: Plan) -> Draft | None:
    s = kit.policy.sampling
    if way_of(plan.method).name != "speculative-decoding" and (s.draft_model is None or plan.foreign):
        return None
    name = s.draft_model or ""
    if name == "default":
        name = kit.about.companions[0] if kit.about.companions else ""
    if name and name not in kit.about.companions:
        at_hand = ", ".join(kit.about.companions) or "none"
        raise InvalidRequest(
            "unknown_draft_model",
            f"{name} is no companion of {kit.about.model}; there is {at_hand}. Leave draft_model out to have guesses "
            "looked up in the text.",
        )
    return Draft(name, s.speculative_steps)
