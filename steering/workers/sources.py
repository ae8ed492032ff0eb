"""The autoencoders that a served model can read, and the features in them, looked up by what people name."""

from __future__ import annotations

from inference.errors import InvalidRequest, NotFound, Unavailable
from inference.types import FeatureRef, ModelInfo, SourceInfo

STEERABLE = ("resid_post", "resid_pre")  # sites of which every operation is exact


def source_of(model: ModelInfo, id: str) -> SourceInfo:
    """Raises NotFound("source_not_found"), InvalidRequest("source_unusable"), Unavailable("model_loading")."""
    if model.state == "loading":
        raise Unavailable("model_loading", "The model is still loading. Try again in a moment.", retry_after=5)
    found = next((source for source in model.sources if source.id == id), None)
    if found is None:
        known = ", ".join(source.id for source in model.sources if not source.problem)
        cure = f"It can read {known}." if known else "It has none: train one, or put a folder where the server looks."
        raise NotFound("source_not_found", f"{model.id or 'The model'} has no autoencoder {id!r:.60}. {cure}")
    if found.problem:
        raise InvalidRequest("source_unusable", f"The autoencoder {found.id} cannot be used: {found.problem}")
    return found


def check_feature(model: ModelInfo, ref: FeatureRef) -> SourceInfo:
    """Its source. Raises as `source_of`, and InvalidRequest("feature_out_of_range")."""
    source = source_of(model, ref.source)
    if not 0 <= ref.index < source.width:
        raise InvalidRequest(
            "feature_out_of_range",
            f"{source.id} has features 0 to {source.width - 1:,}; there is no {ref.index:,}. Choose one of them.",
        )
    return source
