"""A differentiable view of the served model: transformers' own modules, whose blocks can be entered and left anywhere.

The serving tree cannot carry gradients: its parts are fused and, on a CPU, its weights packed. So a plain tree is put
together when it is first asked for. Where the serving weights are not packed (on a GPU, in float64) it is made of the
same tensors and costs nothing; else it is read again from the model's folder and costs the model's size once more
(0.5 GB in float32 for the default model). It is dropped when nobody has used it for a while.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from inference.models.fused import FusedAttention, FusedMLP
from inference.models.linear import PackedLinear
from inference.models.loader import BUILDING, attention_of, find_blocks, from_folder

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # after which nobody is thought to come back soon

Edit = Callable[[Tensor], Tensor]


class PlainView:
    """A plain tree with frozen weights. Its user's thread alone may call it."""

    def __init__(self, hf: Any, own_bytes: int):
        self.hf = hf.eval().requires_grad_(False)
        self.own_bytes = own_bytes  # memory that it does not share with the serving tree
        self.blocks = find_blocks(hf)
        self.device: torch.device = hf.device
        self.dtype: torch.dtype = hf.dtype
        self.compute_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._pass = _Pass()
        self._tuples = [False] * len(self.blocks)  # which blocks answer with a tuple
        for index, block in enumerate(self.blocks):
            block.forward = self._detour(index, block.forward)
        hf.get_output_embeddings().register_forward_pre_hook(self._pick)

    def run(
        self,
        ids: Tensor,
        *,
        layer: int,
        start: Tensor | None = None,
        edit: Edit | None = None,
        read: tuple[Tensor, Tensor] | None = None,
        until: int | None = None,
        offset: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(logits [m, vocabulary], resid_post of `layer` unedited [n, t, d_model], resid_post of `until`).

        Layer -1 is what the embedding gives to the first block.

        `ids` is [n, t], padded on the right, which causal attention keeps from touching anything real. `start` is
        resid_post of `layer`, where it is known: the blocks up to it are then passed over. `edit` gets it and gives
        what takes its place. `read` are the (rows, columns) whose logits are wanted; with `until` the blocks after it
        are passed over. The first token stands at `offset`. Logits are float32 (float64 in a float64 model).
        """
        nothing = torch.zeros(0, dtype=torch.long, device=self.device)
        self._pass = _Pass(layer, start, edit, read or (nothing, nothing), until)
        try:
            positions = torch.arange(offset, offset + ids.shape[1], device=self.device)[None].expand_as(ids)
            out = self.hf(ids.to(self.device), position_ids=positions, use_cache=False)
            assert self._pass.found is not None
            return out.logits[0].to(self.compute_dtype), self._pass.found, self._pass.reached
        finally:
            self._pass = _Pass()

    def _detour(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def detour(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            now = self._pass
            if index == 0:
                hidden_states = self._edited(-1, hidden_states)
            known = now.start is not None and index <= now.layer
            if known or (now.until is not None and index > now.until):
                hidden, rest = hidden_states, ()
            else:
                out = forward(hidden_states, *args, **kwargs)
                self._tuples[index] = isinstance(out, tuple)
                hidden, rest = (out[0], out[1:]) if isinstance(out, tuple) else (out, ())
            hidden = self._edited(index, hidden)
            return (hidden, *(rest or (None,))) if self._tuples[index] else hidden

        return detour

    def _edited(self, index: int, hidden: Tensor) -> Tensor:
        now = self._pass
        if index == now.layer:
            now.found = hidden if now.start is None else now.start
            hidden = (now.edit(now.found) if now.edit else now.found).to(self.dtype)
        if index == now.until:
            now.reached = hidden
        return hidden

    def _pick(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        rows, columns = self._pass.read
        return (args[0][rows, columns][None],)


class _Pass:
    """What the running pass is to do, and what it met."""

    def __init__(
        self,
        layer: int = -2,
        start: Tensor | None = None,
        edit: Edit | None = None,
        read: Any = (slice(None), slice(None)),
        until: int | None = None,
    ):
        self.layer, self.start, self.edit, self.read, self.until = layer, start, edit, read, until
        self.found: Tensor | None = None
        self.reached: Tensor | None = None


# ---- opening and keeping ----


class Opening:
    """A view that is being put together in a thread of its own, so that tokens go on meanwhile."""

    def __init__(self, model: LoadedModel, dtype: torch.dtype):
        self.users = 0
        self._view: PlainView | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._open, args=(model, dtype), name="plain-view", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it is there. Raises what went wrong."""
        self._thread.join(seconds)
        if self._error:
            raise self._error
        return self._view is not None

    @property
    def view(self) -> PlainView:
        while not self.wait(1.0):
            pass
        assert self._view
        return self._view

    def _open(self, model: LoadedModel, dtype: torch.dtype) -> None:
        try:
            self._view = open_view(model, dtype)
        except BaseException as error:
            self._error = error


_kept: WeakKeyDictionary[LoadedModel, dict[torch.dtype, Opening]] = WeakKeyDictionary()
_changing = threading.Lock()


@contextmanager
def borrowed(
    model: LoadedModel, idle_seconds: float = IDLE_SECONDS, dtype: torch.dtype | None = None
) -> Iterator[Opening]:
    """The model's view, which may be one that was in use a moment ago; dropped `idle_seconds` after its last user.

    In another `dtype` than the model's it shares nothing with the serving tree.
    """
    dtype = dtype or model.dtype
    with _changing:
        kept = _kept.setdefault(model, {})
        opening = kept.get(dtype) or Opening(model, dtype)
        kept[dtype] = opening
        opening.users += 1
    try:
        yield opening
    finally:
        with _changing:
            opening.users -= 1
            if opening._error and kept.get(dtype) is opening:
                del kept[dtype]
        _drop_later(kept, dtype, opening, idle_seconds)


def _drop_later(kept: dict[torch.dtype, Opening], dtype: torch.dtype, opening: Opening, seconds: float) -> None:
    def drop() -> None:
        with _changing:
            if not opening.users and kept.get(dtype) is opening:
                del kept[dtype]

    if seconds <= 0:
        return drop()
    timer = threading.Timer(seconds, drop)
    timer.daemon = True
    timer.start()


def open_view(model: LoadedModel, dtype: torch.dtype | None = None) -> PlainView:
    """A view of its own, of the serving tensors where that is possible."""
    dtype = dtype or model.dtype
    state = plain_state(model.hf) if dtype == model.dtype else None
    if state is None:
        hf = from_folder(model.source, dtype, model.device)
        own = sum(p.nbytes for p in hf.parameters())
    else:
        hf, own = _assembled(model.hf, state), 0
    log.info("a differentiable view of %s was opened: %.0f MB of its own", model.id, own / 1e6)
    return PlainView(hf, own)


def plain_state(hf: nn.Module) -> dict[str, Tensor] | None:
    """The serving tree's tensors by transformers' own names, nothing copied; None where they are packed."""
    if any(isinstance(module, PackedLinear) for module in hf.modules()):
        return None
    state = dict(hf.state_dict())
    for name, module in hf.named_modules():
        if isinstance(module, FusedAttention):
            widths = [module.heads * module.head_dim] + [module.kv_heads * module.head_dim] * 2
            _split(state, f"{name}.qkv", [f"{name}.{part}_proj" for part in "qkv"], widths)
        elif isinstance(module, FusedMLP):
            half = state[f"{name}.gate_up.weight"].shape[0] // 2
            _split(state, f"{name}.gate_up", [f"{name}.gate_proj", f"{name}.up_proj"], [half, half])
    return state


def _split(state: dict[str, Tensor], joined: str, parts: list[str], widths: list[int]) -> None:
    for kind in ("weight", "bias"):
        if (whole := state.pop(f"{joined}.{kind}", None)) is not None:
            for part, piece in zip(parts, whole.split(widths), strict=True):
                state[f"{part}.{kind}"] = piece


def _assembled(serving: Any, state: dict[str, Tensor]) -> Any:
    config = copy.deepcopy(serving.config)
    with BUILDING, torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config, dtype=serving.dtype, attn_implementation=attention_of(config))
    hf.load_state_dict(state, strict=False, assign=True)
    hf.tie_weights()
    for name, buffer in serving.named_buffers():  # such as rotary frequencies, which no state holds
        parent, _, leaf = name.rpartition(".")
        hf.get_submodule(parent).register_buffer(leaf, buffer, persistent=False)
    left = [name for name, tensor in (*hf.named_parameters(), *hf.named_buffers()) if tensor.is_meta]
    assert not left, f"not in the serving tree: {left}"
    return hf
