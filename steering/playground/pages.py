"""What the playground's page is drawn from: one JSON object, the same for a new run and for a saved one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from inference.types import FeatureRef, SamplingParams
from steering.behaviors.models import Behavior
from steering.features.uses import MAX_WATCHED
from steering.playground.models import LaneOutput, Run
from steering.playground.schema import (
    LANE_KEYS,
    MAX_CHARS,
    MAX_LANES,
    Lane,
    Mode,
    RunSettings,
    default_lanes,
    default_sampling,
)
from steering.playground.starters import lanes_for, mode_for
from steering.playground.ways import methods, neutral
from steering.presets.models import Preset
from steering.presets.sampling import MAX_TOKENS
from steering.presets.words import example_of
from steering.refusals import need
from steering.vectors.models import Vector
from steering.vectors.uses import MAX_USES, VectorUse
from steering.workers.choice import Served
from steering.workers.sources import check_feature

LIMITS = {
    "lanes": MAX_LANES,
    "keys": LANE_KEYS,
    "interventions": MAX_USES,
    "watched": MAX_WATCHED,
    "max_tokens": MAX_TOKENS,
    "chars": MAX_CHARS,
}


def new_page(served: Served, vector: Vector | None, like: Run | None, draft: str) -> dict[str, Any]:
    """A page on which nothing has run: the lanes of another run, or those for a vector."""
    fresh = RunSettings(mode=mode_for(vector), lanes=lanes_for(vector), model=served.name)
    settings = dataclasses.replace(like.parsed, input="") if like else fresh
    if not _chats(served):
        settings = dataclasses.replace(settings, mode="completion")
    return _page(served, settings) | {"draft": draft[:MAX_CHARS], "run": None, "turns": []}


def preset_page(served: Served, preset: Preset, draft: str) -> dict[str, Any]:
    """A page on which nothing has run: base, and a preset with its sampling beside it."""
    content = preset.parsed
    base, _, steered = default_lanes()
    lane = Lane("B", preset.name, steered.colour, content.system_prompt, content.uses)
    lane = dataclasses.replace(
        lane,
        behaviors=content.behaviors,
        auto_correct=content.auto_correct,
        force_steering=content.force_steering,
    )
    sampling = SamplingParams.from_wire(default_sampling().to_wire() | content.sampling)
    mode = example_of(preset)[0] if _chats(served) else "completion"
    settings = RunSettings(mode=mode, lanes=(base, lane), sampling=sampling, model=served.name)
    return _page(served, settings) | {"draft": draft[:MAX_CHARS], "run": None, "turns": []}


def feature_page(served: Served, asked: Sequence[tuple[FeatureRef, int]], draft: str) -> dict[str, Any]:
    """A page on which nothing has run: base, and features with their signs beside it, which both lanes watch.

    One begins with its own maximum, or with 30 raw where no corpus says what that is; several share it.
    Raises as `check_feature`, and InvalidRequest("intervention_count") for more than a lane takes.
    """
    most = min(MAX_USES, MAX_WATCHED)
    said = f"{len(asked)} features are more than a lane takes, which is {most}. Choose fewer."
    need(len(asked) <= most, "intervention_count", said)
    refs = tuple(dict.fromkeys(ref for ref, _ in asked))
    uses = tuple(_feature_use(served, ref, sign / len(refs)) for ref, sign in dict(asked).items())
    base, _, steered = default_lanes()
    lane = Lane("B", "Steered", steered.colour, interventions=uses)
    mode: Mode = "chat" if _chats(served) else "completion"
    settings = RunSettings(mode=mode, lanes=(base, lane), model=served.name, watched=refs)
    return _page(served, settings) | {"draft": draft[:MAX_CHARS], "run": None, "turns": []}


def _feature_use(served: Served, ref: FeatureRef, share: float) -> VectorUse:
    indexed = check_feature(served.model, ref).indexed
    strength, unit = (1.0, "max") if indexed else (30.0, "raw")
    return VectorUse(feature=ref, strength=round(strength * share, 3), unit=unit)  # type: ignore[arg-type]


def behavior_page(served: Served, behavior: Behavior, name: str, draft: str) -> dict[str, Any]:
    """A page on which nothing has run: base, and beside it the same model watched for a behavior."""
    base, _, steered = default_lanes()
    lane = Lane("B", behavior.name, steered.colour, behaviors=(name,))
    mode: Mode = "chat" if _chats(served) else "completion"
    settings = RunSettings(mode=mode, lanes=(base, lane), model=served.name)
    return _page(served, settings) | {"draft": draft[:MAX_CHARS], "run": None, "turns": []}


def _chats(served: Served) -> bool:
    return served.model.state != "ready" or served.model.has_chat_template


def run_page(served: Served, run: Run) -> dict[str, Any]:
    """A saved run with the turns that led to it. Its own texts come over the websocket."""
    facts = {
        "id": str(run.pk),
        "title": run.title,
        "state": run.state,
        "input": run.input,
        "mode": run.settings["mode"],
        "versions": [str(pk) for pk in run.versions()],
    }
    return _page(served, run.parsed) | {"draft": "", "run": facts, "turns": _turns(run)}


def _page(served: Served, settings: RunSettings) -> dict[str, Any]:
    """`models` has those to choose from where there are several; a run keeps the name of its own."""
    return {
        "settings": settings.to_wire(),
        "defaults": default_sampling().to_wire(),
        "limits": LIMITS,
        "methods": methods(),
        "neutral": neutral(),
        "model": served.model.to_wire(),
        "models": [model.to_wire() for model in served.models],
    }


def _turns(run: Run) -> list[dict[str, Any]]:
    earlier = run.ancestors()
    rows = LaneOutput.objects.filter(run__in=earlier).only("run_id", "key", "state", "text")
    return [
        {
            "id": str(turn.pk),
            "input": turn.input,
            "answers": {row.key: {"state": row.state, "text": row.text} for row in rows if row.run_id == turn.pk},
        }
        for turn in earlier
    ]
