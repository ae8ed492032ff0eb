"""What is served, and what it is made of."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from inference.types import ModelInfo
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.threads import in_thread
from steering.compat.mechanex.served import model_of
from steering.compat.mechanex.wire import operation


@operation("generate", method="GET")
async def graph(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    model = await in_thread(model_of)(who)
    return {"graph": nodes_of(model)}


def nodes_of(model: ModelInfo) -> list[dict[str, Any]]:
    """One node per layer, in the order in which a token passes them."""
    return [{"name": f"blocks.{layer}", "layer": layer, "size": model.d_model} for layer in range(model.n_layers)]
