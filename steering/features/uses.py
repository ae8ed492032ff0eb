"""Features that are only watched: read at every token, nothing done."""

from __future__ import annotations

from collections.abc import Iterable

from inference.types import FeatureRef, ModelInfo, Probe, Watch
from steering.refusals import need
from steering.workers.sources import check_feature

MAX_WATCHED = 8


def check_watched(features: tuple[FeatureRef, ...]) -> None:
    """What needs no model. Raises InvalidRequest."""
    said = f"A run watches at most {MAX_WATCHED} features, not {len(features)}. Remove some."
    need(len(features) <= MAX_WATCHED, "watch_count", said)
    need(len(set(features)) == len(features), "watch_twice", "A feature is watched twice. Remove one of the two.")


def watches_of(features: Iterable[FeatureRef], model: ModelInfo) -> tuple[Watch, ...]:
    """One watch per feature, named `<source>/<index>`. Raises as `check_feature`."""
    return tuple(_watch(ref, model) for ref in features)


def _watch(ref: FeatureRef, model: ModelInfo) -> Watch:
    layer = check_feature(model, ref).layer
    return Watch(name_of(ref), Probe(layer, features=(ref,), feature_weights=(1.0,)))


def name_of(ref: FeatureRef) -> str:
    return f"{ref.source}/{ref.index}"


def layer_in_id(source: str) -> int:
    """The layer with which every source's id begins."""
    return int(source.partition("-")[0]) if source.partition("-")[0].isdecimal() else 0
