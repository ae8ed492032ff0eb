"""From the settings of a run to one request per lane. Knows vectors, ownership and history; starts nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from inference.errors import InferenceError
from inference.types import GenerationRequest, Message, ModelInfo, SamplingParams
from steering.behaviors.watching import watched
from steering.features.uses import watches_of
from steering.playground.models import LaneOutput, Run
from steering.playground.schema import Lane, RunSettings
from steering.presets.library import lent_to
from steering.refusals import parse_uuid
from steering.vectors.uses import resolve_uses

Answers = dict[str, str]  # lane key -> text


@dataclass(frozen=True)
class PlannedLane:
    """A lane that can run, or the reason why it cannot."""

    key: str
    request: GenerationRequest | None = None
    error: InferenceError | None = None
    behaviors: dict[UUID, str] = field(default_factory=dict)  # by id, the name of the watch that stands for it


@dataclass(frozen=True)
class Turn:
    """One earlier exchange. `first` is the lane that stands in where a lane had not been there yet."""

    input: str
    answers: Answers
    first: str

    def answer_for(self, lane: Lane) -> str:
        return next((self.answers[k] for k in (lane.key, lane.copy_of, self.first) if self.answers.get(k)), "")


def history_of(parent: Run | None) -> list[Turn]:
    """The exchanges that lead to a follow-up of `parent`, first one first."""
    if parent is None:
        return []
    runs = [*parent.ancestors(), parent]
    answers: dict[UUID, Answers] = {run.pk: {} for run in runs}
    for row in LaneOutput.objects.filter(run__in=runs).only("run_id", "key", "text"):
        answers[row.run_id][row.key] = row.text
    return [Turn(run.input, answers[run.pk], run.settings["lanes"][0]["key"]) for run in runs]


def plan_lanes(
    *, user: Any, settings: RunSettings, keys: tuple[str, ...], parent: Run | None, model: ModelInfo, prefix: str
) -> list[PlannedLane]:
    """One entry per key. A vector that the user may not use is as absent as one that never was."""
    lent = lent_to(user, [parse_uuid(text, "vector") for text in settings.vector_ids])
    turns = history_of(parent) if settings.mode == "chat" else []
    planned = []
    for lane in (settings.lane(key) for key in keys):
        try:
            request = _request(lane, settings, turns, f"{prefix}:{lane.key}")
            interventions = resolve_uses(user, lane.interventions, model, lent)
            behaviors = watched(user, lane.behaviors, model, lane.auto_correct, lane.force_steering)
            watches = (*watches_of(settings.watched, model), *(each.watch for each in behaviors))
            request = dataclasses.replace(request, interventions=interventions, watches=watches)
            planned.append(PlannedLane(lane.key, request, behaviors={b.behavior.pk: b.watch.name for b in behaviors}))
        except InferenceError as error:
            planned.append(PlannedLane(lane.key, error=error))
    return planned


def _request(lane: Lane, settings: RunSettings, turns: list[Turn], id: str) -> GenerationRequest:
    sampling: SamplingParams = dataclasses.replace(settings.sampling, seed=settings.seed_of(lane.key))
    asked = GenerationRequest(
        id, settings.model, sampling=sampling, constraint=settings.constraint, draft=settings.draft
    )
    if settings.mode == "completion":
        text = f"{lane.system_prompt}\n\n{settings.input}" if lane.system_prompt else settings.input
        return dataclasses.replace(asked, prompt=text)
    return dataclasses.replace(asked, messages=_messages(lane, settings.input, turns))


def _messages(lane: Lane, text: str, turns: list[Turn]) -> tuple[Message, ...]:
    messages = [Message("system", lane.system_prompt)] if lane.system_prompt else []
    for turn in turns:
        if answer := turn.answer_for(lane):  # a turn that nobody answered is not part of the talk
            messages += [Message("user", turn.input), Message("assistant", answer)]
    return (*messages, Message("user", text))
