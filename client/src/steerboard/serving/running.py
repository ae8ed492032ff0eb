"""From the arguments of `serve` to a server that listens."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Sequence
from typing import Any

from steerboard import _routing
from steerboard._core import Core
from steerboard.errors import SteerboardError, ValidationError
from steerboard.serving.addresses import is_loopback
from steerboard.serving.app import App, Backend

VLLM = "vllm"


def serve(
    core: Core,
    *,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    use_vllm: bool = False,
    corrected_behaviors: Sequence[str] = (),
    api_key: str | None = None,
) -> None:
    """Until interrupted. May run in a thread. Raises SteerboardError for what cannot be served as asked."""
    if not api_key and not is_loopback(host):
        raise ValidationError(
            f"At {host} other machines could use the model, and no key was set.",
            cure="Give api_key=..., which callers then send; or serve at 127.0.0.1.",
        )
    try:
        import uvicorn
    except ImportError as missing:
        raise SteerboardError("Serving needs uvicorn.", cure="pip install 'steerboard[serve]'") from missing
    _need_free(host, port)
    backend = backend_of(core, model, use_vllm, corrected_behaviors)
    config = uvicorn.Config(App(backend, api_key), host=host, port=port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    if threading.current_thread() is not threading.main_thread():
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.run()


def backend_of(core: Core, model: str | None, use_vllm: bool, corrected: Sequence[str]) -> Backend:
    from steerboard.serving.forward import Forward
    from steerboard.serving.here import Here

    if use_vllm:
        _load_vllm(core, model)
    elif model is not None and not _is_loaded(core, model) and core.mode != "remote":
        _local(core).load(model)
    if not _routing.is_local(core) and not use_vllm:
        return Forward(core, corrected, model)
    local = _local(core)
    if corrected:
        local.sae.watches(corrected, None, None)  # an unknown name is told before anything listens
    return Here(local, corrected, model)


def _load_vllm(core: Core, model: str | None) -> None:
    """The model by vLLM's engine; what it cannot do is refused by it, by name."""
    if importlib.util.find_spec(VLLM) is None:
        raise SteerboardError(
            "vLLM is not installed in this Python.",
            code="no_vllm",
            cure="Install it as docs/vllm.md says and run this with that Python; or leave use_vllm out.",
        )
    from steerboard.local.opening import model_named

    name = model_named(model) if model else _loaded_source(core)
    _local(core).load(f"{VLLM}://{name}")


def _loaded_source(core: Core) -> str:
    source = core.local.source if core.local is not None else ""
    if not source:
        raise ValidationError("Which model vLLM is to serve is not said.", cure="Give model=, or load(name) before.")
    return str(source)


def _is_loaded(core: Core, model: str) -> bool:
    return core.local is not None and core.local.loaded and model in (core.local.name, core.local.model_id)


def _local(core: Core) -> Any:
    from steerboard.local import Local

    if core.local is None:
        core.local = Local()
    return core.local


def _need_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ValidationError(
                f"Port {port} of {host} cannot be used: {error}.", cure="Choose another port."
            ) from None
