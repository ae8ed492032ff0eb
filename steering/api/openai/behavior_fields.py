"""Behaviors in a request's body, under the names that Mechanex's clients send, and what became of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inference.types import Receipt
from steering.api.openai.ask import BehaviorsAsk
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.behaviors.watching import Watched, watched
from steering.presets.models import Preset

FINISH_REASONS = {"watch": "content_filter"}  # as OpenAI says that something was kept from being written


def read_behaviors(body: Fields) -> BehaviorsAsk:
    """`behavior_names` and `force_steering` take a name or several; the latter also true, for all of them."""
    forced = body.any("force_steering")
    everything = forced is True
    names = () if isinstance(forced, bool) else body.texts("force_steering") or ()
    return BehaviorsAsk(
        names=tuple(dict.fromkeys((*(body.texts("behavior_names") or ()), *names))),
        auto_correct=body.flag("auto_correct"),
        force=names,
        force_all=everything,
    )


def watched_for(user: Any, asked: BehaviorsAsk, preset: Preset | None, model: Any) -> tuple[Watched, ...]:
    """Those of the preset, then those of the body; what the body says of correction comes before the preset's word.

    Raises ApiError where it says how to correct, and nothing is watched.
    """
    content = preset.parsed if preset else None
    if content is not None and content.behaviors:
        asked = replace(
            asked,
            names=tuple(dict.fromkeys((*content.behaviors, *asked.names))),
            auto_correct=content.auto_correct if asked.auto_correct is None else asked.auto_correct,
            force=tuple(dict.fromkeys((*content.force_steering, *asked.force))),
        )
    if not asked.names:
        if asked.force_all or asked.auto_correct is not None:
            name = "force_steering" if asked.force_all else "auto_correct"
            raise invalid(f"'{name}' says what to do, and nothing says of what. Name them in 'behavior_names'.", name)
        return ()
    correct = asked.auto_correct is not False
    return watched(user, asked.names, model, correct, True if asked.force_all else asked.force)


def outcome(uses: tuple[Watched, ...], receipts: list[tuple[int, Receipt | None, str | None, int]]) -> dict[str, Any]:
    """The field to add to an answer: what was watched for, and of each row (its number, receipt, reason and prompt
    tokens) what fired. `index` counts the answer's tokens from 0; a token of the prompt has none.
    """
    if not uses:
        return {}
    said = [
        {
            "name": use.watch.name,
            "action": use.watch.action,
            "threshold": use.watch.threshold,
            "forced": use.watch.force,
        }
        for use in uses
    ]
    names = {use.watch.name for use in uses}
    rows = [_row(row, receipt, reason, prompt, names) for row, receipt, reason, prompt in receipts if receipt]
    return {"behaviors": {"watched": said, "outcomes": rows}}


def _row(row: int, receipt: Receipt, reason: str | None, prompt_tokens: int, names: set[str]) -> dict[str, Any]:
    fired = [firing for firing in receipt.fired if firing.name in names]
    stopped = next((firing.name for firing in reversed(fired) if firing.action == "stop"), None)
    return {
        "index": row,
        "fired": {name: count for name in sorted(names) if (count := sum(f.name == name for f in fired))},
        "fired_total": receipt.fired_total,
        "stopped_by": stopped if reason == "watch" else None,
        "firings": [
            {
                "name": f.name,
                "position": f.position,
                "index": f.position - prompt_tokens if f.position >= prompt_tokens else None,
                "token_id": f.token_id,
                "score": f.score,
                "action": f.action,
                "dose": f.dose,
            }
            for f in fired
        ],
    }
