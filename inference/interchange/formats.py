"""What each format holds, and where in the model its layer L is.

Looked up in the programs' own code: llama.cpp as in llama-cpp-python 0.3.36 (src/llama-adapter.cpp, common/common.cpp),
repeng 0.4.0 (control.py), steering-vectors 0.12.2, activation-steering (leash_layer.py), mechanex 1.0.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Convention = Literal["resid_post", "resid_pre"]


@dataclass(frozen=True)
class Format:
    """`site` is where programs that read the format add its layer L; "" where the file alone does not say it.

    `measured` is where the program that usually writes it measures its layer L, if that is elsewhere.
    """

    key: str
    title: str
    ending: str
    programs: str
    site: Convention | Literal[""]
    convention: str
    measured: Convention | Literal[""] = ""
    media_type: str = "application/octet-stream"
    first_layer: int = 0  # the lowest that the format can say
    writes: bool = True


_ALL = (
    Format(
        "safetensors",
        "safetensors",
        "safetensors",
        "Steerboard",
        "resid_post",
        "layer.L is resid_post of layer L, counted from 0: what block L passes on. All facts are in the metadata.",
    ),
    Format(
        "gguf",
        "GGUF control vector",
        "gguf",
        "llama.cpp, repeng",
        "resid_post",
        "direction.L is added to resid_post of layer L, counted from 0, by llama.cpp and by repeng alike. Layer 0"
        " cannot be said. llama.cpp's own cvector-generator writes what it measured at layer L as direction.(L + 1).",
        measured="resid_pre",
        first_layer=1,
    ),
    Format(
        "mechanex",
        "Mechanex JSON",
        "json",
        "Mechanex",
        "resid_pre",
        "Layer L is added to resid_pre of block L, which is resid_post of layer L - 1. Mechanex measures CAA vectors at"
        " resid_post of layer L and then adds them one layer earlier.",
        measured="resid_post",
        media_type="application/json",
        first_layer=1,
    ),
    Format(
        "svec",
        "svec",
        "svec",
        "IBM activation-steering",
        "resid_pre",
        "Layer L is added to the input of block L, which is resid_post of layer L - 1. activation-steering measures"
        " directions at resid_post of layer L and then adds them one layer earlier.",
        measured="resid_post",
        media_type="application/json",
        first_layer=1,
    ),
    Format(
        "plain",
        "safetensors of another program",
        "safetensors",
        "other programs",
        "",
        "Tensors say a layer, but not whether it is read before or after that block: whoever imports it must say.",
        writes=False,
    ),
    Format(
        "repeng",
        "repeng ControlVector",
        "",
        "repeng",
        "resid_post",
        "directions[L] is added to resid_post of layer L, counted from 0.",
        writes=False,
    ),
    Format(
        "steering_vectors",
        "steering-vectors SteeringVector",
        "",
        "steering-vectors",
        "resid_post",
        "layer_activations[L] of layer type decoder_block is added to resid_post of layer L, counted from 0.",
        writes=False,
    ),
)
FORMATS: dict[str, Format] = {each.key: each for each in _ALL}


def says_where(theirs: int, ours: int) -> str:
    """The conversion of one layer, as a sentence."""
    return f"This file's layer {theirs} is resid_post of layer {ours} in Steerboard."
