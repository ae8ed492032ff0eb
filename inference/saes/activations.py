"""What the model has at an SAE's site for given texts, in slices short enough that streams go on beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inference.cache import KVCache, round_up
from inference.errors import InvalidRequest
from inference.masks import attention_masks
from inference.models.loader import Enough, enough
from inference.saes.places import EMBEDDING, Place
from inference.vectors.slices import budget

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Ids = Sequence[int]
Take = Callable[[Tensor], None]
LOOKS_BACK = 2048  # tokens before a slice that make its tokens cost twice as much
ATTENTION = ("self_attn", "attn", "attention")
OUT = ("o_proj", "c_proj", "dense")
GEMMA = ("pre_feedforward_layernorm", "post_feedforward_layernorm", "post_attention_layernorm")
BEFORE_MLP = ("pre_feedforward_layernorm", "ln_2", "post_attention_layernorm")


def read_texts(
    model: LoadedModel, places: Sequence[Place], texts: Sequence[Ids]
) -> Iterator[tuple[int, list[Tensor]] | None]:
    """For each text, its number and one [tokens, width] per place, float32 or more; None after each slice before that.

    Short texts share a slice where the model's own decode step reads them. Raises InvalidRequest("unknown_hook") for a
    place that this model does not have.
    """
    layers = {place.residual for place in places}
    if model.shares and model.decoder and len(layers) == 1 and EMBEDDING not in layers and None not in layers:
        yield from _shared(model, places, texts)
    else:
        yield from _hooked(model, places, texts)


def _shared(
    model: LoadedModel, places: Sequence[Place], texts: Sequence[Ids]
) -> Iterator[tuple[int, list[Tensor]] | None]:
    reader = model.reader([places[0].layer])
    at = 0
    while at < len(texts):
        most = budget(model, padded=False)
        if len(texts[at]) > most:
            parts: list[Tensor] = []
            for start, stop in _chunks(model, len(texts[at])):
                parts.append(_kept(next(iter(reader.read([texts[at][:stop]], [start])))))
                if stop < len(texts[at]):
                    yield None
            yield at, [torch.cat(parts)] * len(places)
            at += 1
            continue
        stop, size = at, 0
        while stop < len(texts) and size + len(texts[stop]) <= most:
            size += len(texts[stop])
            stop += 1
        found = _kept(next(iter(reader.read(texts[at:stop], [0] * (stop - at)))))
        for i, one in enumerate(found.split([len(text) for text in texts[at:stop]]), at):
            yield i, [one] * len(places)
        at = stop


def _chunks(model: LoadedModel, length: int) -> Iterator[tuple[int, int]]:
    """Starts and stops of the slices of one long text: shorter ones the more there is to look back at."""
    start = 0
    while start < length:
        stop = min(length, start + max(1, budget(model, padded=False) * LOOKS_BACK // (LOOKS_BACK + start)))
        yield start, stop
        start = stop


def _kept(tensor: Tensor) -> Tensor:
    """The reader's tensor is valid until the next read only."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor.clone()


def _hooked(
    model: LoadedModel, places: Sequence[Place], texts: Sequence[Ids]
) -> Iterator[tuple[int, list[Tensor]] | None]:
    at = 0
    while at < len(texts):
        stop = _together(model, texts, at)
        longest = max(map(len, texts[at:stop]))
        parts: list[list[Tensor]] = []
        cache = KVCache()
        for begin, end in _chunks(model, longest) if stop == at + 1 else [(0, longest)]:
            parts.append(_pass(model, places, texts[at:stop], begin, end, cache))
            if end < longest:
                yield None
        whole = [torch.cat(each, dim=1) for each in zip(*parts, strict=True)]
        for row, i in enumerate(range(at, stop)):
            yield i, [h[row, : len(texts[i])] for h in whole]
        at = stop


def _together(model: LoadedModel, texts: Sequence[Ids], at: int) -> int:
    """The end of the texts from `at` on that one slice reads side by side, padded on the right; at least one."""
    most, stop, longest = budget(model, padded=True), at + 1, len(texts[at])
    while stop < len(texts) and max(longest, len(texts[stop])) * (stop + 1 - at) <= most:
        longest = max(longest, len(texts[stop]))
        stop += 1
    return stop


@torch.inference_mode()
def _pass(
    model: LoadedModel, places: Sequence[Place], texts: Sequence[Ids], start: int, stop: int, cache: KVCache
) -> list[Tensor]:
    """One pass over tokens start to stop of each text; blocks after the last place are not run."""
    found: dict[int, Tensor] = {}
    positions = torch.arange(start, stop, device=model.device)[None].expand(len(texts), -1)
    visible = round_up(stop)
    cache.extend(slice(0, len(texts)), start, stop, visible)
    ids = torch.zeros(len(texts), stop - start, dtype=torch.long)
    for row, text in enumerate(texts):
        some = text[start:stop]
        ids[row, : len(some)] = torch.tensor(some)
    with ExitStack() as stack:
        for number, place in enumerate(places):
            stack.callback(hook(model, place, partial(_put, found, number)).remove)
        last = model.layers[max(0, *(place.layer for place in places))].register_forward_hook(enough)
        stack.callback(last.remove)
        with suppress(Enough):
            model.hf(
                input_ids=ids.to(model.device),
                position_ids=positions,
                attention_mask=attention_masks(model.hf.config.get_text_config(), positions, visible, model.dtype),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    return [found[number] for number in range(len(places))]


def _put(found: dict[int, Tensor], number: int, h: Tensor) -> None:
    found[number] = _kept(h)


def hook(model: LoadedModel, place: Place, take: Take) -> Any:
    """A forward hook that hands [rows, tokens, width] at `place` to `take`; a handle to remove it with.

    Names as TransformerLens computes them: what the MLP and attention add to the stream is taken after Gemma's norms,
    and `z` is the heads' mix before the output projection, heads side by side. Raises InvalidRequest("unknown_hook").
    """
    if place.residual == EMBEDDING:
        return model.layers[0].register_forward_pre_hook(_input(take), with_kwargs=True)
    block: Any = model.layers[place.layer]
    norms = all(hasattr(block, name) for name in GEMMA)
    match place.point:
        case "resid_post":
            return block.register_forward_hook(_output(take))
        case "resid_mid" if not _parallel(model):
            return _part(block, BEFORE_MLP).register_forward_pre_hook(_input(take), with_kwargs=True)
        case "mlp_norm" if not _parallel(model):
            norm = _part(block, BEFORE_MLP)
            return norm.register_forward_pre_hook(_input(lambda h: take(_normalised(norm, h))), with_kwargs=True)
        case "attn_out":
            module = block.post_attention_layernorm if norms else _part(block, ATTENTION)
            return module.register_forward_hook(_output(take))
        case "mlp_out":
            module = block.post_feedforward_layernorm if norms else _part(block, ("mlp",))
            return module.register_forward_hook(_output(take))
        case "mlp_in":
            return _part(block, ("mlp",)).register_forward_pre_hook(_input(take), with_kwargs=True)
        case "z":
            return _part(_part(block, ATTENTION), OUT).register_forward_pre_hook(_input(take), with_kwargs=True)
    raise InvalidRequest(
        "unknown_hook",
        f"{model.id} computes attention and MLP side by side, so it has no {place.point}. Choose an SAE of another "
        "site.",
    )


def output_projection(model: LoadedModel, layer: int) -> nn.Module:
    """What brings `z` into the residual stream."""
    return _part(_part(model.layers[layer], ATTENTION), OUT)


def _parallel(model: LoadedModel) -> bool:
    return bool(getattr(model.hf.config.get_text_config(), "use_parallel_residual", False))


def _part(parent: nn.Module, names: Sequence[str]) -> Any:
    for name in names:
        if hasattr(parent, name):
            return getattr(parent, name)
    raise InvalidRequest(
        "unknown_hook", f"{type(parent).__name__} has none of {', '.join(names)}. Choose an SAE of the residual stream."
    )


def _input(take: Take) -> Callable[..., None]:
    def seen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        take(args[0] if args else kwargs["hidden_states"])

    return seen


def _output(take: Take) -> Callable[..., None]:
    def seen(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
        take(out[0] if isinstance(out, tuple) else out)

    return seen


def _normalised(norm: Any, h: Tensor) -> Tensor:
    """What the norm makes of h before its weight: TransformerLens's hook_normalized."""
    x = h.to(torch.promote_types(h.dtype, torch.float32))
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(dim=-1, keepdim=True)
        return x / (x.pow(2).mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    epsilon: float = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return x * (x.pow(2).mean(dim=-1, keepdim=True) + epsilon).rsqrt()
