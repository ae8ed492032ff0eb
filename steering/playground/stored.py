"""The events of a run as its rows hold them, with the numbers they had while it ran."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from inference.types import Firing
from steering.behaviors.monitoring import Seen
from steering.playground.models import LaneOutput, Run
from steering.playground.runlog import Event, RunLog


def stored_events(run_id: UUID) -> list[Event]:
    """What is saved, up to the last event without a gap; of a run that has ended all. Raises Run.DoesNotExist."""
    run = Run.objects.get(pk=run_id)
    events = without_gap(event for output in run.outputs.all() for event in output.events())
    if run.state != Run.State.RUNNING:
        events.append({"t": "run_finished", "state": run.state, "saved": True, "seq": len(events)})
    return events


def stored_log(run_id: UUID) -> RunLog:
    """The log of a run that has ended."""
    log = RunLog(stored_events(run_id))
    log.close()
    return log


def without_gap(events: Any) -> list[Event]:
    found = sorted(events, key=lambda event: event["seq"])
    whole = next((i for i, event in enumerate(found) if event["seq"] != i), len(found))
    return found[:whole]


def renumber(row: LaneOutput, events: list[Event]) -> None:
    """Let a row hold these events of its lane, the first one's start to, where it has ended, its end."""
    tokens = [event for event in events if event["t"] == "token"]
    row.started = next((event for event in events if event["t"] == "started"), None)
    row.tokens = [{name: token[name] for name in ("seq", "id", "s", "lp", "top")} for token in tokens]
    row.watched = [kept_of_watch(event) for event in events if event["t"] in ("scored", "fired")]
    row.ended = events[-1] if "state" in events[-1] else None
    row.text = "".join(event.get("s") or "" for event in events)
    row.state = row.ended["state"] if row.ended else LaneOutput.State.RUNNING


def kept_of_watch(event: Event) -> Event:
    """An event of a watch as its row keeps it: the lane is the row's."""
    return {name: value for name, value in event.items() if name != "lane"}


def seen_in(names: dict[UUID, str], row: LaneOutput) -> Seen:
    """What the behaviors of a lane that has ended saw in it."""
    return Seen(
        names,
        tuple(Firing.from_wire(firing) for firing in row.receipt.get("fired") or ()),
        [token["s"] for token in row.tokens],
        (row.started or {}).get("prompt_tokens", 0),
    )
