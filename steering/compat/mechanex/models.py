"""What is served, and what it is made of."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from inference.types import ModelInfo
from steering import gateway
from steering.access.denied import Denied
from steering.access.principal import Principal
from steering.accounts import signup
from steering.accounts.origin import is_local, site_url
from steering.api.openai.body import Fields
from steering.api.openai.catalog import may_use, served
from steering.compat.mechanex.wire import HOW, operation
from steering.compat.served import model_of, short_name
from steering.threads import in_thread

POINTS = ("resid_pre", "attn_out", "mlp_out", "resid_post")
STEERED = ("resid_pre", "resid_post")


@operation(method="GET", anonymous=True)
async def listed(request: HttpRequest, who: Principal | None, body: Fields) -> dict[str, Any]:
    """Each model under its id, and under its short name where that is another, since clients compare names exactly.

    Without a key it is told on the machine itself, and where anyone may sign up.
    """
    if who is None and not (settings.SIGNUP == signup.OPEN or is_local(request)):
        raise Denied(401, "missing_key", f"Which models are served is told with an API key. {HOW}")
    if who is not None:
        who.require("generate")
    return {"models": await in_thread(_listed)(who, site_url(request))}


def _listed(who: Principal | None, base_url: str) -> list[dict[str, Any]]:
    default = gateway.model_info().id
    models = [model for model in served() if who is None or may_use(who, model)]
    return [
        model_json(model, name, default=model.id == default, base_url=base_url)
        for model in sorted(models, key=lambda model: model.id)
        for name in dict.fromkeys((model.id, short_name(model)))
    ]


def model_json(model: ModelInfo, name: str, *, default: bool, base_url: str) -> dict[str, Any]:
    sources = [source.id for source in model.sources]
    return {
        "id": model.id,
        "name": name,
        "description": f"{model.architecture}, {model.n_layers} layers of width {model.d_model}",
        "hf_model_name": model.id if model.id.count("/") == 1 else None,
        "base_url": base_url,
        "sae_release_id": sources[0] if sources else None,
        "sae_sources": sources,
        "is_active": model.state == "ready",
        "is_default": default,
        "inference_only": False,
        "trainable": False,
        "required_auth": True,
        "context_length": model.context_length,
        "created_at": None,
    }


@operation("generate", method="GET")
async def graph(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """Places of the caller's model. The client also asks this to learn whether its key is good."""
    model = await in_thread(model_of)(who)
    return {"model": model.id, "graph": nodes_of(model)}


def nodes_of(model: ModelInfo) -> list[dict[str, Any]]:
    """In the order in which a token passes them, by TransformerLens's names, which vectors and scores use too."""
    return [
        {
            "name": f"blocks.{layer}.hook_{point}",
            "layer": layer,
            "point": point,
            "size": model.d_model,
            "can_be_steered": point in STEERED,
        }
        for layer in range(model.n_layers)
        for point in POINTS
    ]


@operation("generate", method="GET")
async def paths(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """Names of the graph's places. The client reads them from there."""
    model = await in_thread(model_of)(who)
    return {"paths": [node["name"] for node in nodes_of(model)]}
