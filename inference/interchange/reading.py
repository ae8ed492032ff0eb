"""From the bytes of any file to directions: which format it is, and what is wrong with it."""

from __future__ import annotations

import re
from typing import Any

from inference.errors import InvalidRequest
from inference.interchange import gguf_file, strict, tensors
from inference.interchange.formats import FORMATS
from inference.interchange.loose import Loose, checked, facts_of, flat_numbers, layer_number, text_of

MAX_BYTES = 64 * 2**20
OURS = "steerboard"  # the metadata key of `inference.store`
_TL = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post)")
_NAMES = (  # tensors of other programs that say a layer of the residual stream, and nothing else
    re.compile(r"(?:layers?|directions?|control_?vectors?|steering_?vectors?|vectors?)[._-](\d+)"),
    re.compile(r"(?:model\.layers|transformer\.h|gpt_neox\.layers)\.(\d+)"),
    re.compile(r"(\d+)"),
)
CONVERT = (
    'python -c "import sys, torch, safetensors.torch as s; v = torch.load(sys.argv[1], weights_only=True); '
    "s.save_file({f'layer.{k}': t.float().flatten().clone() for k, t in v.items()}, sys.argv[2])\""
    " vector.pt vector.safetensors"
)


def is_ours(data: bytes) -> bool:
    """Whether this is a file of `inference.store`, which carries every fact."""
    if not tensors.looks_like(data):
        return False
    metadata = tensors.header(data).get("__metadata__")
    return isinstance(metadata, dict) and OURS in metadata


def read(data: bytes) -> Loose:
    """Directions from a file of another program. Raises InvalidRequest saying what is wrong and what to do."""
    if len(data) > MAX_BYTES:
        raise InvalidRequest("vector_too_large", f"The file is larger than {MAX_BYTES >> 20} MiB; no vector is.")
    if data.startswith(gguf_file.MAGIC):
        return _gguf(data)
    if tensors.looks_like(data):
        return _plain(data)
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise InvalidRequest("pickle_refused", _pickle())
    if data.lstrip()[:1] == b"{":
        return _json(data)
    raise InvalidRequest(
        "unknown_format",
        "This is none of the files that are read here: safetensors, GGUF control vectors, Mechanex JSON and svec. "
        "Export the vector as one of those.",
    )


def _pickle() -> str:
    return (
        "The file is a pickle (.pt, .pth, .bin or .pkl). Opening one runs whatever code is in it, so it is not opened "
        "here. Convert it where you trust it, then upload the result. For a dictionary of layers to tensors: " + CONVERT
    )


def _gguf(data: bytes) -> Loose:
    facts, arrays = gguf_file.read(data)
    architecture = facts.get("general.architecture")
    if architecture != "controlvector":
        raise InvalidRequest(
            "not_a_vector",
            f"This GGUF file is of the kind {architecture!r:.40}, not a control vector. Choose the vector's own file.",
        )
    found = []
    for name, values in arrays.items():
        prefix, _, layer = name.partition(".")
        if prefix != "direction":
            raise InvalidRequest("bad_layer", f"Tensor {name!r:.60} is no direction.<layer>. Write the file again.")
        found.append((layer_number(layer, "The GGUF file"), values))
    directions, notes = checked(found, "The GGUF file")
    kept = facts_of({k: v for k, v in facts.items() if k != "general.architecture"})
    hint = text_of(facts, "controlvector.model_hint")
    return Loose("gguf", directions, FORMATS["gguf"].site, hint, notes, kept)


def _json(data: bytes) -> Loose:
    found = strict.parse(data, "The file")
    return _svec(found) if "directions" in found else _mechanex(found)


def _svec(found: dict[str, Any]) -> Loose:
    where, rows = "The svec file", found["directions"]
    unknown = set(found) - {"model_type", "directions", "explained_variances"}
    if unknown or not isinstance(rows, dict):
        what = sorted(unknown)[0] if unknown else "directions"
        raise InvalidRequest("not_a_vector", f"{where} has {what!r:.40}, which is not understood here.")
    pairs = [(layer_number(k, where), flat_numbers(v, f"{where}, layer {k:.20}")) for k, v in rows.items()]
    directions, notes = checked(pairs, where)
    variances = found.get("explained_variances")
    facts = {"explained_variances": facts_of(variances)} if isinstance(variances, dict) and variances else {}
    return Loose("svec", directions, FORMATS["svec"].site, text_of(found, "model_type"), notes, facts)


def _mechanex(found: dict[str, Any]) -> Loose:
    where, site = "The Mechanex file", str(FORMATS["mechanex"].site)
    named = {key: _TL.fullmatch(key) for key in found}
    sites = {match[2] if match else site for match in named.values()}
    if len(sites) > 1:
        raise InvalidRequest(
            "mixed_sites", f"{where} has layers before and after their blocks. Keep those of one kind in a file."
        )
    pairs = []
    for key, values in found.items():
        match = named[key]
        layer = layer_number(match[1] if match else key, where)
        pairs.append((layer, flat_numbers(values, f"{where}, layer {key:.40}")))
    directions, notes = checked(pairs, where)
    return Loose("mechanex", directions, next(iter(sites), site), "", notes, {})


def _plain(data: bytes) -> Loose:
    metadata, arrays = tensors.read(data)
    where, sites, found = "The safetensors file", set(), []
    for name, values in arrays.items():
        hook = _TL.fullmatch(name)
        match = hook or next((m for pattern in _NAMES if (m := pattern.fullmatch(name))), None)
        if not match:
            names = ", ".join(f"{n:.40}" for n in list(arrays)[:4])
            raise InvalidRequest(
                "layers_not_told",
                f"{where} does not say which layers its tensors belong to ({names}). Name them layer.<number>, counted "
                "from 0, and upload it again.",
            )
        sites.add(hook[2] if hook else "")
        found.append((layer_number(match[1], where), values))
    if len(sites) > 1:
        raise InvalidRequest(
            "mixed_sites", f"{where} has tensors before and after their blocks. Keep those of one kind in a file."
        )
    directions, notes = checked(found, where)
    facts = facts_of(metadata)
    hint = text_of(metadata, "model_type") or text_of(metadata, "model")
    return Loose("plain", directions, next(iter(sites), ""), hint, notes, facts)
