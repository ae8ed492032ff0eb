"""Where a call is made: at the server, or by a model in this process. Decided here and nowhere else.

remote: at the server, always. local: in this process; what only a server has is refused. auto: in this process once a
model is loaded, else at the server; what only a server has is asked of the server either way.

No call that fails on one side is tried on the other. Mechanex does that, and an answer then may come from another
model, or without the steering that was asked for, and nobody is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from steerboard._core import Core, Mode
from steerboard._wire import Emit, Flow, Invoke
from steerboard.errors import SteerboardError, ValidationError

MODES: tuple[Mode, ...] = ("auto", "remote", "local")
HERE = ("generation", "steering", "sae", "policy")  # modules that a loaded model answers
ACCOUNTS = ("account", "auth", "keys", "client")  # about a person at a server, whatever the model
WITHOUT_MODEL = {("policy", name) for name in ("save", "list", "get", "publish_preset", "list_presets", "clone_preset")}


def set_mode(core: Core, mode: str) -> None:
    """Raises ValidationError for a mode that is none."""
    chosen = mode.strip().lower()
    for each in MODES:
        if each == chosen:
            core.mode = each
            return
    raise ValidationError(f"There is no execution mode {mode!r}.", cure=f"Use {', '.join(MODES)}.")


def is_local(core: Core) -> bool:
    """Whether what a model does is done in this process."""
    return core.mode == "local" or (core.mode == "auto" and core.local is not None and core.local.loaded)


def local_call(core: Core, module: str, name: str) -> Callable[..., Any] | None:
    """What answers `module.name` in this process, or None where the server does. Raises SteerboardError."""
    if module in ACCOUNTS or not is_local(core):
        return None
    if module not in HERE:
        if core.mode == "auto":
            return None
        raise _only_at_a_server(module, name)
    here = _held(core, module, name)
    found: Callable[..., Any] | None = getattr(getattr(here, module), name, None)
    if found is None:
        raise _only_at_a_server(module, name)
    return found


def _held(core: Core, module: str, name: str) -> Any:
    from steerboard.local import Local

    if core.local is None:
        core.local = Local()
    if not core.local.loaded and (module, name) not in WITHOUT_MODEL:
        raise SteerboardError(
            f"The execution mode is local, and no model is loaded for {module}.{name}.",
            code="no_local_model",
            cure="Load one with load(name), or set_execution_mode('remote').",
        )
    return core.local


def _only_at_a_server(module: str, name: str) -> SteerboardError:
    return SteerboardError(
        f"{module}.{name} is not done in this process.",
        code="only_at_a_server",
        cure="Ask a server: set_execution_mode('remote').",
    )


def emitted(work: Callable[[], Iterable[Any]]) -> Flow:
    """A stream out of a plain iterator that blocks."""
    things: Iterator[Any] = yield Invoke(lambda: iter(work()))
    end = object()
    try:
        while (thing := (yield Invoke(lambda: next(things, end)))) is not end:
            yield Emit(thing)
    finally:
        if hasattr(things, "close"):
            with contextlib.suppress(ValueError):  # a thread still waits in it; then its end is when that returns
                things.close()  # whoever stops listening ends the work
