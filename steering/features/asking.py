"""Small questions about features that a page waits for: asked of the engine as jobs without a row of their own."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from django.core.cache import cache

from inference.types import DescribeFeature, FeatureRef, IndexCorpus, ModelInfo, ReadFeatures
from steering import gateway
from steering.access import admission
from steering.access.principal import Principal
from steering.jobs.models import Job
from steering.workers.sources import check_feature, source_of

PATIENCE_SECONDS = 60.0
KEPT_SECONDS = 3600


def ask(who: Principal, request: Any) -> dict[str, Any]:
    """The result's payload. Raises what the engine refuses with, Denied, and Unavailable where nothing answers."""
    if request.model:
        who.require_model(request.model)
    admission.refuse_if_spent(who)
    return gateway.call(gateway.result_of(replace(request, id=f"ask-{uuid.uuid4()}")), PATIENCE_SECONDS)


def describe(who: Principal, model: ModelInfo, ref: FeatureRef, *, contexts: int = 20) -> dict[str, Any]:
    """What `DescribeFeature` finds. Remembered for an hour, until the source or its index changes."""
    source = check_feature(model, ref)
    indexed = Job.objects.filter(kind=IndexCorpus.kind, state=Job.State.SUCCEEDED, request__source=source.id).first()
    made = source.origin, source.bytes, source.indexed, source.facts, indexed and indexed.pk
    mark = hash_of(model.id, model.revision, source.id, *made)
    key = f"feature:{mark}:{ref.index}:{contexts}"
    known = cache.get(key)
    if known is None:
        known = ask(who, DescribeFeature("", ref.source, ref.index, contexts=contexts, model=model.id))
        cache.set(key, known, KEPT_SECONDS)
    return dict(known)


def hash_of(*parts: Any) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, repr(parts)).hex


def read_again(who: Principal, model: ModelInfo, request: ReadFeatures) -> dict[str, Any]:
    """What else there is in a text that was read: values of chosen features, or features sorted by chosen tokens."""
    source_of(model, request.source)
    return ask(who, request)
