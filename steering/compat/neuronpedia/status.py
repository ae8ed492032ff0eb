"""GET /health, and GET /v1/capabilities: what is served, with which limits."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.http import require_safe

from inference.saes.catalog import set_of
from inference.types import ModelInfo
from steering import gateway
from steering.compat.neuronpedia.activation_fields import MOST_PROMPTS, MOST_RESULTS
from steering.compat.neuronpedia.asking import token_limit
from steering.compat.neuronpedia.sources import names_of
from steering.compat.neuronpedia.wire import refusal_of, who_asks
from steering.threads import in_thread


@login_not_required
@require_safe
async def health(request: HttpRequest) -> HttpResponseBase:
    """That this process answers, also while a model loads; /readyz says when it is ready."""
    return JsonResponse({"status": "healthy"})


@login_not_required
@require_safe
async def capabilities(request: HttpRequest) -> HttpResponseBase:
    try:
        return JsonResponse(await in_thread(_capabilities)(request))
    except Exception as error:
        return refusal_of(error).response()


def _capabilities(request: HttpRequest) -> dict[str, Any]:
    who_asks(request).require("generate")
    infos = gateway.models() or (gateway.model_info(),)
    return {
        "models": [_of(info) for info in infos],
        "limits": {"token_limit": token_limit(), "batch_size": MOST_PROMPTS, "num_results": MOST_RESULTS},
    }


def _of(info: ModelInfo) -> dict[str, Any]:
    usable = [source for source in info.sources if not source.problem]
    return {
        "model": info.id,
        "names": list(names_of(info)),
        "state": info.state,
        "device": info.device,
        "dtype": info.dtype,
        "context_length": info.context_length,
        "chat": info.has_chat_template,
        "sae_sets": sorted({set_of(source.id) for source in usable}),
        "sources": [{"id": s.id, "hook": s.hook_name, "features": s.width, "loaded": s.loaded} for s in usable],
    }
