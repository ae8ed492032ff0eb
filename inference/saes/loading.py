"""From an SAE on disk or in SAELens's directory to a `Sae`, through sae-lens's own loaders. Imports sae-lens
when called.

The decoder's norms are folded into the encoder where sae-lens allows it: a latent is then the length of what it adds.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from inference.errors import EngineFault, InferenceError, InvalidRequest, Unavailable
from inference.saes.found import Found, fits
from inference.saes.places import EMBEDS, Place, place_of
from inference.saes.sae import Kind, Sae, Scaling

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

log = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {
    "standard": "relu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu": "jumprelu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
    "gated": "gated",
    "topk": "topk",
    "abstopk": "abstopk",
    "temporal": "whole",
    "matching_pursuit": "whole",
}
SCALINGS: tuple[Scaling, ...] = ("none", "constant_norm_rescale", "layer_norm")


def load(found: Found, model: LoadedModel, dtype: str) -> Sae:
    """Load and check. Raises InvalidRequest, or Unavailable where it has to be fetched and cannot be."""
    try:
        with torch.inference_mode(False):  # gradients may be asked of these tensors later
            module = _module(found, model, dtype)
    except InferenceError:
        raise
    except MemoryError as error:
        raise EngineFault("out_of_memory", f"There is no memory for {found.id}. Choose a narrower SAE.") from error
    except Exception as error:  # whatever a foreign file makes sae-lens raise
        if found.folder is None:
            raise _not_fetched(found, error) from error
        raise InvalidRequest(
            "broken_source",
            f"The SAE in {found.folder.name} cannot be loaded: {_first_line(error)}. Save it again with sae-lens.",
        ) from error
    with torch.inference_mode(False), torch.no_grad():
        return _sae(found, module, model)


def _module(found: Found, model: LoadedModel, dtype: str) -> Any:
    from sae_lens import SAE, TrainingSAE
    from sae_lens.registry import SAE_CLASS_REGISTRY

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if found.folder is None:
            return SAE.from_pretrained(found.release, found.sae_id, device=str(model.device), dtype=dtype)
        if found.architecture in SAE_CLASS_REGISTRY:
            return SAE.load_from_disk(found.folder, device=str(model.device), dtype=dtype)
        training = TrainingSAE.load_from_disk(found.folder, device=str(model.device), dtype=dtype)
        return _for_inference(training)


def _for_inference(training: Any) -> Any:
    """BatchTopK and matryoshka checkpoints become what sae-lens would save of them: JumpReLU with one threshold."""
    from sae_lens import SAE

    config = training.cfg.get_inference_sae_cfg_dict()
    state = training.state_dict()
    training.process_state_dict_for_saving_inference(state)
    classes = SAE.get_sae_config_class_for_architecture(config["architecture"])
    module = SAE.get_sae_class_for_architecture(config["architecture"])(classes.from_dict(config))
    module.load_state_dict(state)
    return module.to(dtype=training.dtype, device=training.device)


def _sae(found: Found, module: Any, model: LoadedModel) -> Sae:
    config = module.cfg
    if config.architecture() not in KINDS:
        raise InvalidRequest(
            "unknown_architecture",
            f"{found.origin} is a {config.architecture()} SAE. Known are {', '.join(sorted(KINDS))}.",
        )
    module.requires_grad_(False)
    _check_numbers(found, module)
    found = _placed(found, config) if found.folder is None else found
    if problem := fits(found, model_id=model.id, d_model=model.d_model, n_layers=model.n_layers):
        raise InvalidRequest("wrong_source", problem)
    if found.hook_name in EMBEDS and hasattr(getattr(model.hf, "transformer", None), "wpe"):
        raise InvalidRequest(
            "unknown_hook",
            f"{found.origin} reads tokens before their positions are added, which {model.id} does at once. Choose an "
            "SAE of resid_pre of layer 0.",
        )
    assert found.place is not None
    assert found.target is not None
    scaling, factor = _scaling(found, module)
    norms = module.W_dec.norm(dim=-1).float()
    folded = _fold(module)
    kind = KINDS[config.architecture()]
    tensors = {n: getattr(module, n).data for n in ("W_dec", "b_dec")}
    nothing = tensors["W_dec"].new_zeros(0)
    gain = module.r_mag.exp() if kind == "gated" else None
    sae = Sae(
        id=found.id,
        hook_name=found.hook_name,
        place=found.place,
        target=found.target,
        architecture=config.architecture(),
        kind=kind,
        W_enc=nothing.new_zeros(config.d_in, 0) if kind == "whole" else module.W_enc.data,
        b_enc=module.b_gate.data if kind == "gated" else nothing if kind == "whole" else module.b_enc.data,
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"] if _adds_bias(config) else torch.zeros_like(tensors["b_dec"]),
        scaling=scaling,
        factor=factor,
        centred=found.centred and _centres(model),
        subtract=config.apply_b_dec_to_input and "transcoder" not in config.architecture(),
        k=getattr(config, "k", 0),
        threshold=module.threshold.data if kind == "jumprelu" else None,
        W_mag=module.W_enc.data * gain if kind == "gated" else None,
        b_mag=module.b_mag.data if kind == "gated" else None,
        gain=gain,
        W_skip=module.W_skip.data if "skip" in config.architecture() else None,
        rescale=getattr(config, "rescale_acts_by_decoder_norm", False),
        whole=module if kind == "whole" else None,
        context=config.architecture() == "temporal",
        folded=folded,
        decoder_norms=norms,
        write_layer=write_layer(found.target, model),
        facts=found.facts,
    )
    if kind != "whole":
        for parameter in module.parameters():  # its hooks form cycles, which would keep the weights for long
            parameter.data = nothing
    return sae


def write_layer(target: Place, model: LoadedModel) -> int | None:
    """At whose resid_post adding a decoder row is exactly adding it at the SAE's output; None where nowhere."""
    if target.point == "resid_post":
        return target.layer
    parallel = getattr(model.hf.config.get_text_config(), "use_parallel_residual", False)
    return target.layer if target.point == "mlp_out" or (target.point == "attn_out" and parallel) else None


def _adds_bias(config: Any) -> bool:
    """Whether decoding adds b_dec: sae-lens leaves it out of tied SAEs that did not take it off the input."""
    tied = config.architecture() == "matching_pursuit" or getattr(config, "tied_weights", False)
    return not tied or config.apply_b_dec_to_input


def _centres(model: LoadedModel) -> bool:
    """Only a model with LayerNorm can be centred without changing what it computes."""
    return any(isinstance(module, nn.LayerNorm) for module in model.layers[0].modules())


def _fold(module: Any) -> bool:
    try:
        module.fold_W_dec_norm()
    except NotImplementedError:  # where it would change which latents are active
        return False
    return True


def _scaling(found: Found, module: Any) -> tuple[Scaling, float]:
    """What is left to do at run time, once the constant factor is folded in."""
    wanted = module.cfg.normalize_activations
    if wanted == "constant_scalar_rescale":
        return "none", float(module.cfg.activation_normalization_factor)
    if wanted in SCALINGS:
        return wanted, 1.0
    factor = found.facts.get("norm_scaling_factor")
    if wanted == "expected_average_only_in" and isinstance(factor, int | float) and factor > 0:
        module.fold_activation_norm_scaling_factor(float(factor))
        return "none", 1.0
    raise InvalidRequest(
        "source_not_folded",
        f"{found.origin} was trained on activations that were scaled ({wanted}), and does not hold by how much. Load "
        'it by its release, write {"norm_scaling_factor": <number>} into facts.json beside it, or fold it with '
        "sae-lens and save it again.",
    )


def _check_numbers(found: Found, module: Any) -> None:
    bad = [name for name, tensor in module.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise InvalidRequest(
            "nan_source",
            f"{found.origin} holds numbers that are undefined or infinite (in {bad[0]}), so nothing can be read with "
            "it. Copy it again, or go back to an earlier checkpoint of its training.",
        )


def _placed(found: Found, config: Any) -> Found:
    """Now that it has been fetched, where it really reads."""
    told = config.metadata
    place = place_of(told.hook_name or "", told.hf_hook_name)
    target = place_of(told.hook_name_out, told.hf_hook_name_out) if told.hook_name_out else place
    kwargs = told.model_from_pretrained_kwargs or {}
    return replace(
        found,
        hook_name=told.hook_name,
        place=place,
        target=target,
        architecture=config.architecture(),
        model_name=told.model_name or found.model_name,
        d_in=config.d_in,
        d_out=getattr(config, "d_out", config.d_in),
        width=config.d_sae,
        centred=found.centred or bool(kwargs.get("center_writing_weights")),
    )


def _not_fetched(found: Found, error: Exception) -> Unavailable:
    return Unavailable(
        "source_not_fetched",
        f"{found.origin} could not be fetched from Hugging Face: {_first_line(error)}. Check the network and HF_TOKEN, "
        f"or copy it as a folder into <data>/saes/{found.id}.",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
