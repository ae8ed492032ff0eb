"""What both transports refuse, in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from inference.errors import InvalidRequest, NotFound, Unavailable
from inference.types import Command, ModelInfo, WorkerState

REVISION_SECONDS = 6  # after its last worker was heard of, another revision of a model may be served


def not_served(model: str, served: Iterable[str]) -> NotFound:
    others = ", ".join(served)
    return NotFound("model_not_served", f"{model} is not served; {others or 'no model'} is. Choose one that is.")


def nothing_loaded() -> Unavailable:
    return Unavailable("no_model", "No model is loaded. Ask an administrator to load one.", retry_after=10.0)


def draining() -> Unavailable:
    return Unavailable("draining", "The model is about to be exchanged or stopped. Try again shortly.", retry_after=5.0)


def other_revision(model: str, mine: str, theirs: str) -> Unavailable:
    sentence = (
        f"Other workers serve {model} at revision {theirs}, and this one has loaded {mine}: an answer would depend on "
        f"who gives it. Load the same revision here, or unload the others; this one then takes over within "
        f"{REVISION_SECONDS} s."
    )
    return Unavailable("other_revision", sentence, retry_after=REVISION_SECONDS)


def worker_not_found(worker_id: str) -> NotFound:
    return NotFound("worker_not_found", f"There is no worker {worker_id}. Look at the list again: it may have ended.")


def check_command(command: str, model: str) -> None:
    """Raises InvalidRequest for a command that no worker knows, or one to load nothing."""
    if command not in get_args(Command):
        raise InvalidRequest("bad_command", f"{command!r} is not a command. Use {', '.join(get_args(Command))}.")
    if command == "load" and not model:
        raise InvalidRequest("no_model_named", "Name the model to load: default, a Hugging Face id, or a path.")


def as_served(state: WorkerState, info: ModelInfo | None) -> ModelInfo | None:
    """The model of a worker as those find it who want to use it: one that drains is not to be had."""
    if info and state == "draining":
        return replace(info, state="failed", problem=draining().message)
    return info


def pick(infos: Iterable[ModelInfo], model: str) -> ModelInfo:
    """The entry that `describe(model)` answers with: the one named, or the default, a ready one preferred."""
    known = sorted(infos, key=lambda info: (info.state != "ready", info.id))
    for info in known:
        if model in ("", info.id):
            return info
    error = not_served(model, [info.id for info in known]) if model else nothing_loaded()
    return ModelInfo("failed", id=model, problem=error.message)
