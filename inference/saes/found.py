"""What can be said of an SAE before it is loaded: from the two files of its folder, or from SAELens's directory."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.saes.names import same_model, slug
from inference.saes.places import Place, place_of

CONFIG, WEIGHTS, FACTS = "cfg.json", "sae_weights.safetensors", "facts.json"
DEEPEST = 3  # folders below a given one in which SAEs are looked for
MAX_JSON, MAX_HEADER = 2**18, 2**26  # bytes; facts travel with every description of the model
_OWN_NAME = re.compile(r"\d+-[A-Za-z0-9][\w.-]*")
_CENTRED = re.compile(r"gpt2-small/\d+-res(_fs\d+)?-jb")  # older copies of these do not say so themselves
ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Found:
    """An SAE that could be loaded, or `problem`, a sentence that says why not. Widths are 0 where not yet known."""

    id: str
    origin: str
    folder: Path | None = None  # None: in SAELens's directory, as `release` and `sae_id`
    release: str = ""
    sae_id: str = ""
    hook_name: str = ""
    place: Place | None = None
    target: Place | None = None
    architecture: str = ""
    model_name: str = ""
    d_in: int = 0
    d_out: int = 0
    width: int = 0
    numbers: int = 0  # in all tensors
    centred: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def layer(self) -> int:
        return self.place.layer if self.place else 0

    def bytes(self, dtype: str) -> int:
        """What it takes in memory at most: its tensors, and three float32 per feature beside them."""
        return self.numbers * ITEM_BYTES[dtype] + 3 * 8 * self.width


def in_folder(folder: Path, *, origin: str = "") -> Found:
    """Read an SAE's configuration and the header of its weights. Never raises: what is wrong is its `problem`."""
    name = folder.name
    shown = (origin or name).encode("utf-8", "replace").decode()  # names of files may be any bytes
    bare = Found(id=_id_of(name, 0), origin=shown, folder=folder)
    try:
        config = _read_json(folder / CONFIG)
        facts = _read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
        shapes = _shapes(folder / WEIGHTS)
        found = _described(bare, config, facts)
        return _sized(found, shapes)
    except InferenceError as error:
        return replace(bare, problem=error.message)


def in_release(
    release: str, sae_id: str, repo: str, model: str, neuronpedia: str | None = None, *, centred: bool = False
) -> Found:
    """An SAE of SAELens's directory; its place is known when it has been fetched, its layer from its name."""
    match = re.search(r"(?:layer_?|blocks\.|^l)(\d+)", sae_id)
    layer = int(match[1]) if match else 0
    name = neuronpedia.partition("/")[2] if neuronpedia else ""
    id = name if _OWN_NAME.fullmatch(name) else f"{layer}-{slug(f'{release}-{_rest(sae_id, match)}')}"
    return Found(
        id=id,
        origin=f"{release} {sae_id}",
        release=release,
        sae_id=sae_id,
        place=Place(layer, layer - ("hook_resid_pre" in sae_id), "resid_post"),
        model_name=model,
        centred=centred,
        facts={"repository": repo},
    )


def _rest(sae_id: str, match: re.Match[str] | None) -> str:
    """What tells ids of one layer apart, such as width and L0."""
    rest = sae_id.replace(match[0], "", 1) if match else sae_id
    return re.sub(r"hook_|canonical|average_", "", rest)


def below(folder: Path) -> Iterator[Path]:
    """The folders of SAEs in `folder`, itself included, by name."""
    if not folder.is_dir():
        return
    for here, folders, files in os.walk(folder, followlinks=True):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if depth < DEEPEST else []
        if CONFIG in files or WEIGHTS in files:
            folders[:] = []  # nothing lies inside an SAE
            yield Path(here)


def fits(found: Found, *, model_id: str, d_model: int, n_layers: int) -> str:
    """Why this SAE cannot be used with a model, and what to do; empty where it can."""
    if found.problem:
        return found.problem
    allowed = found.facts.get("models", ())
    if not same_model(found.model_name, model_id) and model_id not in allowed:
        cure = (
            f' If it does fit, write {{"models": ["{model_id}"]}} into {FACTS} beside its {CONFIG}.'
            if found.folder
            else ""
        )
        return (
            f"{found.origin} was trained on {found.model_name}, and {model_id} is served here. Serve that model, or "
            f"choose an SAE of this one.{cure}"
        )
    if found.place and not -1 <= found.place.layer < n_layers:
        return (
            f"{found.origin} reads layer {found.place.layer}, and {model_id} has layers 0 to {n_layers - 1}. Choose an "
            "SAE of this model."
        )
    residual = found.place is not None and found.place.point != "z"
    if residual and found.d_in and found.d_in != d_model:
        return (
            f"{found.origin} reads activations of width {found.d_in}, and {model_id} has {d_model}: it is an SAE of "
            "another model. Choose one of this model."
        )
    return ""


def _described(bare: Found, config: dict[str, Any], facts: dict[str, Any]) -> Found:
    told = {**config, **config.get("metadata", {})} if isinstance(config.get("metadata"), dict) else config
    hook = str(told.get("hook_name") or told.get("hook_point") or "")
    if told.get("hook_head_index") is not None:
        raise InvalidRequest(
            "unknown_hook", f"{bare.origin} reads a single attention head. Choose an SAE over all heads of a layer."
        )
    module = told.get("hf_hook_name")
    place = place_of(hook, module if isinstance(module, str) else None)
    hook_out = str(told.get("hook_name_out") or "")
    module_out = told.get("hf_hook_name_out")
    target = place_of(hook_out, module_out if isinstance(module_out, str) else None) if hook_out else place
    kwargs = told.get("model_from_pretrained_kwargs")
    centred = isinstance(kwargs, dict) and bool(kwargs.get("center_writing_weights"))
    centred |= bool(_CENTRED.fullmatch(str(told.get("neuronpedia_id"))))
    return replace(
        bare,
        id=_id_of(bare.folder.name if bare.folder else bare.origin, place.block),
        hook_name=hook,
        place=place,
        target=target,
        architecture=str(config.get("architecture") or _older_architecture(config)),
        model_name=str(told.get("model_name") or ""),
        d_in=_whole(config, "d_in"),
        d_out=_whole(config, "d_out") if "d_out" in config else _whole(config, "d_in"),
        width=_whole(config, "d_sae"),
        centred=bool(facts.get("centred", centred)),
        facts=facts,
    )


def _older_architecture(config: dict[str, Any]) -> str:
    return "topk" if config.get("activation_fn_str", config.get("activation_fn")) == "topk" else "standard"


def _sized(found: Found, shapes: dict[str, tuple[int, ...]]) -> Found:
    decoder = shapes.get("W_dec")
    if decoder is None:
        raise _broken(found.origin, f"{WEIGHTS} has no W_dec")
    if decoder != (found.width, found.d_out):
        raise _broken(found.origin, f"W_dec is {decoder}, and {CONFIG} says {(found.width, found.d_out)}")
    if (encoder := shapes.get("W_enc")) not in (None, (found.d_in, found.width)):
        raise _broken(found.origin, f"W_enc is {encoder}, and {CONFIG} says {(found.d_in, found.width)}")
    numbers = sum(math.prod(shape) for shape in shapes.values())
    if found.architecture == "gated":
        numbers += found.d_in * found.width  # the magnitudes' encoder is kept beside the gates'
    return replace(found, numbers=numbers)


def _id_of(name: str, block: int) -> str:
    """`<layer>-<set>`: the folder's own name where it is one, else made of the layer and that name."""
    if _OWN_NAME.fullmatch(name):
        return name
    rest = re.sub(rf"^(blocks\.|layer_?){block}(?!\d)[._-]?", "", name)
    return f"{block}-{slug(rest) or 'sae'}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise _broken(path.parent.name, f"{path.name} is larger than {MAX_JSON // 2**10} KB")
        data = json.loads(path.read_text(), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path.parent.name, f"{path.name} cannot be read ({_first_line(error)})") from error
    if not isinstance(data, dict):
        raise _broken(path.parent.name, f"{path.name} is not a JSON object")
    return data


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file by name, from its header alone."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(MAX_HEADER, path.stat().st_size):
                raise ValueError("it is no safetensors file")
            header = json.loads(file.read(length))
        shapes = {k: tuple(map(int, v["shape"])) for k, v in header.items() if k != "__metadata__"}
        end = max((int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"), default=0)
        if path.stat().st_size != 8 + length + end:
            raise ValueError("it was cut short")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _broken(path.parent.name, f"{path.name} cannot be read ({_first_line(error)})") from error
    return shapes


def _whole(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise NotFound("broken_source", f"Its {CONFIG} has no usable {key}. Save it again with sae-lens.")
    return value


def _broken(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        "broken_source",
        f"The SAE in {name} is not whole: {what}. Copy the folder again, or save it with sae-lens's save_model.",
    )


def _first_line(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
