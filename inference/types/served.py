"""What is served: autoencoders, models and workers, and what a worker may be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.wire import Wire

ModelState = Literal["loading", "ready", "failed"]
WorkerState = Literal["loading", "ready", "draining", "empty", "failed", "lost"]
Command = Literal["load", "unload", "drain", "resume"]
EngineKind = Literal["built-in", "vllm"]


@dataclass(frozen=True)
class SourceInfo(Wire):
    """A sparse autoencoder that a worker can read: `id` is `<layer>-<set>`, such as `9-res-4k`."""

    id: str
    hook_name: str  # TransformerLens's
    layer: int  # the block after which, or in which, it lies: for `resid_pre` of block i it is i - 1
    width: int  # latents
    architecture: str  # sae-lens's name
    bytes: int
    loaded: bool
    origin: str  # a release and id, or the name of a folder
    indexed: bool = False  # contexts, histograms and maxima of a corpus are at hand
    facts: dict[str, Any] = field(default_factory=dict)  # explained_variance, l0, dead, loss_recovered, recipe...
    problem: str = ""  # why it cannot be used, and what to do


@dataclass(frozen=True)
class ModelInfo(Wire):
    """What pages need to draw themselves. `state` is loading, ready or failed; `problem` says why and what to do."""

    state: ModelState
    id: str
    revision: str = ""
    architecture: str = ""
    n_layers: int = 0
    d_model: int = 0
    vocab_size: int = 0
    context_length: int = 0
    dtype: str = ""
    device: str = ""
    has_chat_template: bool = False
    load_seconds: float = 0.0
    rows: int = 0  # in the batch now
    waiting: int = 0
    max_rows: int = 0
    tokens_per_second: float = 0.0
    problem: str = ""
    sources: tuple[SourceInfo, ...] = ()
    companions: tuple[str, ...] = ()  # other models at hand with the same tokenizer, for drafts and ensembles
    engine: str = "built-in"  # what runs it, such as "vLLM 0.32.0"


@dataclass(frozen=True)
class WorkerInfo(Wire):
    """One process that holds an engine.

    draining: it finishes what runs and takes nothing new. empty: no model. lost: it has not been heard of for seconds,
    or its engine stands still. `started` is in seconds since 1970, `heartbeat_age` in seconds.
    """

    id: str
    host: str
    pid: int
    state: WorkerState
    model: ModelInfo | None
    started: float
    heartbeat_age: float
    memory_bytes: int
