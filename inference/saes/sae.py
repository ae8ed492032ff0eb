"""One sparse autoencoder, ready to read with: what sae-lens computes, as plain functions of plain tensors.

sae-lens's modules keep a text's normalisation between encode and decode, so that two readers would disturb each other;
here the activation is handed to both. Bricken et al. 2023 (standard), Gao et al. 2024 (TopK, arXiv 2406.04093),
Rajamanoharan et al. 2024 (gated, JumpReLU: arXiv 2404.16014, 2407.14435), Dunefsky et al. 2024 (transcoders).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.saes.places import Place

Kind = Literal["relu", "jumprelu", "gated", "topk", "abstopk", "whole"]
Scaling = Literal["none", "constant_norm_rescale", "layer_norm"]
WRITTEN = ("resid_post", "resid_mid", "attn_out", "mlp_out")  # points where centred writing weights are seen
EPSILON = 1e-5  # sae-lens's, of layer_norm


class Whole(Protocol):
    """sae-lens's own module, for architectures whose latents depend on each other or on earlier tokens."""

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, feature_acts: Tensor) -> Tensor: ...
    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LatentRows:
    """What it takes to read and to write k latents of one token. Copies: they hold no SAE in memory.

    With h the activation at the SAE's site as the model has it (centring and biases are inside):
    z = scale(h) * (encoder @ h); latent = relu(gain * z + bias) where z > cut, else 0. A change of a latent by x
    changes the activation by x / unscale(h) * decoder row. `scaling` "none" makes both 1; else `scales` gives them.
    `full` is the SAE where a latent depends on all others (TopK), which must then be read with `full.latents`.
    """

    indices: tuple[int, ...]
    layer: int | None  # whose resid_post is read, -1 being the embedding; None: another site
    write_layer: int | None  # at whose resid_post adding a decoder row is exact; None: nowhere
    encoder: Tensor  # float32[k, d_in]
    gain: Tensor  # float32[k]
    bias: Tensor  # float32[k]
    cut: Tensor  # float32[k], -inf where there is none
    decoder: Tensor  # float32[k, d_out]
    scaling: Scaling = "none"
    centred: bool = False  # scale and unscale are those of h without its mean
    full: Sae | None = None

    def read(self, h: Tensor) -> Tensor:
        """[..., d_in] -> [..., k]: the formula above. Not where `full` is set."""
        h = h.to(self.encoder.dtype)
        z = h @ self.encoder.T
        if self.scaling != "none":
            z = z * scales(h, self.scaling, self.centred)[0]
        return torch.relu(self.gain * z + self.bias) * (z > self.cut)


@dataclass(eq=False)
class Sae:
    """A loaded SAE. Immutable, so any thread may read with it. Decoder rows have norm 1 where `folded`."""

    id: str
    hook_name: str
    place: Place  # that it reads
    target: Place  # that it reconstructs: the same, but for transcoders
    architecture: str
    kind: Kind
    W_enc: Tensor  # [d_in, width]; empty where `whole` does without
    b_enc: Tensor  # [width]
    W_dec: Tensor  # [width, d_out]
    b_dec: Tensor  # [d_out]
    scaling: Scaling = "none"
    centred: bool = False  # the model's activation has its mean over d_model taken off, input and target
    subtract: bool = True  # b_dec is taken off the input
    k: int = 0
    threshold: Tensor | None = None  # [width], of jumprelu
    W_mag: Tensor | None = None  # [d_in, width], of gated: W_enc * gain
    b_mag: Tensor | None = None
    gain: Tensor | None = None  # [width], likewise
    W_skip: Tensor | None = None  # [d_out, d_in], of skip transcoders
    rescale: bool = False  # TopK ranks latents by activation times decoder norm
    whole: Whole | None = None
    factor: float = 1.0  # the input was multiplied by, of temporal
    context: bool = False  # a latent depends on the tokens before; h is then one text, [tokens, d_in]
    folded: bool = False
    decoder_norms: Tensor | None = None  # float32[width], before folding
    max_activations: Tensor | None = None  # float32[width], in the corpus index
    residual_norm: float | None = None  # of an ordinary token at the site, likewise
    write_layer: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.width, self.d_out = self.W_dec.shape
        self._norms = self.W_dec.norm(dim=-1) if self.rescale else None
        self._using = threading.Lock()  # of `whole`, which keeps what it scaled by

    @property
    def layer(self) -> int:
        """The block in, or after, which it reads; -1 is the embedding."""
        return self.place.layer

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.W_dec.dtype

    @property
    def transcoder(self) -> bool:
        return self.place != self.target

    @property
    def bytes(self) -> int:
        """What it holds in memory, shared tensors counted once."""
        own = [v for v in vars(self).values() if isinstance(v, Tensor)]
        inner = self.whole.parameters() if isinstance(self.whole, torch.nn.Module) else ()
        return sum({t.data_ptr(): t.nbytes for t in (*own, *inner)}.values())

    # ---- reading ----

    @torch.no_grad()
    def encode(self, h: Tensor) -> Tensor:
        """[..., d_in], as the model has it, -> latents [..., width] in the SAE's dtype. sae-lens's own numbers."""
        if self.whole is not None:
            return self._whole(self.whole.encode, h)
        x = self._input(h)
        pre = x @ self.W_enc + self.b_enc
        if self.kind == "gated":
            assert self.W_mag is not None
            assert self.b_mag is not None
            return (pre > 0).to(self.dtype) * torch.relu(x @ self.W_mag + self.b_mag)
        if self.kind == "jumprelu":
            assert self.threshold is not None
            return torch.relu(pre) * (pre > self.threshold).to(self.dtype)
        return self._ranked(pre) if self.kind in ("topk", "abstopk") else torch.relu(pre)

    @torch.no_grad()
    def latents(self, h: Tensor, indices: Sequence[int]) -> Tensor:
        """[..., d_in] -> [..., len(indices)]: only those are encoded, where the architecture allows."""
        chosen = self.checked(indices).to(self.W_dec.device)
        if self.needs_all:
            return self.encode(h)[..., chosen]
        x = self._input(h)
        pre = x @ self.W_enc[:, chosen] + self.b_enc[chosen]
        if self.kind == "gated":
            assert self.W_mag is not None
            assert self.b_mag is not None
            return (pre > 0).to(self.dtype) * torch.relu(x @ self.W_mag[:, chosen] + self.b_mag[chosen])
        if self.kind == "jumprelu":
            assert self.threshold is not None
            return torch.relu(pre) * (pre > self.threshold[chosen]).to(self.dtype)
        return torch.relu(pre)

    @torch.no_grad()
    def decode(self, latents: Tensor, h: Tensor | None = None) -> Tensor:
        """[..., width] -> [..., d_out], of the target as the SAE sees it: centred where `centred`.

        `h` is the activation that was encoded; an SAE that scales what it reads needs it to scale back, and a skip
        transcoder adds its linear part of it where `h` is given.
        """
        out = self._decoded(latents.to(self.dtype)) + self.b_dec
        if self.factor != 1:
            out = out / self.factor
        if self.scaling != "none" and not self.transcoder:
            assert h is not None, "this SAE scales what it reads: hand over the activation too"
            x = self._centre(h.to(self.dtype))
            _, back, mean = _scale(x, self.scaling)
            out = out / back if self.scaling == "constant_norm_rescale" else out * back + mean
        if self.W_skip is not None and h is not None:
            out = out + h.to(self.dtype) @ self.W_skip.T
        return out

    @torch.no_grad()
    def reconstruct(self, h: Tensor) -> Tensor:
        """What takes the target's place when the SAE is spliced in: the mean that centring took off is put back."""
        if self.context:
            assert self.whole is not None
            out = self._whole(self.whole, h)
        else:
            out = self.decode(self.encode(h), h)
        if self.transcoder:
            return out
        return out + (h.to(self.dtype) - self._centre(h.to(self.dtype)))

    @torch.no_grad()
    def error(self, h: Tensor, target: Tensor | None = None) -> Tensor:
        """What the SAE does not explain: target - reconstruction. `target` is a transcoder's output site."""
        if target is None and self.transcoder:
            raise ValueError("a transcoder's error needs the activation at its output")
        wanted = self.wanted(h if target is None else target)
        if self.context:
            assert self.whole is not None
            return wanted - self._whole(self.whole, h)
        return wanted - self.decode(self.encode(h), h)

    def wanted(self, target: Tensor) -> Tensor:
        """The activation at the target's site as the SAE means to reconstruct it."""
        return self._centre(target.to(self.dtype), self.target)

    @property
    def needs_all(self) -> bool:
        """Whether no latent can be read without all others."""
        return self.whole is not None or self.kind in ("topk", "abstopk")

    def rows(self, indices: Sequence[int], dtype: torch.dtype = torch.float32) -> LatentRows:
        """What an engine needs to read and steer these latents. Raises InvalidRequest for an index out of range, and
        "source_needs_text" where a latent depends on earlier tokens."""
        chosen = self.checked(indices).to(self.W_dec.device)
        if self.context:
            raise InvalidRequest(
                "source_needs_text",
                f"{self.id} is a {self.architecture} SAE, whose features depend on all tokens before: they can be read "
                "in a text, but not while a text is written. Choose another source to steer or watch with.",
            )
        decoder = self.W_dec[chosen].to(dtype)
        if self._norms is not None:
            decoder = decoder / self._norms[chosen].to(dtype)[:, None]
        decoder = decoder / self.factor
        ones = torch.ones(len(chosen), dtype=dtype, device=decoder.device)
        at = (tuple(indices), self.place.residual, self.write_layer)
        if self.needs_all:
            nothing = torch.zeros(len(chosen), self.d_in, dtype=dtype, device=decoder.device)
            return LatentRows(
                *at, nothing, ones, 0 * ones, -ones * torch.inf, decoder, self.scaling, self.centred, self
            )
        encoder = self.W_enc[:, chosen].T.to(dtype)
        offset = -(encoder @ self.b_dec.to(dtype)) if self.subtract else 0 * ones
        centred = self.centred and self.place.point in WRITTEN
        if centred or self.scaling == "layer_norm":
            encoder = encoder - encoder.mean(dim=-1, keepdim=True)
        pre = self.b_enc[chosen].to(dtype)
        gain, bias, cut = ones, pre, -ones * torch.inf
        if self.kind == "jumprelu":
            assert self.threshold is not None
            cut = self.threshold[chosen].to(dtype) - pre
        if self.kind == "gated":
            assert self.gain is not None
            assert self.b_mag is not None
            gain, bias, cut = self.gain[chosen].to(dtype), self.b_mag[chosen].to(dtype), -pre
        bias, cut = bias + gain * offset, cut - offset
        return LatentRows(*at, encoder.contiguous(), gain, bias, cut, decoder, self.scaling, centred)

    def checked(self, indices: Sequence[int]) -> Tensor:
        """int64[k]. Raises InvalidRequest("feature_out_of_range")."""
        for index in indices:
            if not 0 <= index < self.width:
                raise InvalidRequest(
                    "feature_out_of_range",
                    f"{self.id} has features 0 to {self.width - 1:,}, not {index}. Choose one of those.",
                )
        return torch.tensor(list(indices), dtype=torch.long)

    def encoder_column(self, index: int) -> Tensor | None:
        """[d_in], by which one feature reads; None where the architecture has none for each feature."""
        self.checked([index])
        return self.W_enc[:, index] if self.W_enc.shape[1] == self.width else None

    # ---- parts ----

    def _whole(self, act: Any, h: Tensor) -> Tensor:
        x = self._centre(h.to(self.dtype))
        with self._using:
            if not self.context:
                return act(x)
            return act(x[None])[0] if x.ndim == 2 else act(x)

    def _centre(self, x: Tensor, place: Place | None = None) -> Tensor:
        """As in a model whose writing weights are centred, which changes what is written to the residual stream."""
        written = (place or self.place).point in WRITTEN
        return x - x.mean(dim=-1, keepdim=True) if self.centred and written else x

    def _input(self, h: Tensor) -> Tensor:
        x = self._centre(h.to(self.dtype))
        if self.scaling == "constant_norm_rescale":
            x = x * _scale(x, self.scaling)[0]
        elif self.scaling == "layer_norm":
            x = x - x.mean(dim=-1, keepdim=True)
            x = x / (x.std(dim=-1, keepdim=True) + EPSILON)
        return x - self.b_dec if self.subtract else x

    def _ranked(self, pre: Tensor) -> Tensor:
        if self._norms is not None:
            pre = pre * self._norms
        ranks = pre.abs() if self.kind == "abstopk" else pre
        top = torch.topk(ranks, k=self.k, dim=-1, sorted=False).indices
        values = pre.gather(-1, top)
        return torch.zeros_like(pre).scatter_(-1, top, values if self.kind == "abstopk" else values.relu())

    def _decoded(self, latents: Tensor) -> Tensor:
        if self._norms is not None:
            latents = latents * (1 / self._norms)
        return latents @ self.W_dec


def scales(h: Tensor, scaling: Scaling, centred: bool) -> tuple[Tensor, Tensor]:
    """(scale, unscale) of `LatentRows`, [..., 1] each, at the activations h [..., d_in]."""
    x = h - h.mean(dim=-1, keepdim=True) if centred else h
    scale, back, _ = _scale(x, scaling)
    return scale, (back if scaling == "constant_norm_rescale" else 1 / back)


def _scale(x: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor, Tensor]:
    """What x is multiplied by, what undoes it, and the mean that is put back; [..., 1] each.

    constant_norm_rescale is undone by dividing by the second, layer_norm by multiplying with it.
    """
    one = x.new_ones(1)
    if scaling == "constant_norm_rescale":
        coefficient = (x.shape[-1] ** 0.5) / x.norm(dim=-1, keepdim=True)
        return coefficient, coefficient, 0 * one
    if scaling == "layer_norm":
        mean = x.mean(dim=-1, keepdim=True)
        std = (x - mean).std(dim=-1, keepdim=True)
        return 1 / (std + EPSILON), std, mean
    return one, one, 0 * one
