"""Neuronpedia's names of models, sources, features and hooks, as ours. What is not here is refused by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from django.conf import settings

from inference.errors import InvalidRequest, NotFound, Unavailable
from inference.saes.catalog import MODELS, PLAIN_NAMES, set_of
from inference.types import FeatureRef, ModelInfo, Site, SourceInfo
from steering import gateway
from steering.access.principal import Principal
from steering.compat.neuronpedia.wire import bad
from steering.workers.sources import source_of as usable_source

NEURONS = "neurons"  # the set of sources that are single neurons, each named by its bare layer
_ID = re.compile(r"(\d{1,4})-.+")


# ---- models ----


def served_model(who: Principal, name: str) -> ModelInfo:
    """The served model that a request names: by our id, the hub's, Neuronpedia's short name, or the configured alias.

    Raises Refusal(400) for one that is not served, Denied(403) for one that the key may not use, and Unavailable.
    Asks the gateway, so not for the thread of its loop.
    """
    known = gateway.models() or (gateway.model_info(),)
    found = next((info for info in known if is_named(info, name)), None)
    if found is None and name and name.lower() == settings.STEERBOARD_NEURONPEDIA_MODEL.lower():
        found = gateway.model_info()
    if found is None:
        raise _not_served(name, known)
    who.require_model(found.id)
    if found.state == "failed":
        raise Unavailable("model_failed", found.problem or "The model could not be loaded.", retry_after=30)
    if found.state == "loading":
        raise Unavailable("model_loading", "The model is still loading. Try again in a moment.", retry_after=5)
    return found


def _not_served(name: str, known: Sequence[ModelInfo]) -> Exception:
    if any(info.state == "loading" for info in known):
        return Unavailable("model_loading", "The model is still loading. Try again in a moment.", retry_after=5)
    failed = next((info for info in known if info.state == "failed" and info.problem), None)
    if failed is not None and not any(info.id for info in known if info.state == "ready"):
        return Unavailable("model_failed", failed.problem, retry_after=30)
    names = ", ".join(dict.fromkeys(n for info in known for n in names_of(info))) or "none"
    return bad(f"Unsupported model: {name!r:.80}. Served here: {names}.", "unsupported_model")


def names_of(info: ModelInfo) -> tuple[str, ...]:
    """All names by which a served model is known here, ours first."""
    short = [name for name, hub in MODELS.items() if _plain(info.id) in {_plain(id) for id in (name, *hub)}]
    short += [name for name, known in PLAIN_NAMES.items() if known in short]
    return tuple(dict.fromkeys(name for name in (info.id, *short) if name))


def is_named(info: ModelInfo, name: str) -> bool:
    """Whether a name, whatever its case and organisation, means this model."""
    return bool(name) and _plain(name) in {_plain(known) for known in names_of(info)}


def _plain(name: str) -> str:
    return name.strip("/").rpartition("/")[2].lower().replace("_", "-")


# ---- sources and features ----


def source_of(model: ModelInfo, id: str) -> SourceInfo:
    """The autoencoder of an id, `<layer>-<set>`. Raises NotFound (404) and InvalidRequest (400) with what there is."""
    if id.isdecimal():
        raise NotFound(
            "source_not_found",
            f"{id} names the plain neurons of a layer, which are not read here. Use a source with an autoencoder: "
            f"{_known(model)}.",
        )
    return usable_source(model, id)


def number_of(id: str) -> int:
    """The layer in the name of a source, which is 12 for a last residual that is read as "12-res-jb"."""
    match = _ID.fullmatch(id)
    return int(match[1]) if match else 0


def sources_in(model: ModelInfo, name: str) -> tuple[SourceInfo, ...]:
    """All usable sources of a set, by layer. Raises Refusal(400, "Invalid source set…")."""
    found = [source for source in model.sources if set_of(source.id) == name and not source.problem]
    if not found:
        sets = ", ".join(dict.fromkeys(set_of(s.id) for s in model.sources if not s.problem)) or "none"
        neurons = " Plain neurons are not read here." if name == NEURONS else ""
        raise bad(f"Invalid source set: {name!r:.80}.{neurons} There are: {sets}.", "invalid_source_set")
    return tuple(sorted(found, key=lambda source: (number_of(source.id), source.id)))


def feature_of(model: ModelInfo, source: str, index: int) -> FeatureRef:
    """Raises as `source_of`, and InvalidRequest("feature_out_of_range") with the range."""
    found = source_of(model, source)
    if index < 0 or (found.width and index >= found.width):  # the width of what was never fetched is not known yet
        span = f"0 to {found.width - 1:,}" if found.width else "from 0 on"
        raise InvalidRequest(
            "feature_out_of_range", f"{found.id} has features {span}; there is no {index}. Choose one of them."
        )
    return FeatureRef(found.id, index)


def _known(model: ModelInfo) -> str:
    return ", ".join(source.id for source in model.sources if not source.problem) or "none are there yet"


# ---- hooks ----


def site_of(model: ModelInfo, hook: str) -> Site:
    """The place that a hook names, for steering: resid_post or resid_pre. Raises InvalidRequest with the layers."""
    site = Site.parse(hook)
    if not site.layer < model.n_layers:
        raise InvalidRequest(
            "layer_out_of_range",
            f"{hook} is no hook of {model.id}, which has layers 0 to {model.n_layers - 1}. Choose one of them.",
        )
    return site


def check_width(model: ModelInfo, values: Sequence[float], what: str = "The vector") -> None:
    """Raises InvalidRequest("wrong_size") unless it is as long as the residual stream is wide."""
    if len(values) != model.d_model:
        raise InvalidRequest(
            "wrong_size",
            f"{what} has {len(values):,} numbers, and the residual stream of {model.id} is {model.d_model:,} wide. "
            "Send one number for each dimension.",
        )
