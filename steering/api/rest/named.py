"""What a request names, found or refused."""

from __future__ import annotations

from inference.errors import NotFound
from inference.types import ModelInfo
from steering import gateway


def model_named(name: str) -> ModelInfo:
    """A served model, whatever the case of its name; the default one for "". Raises NotFound("model_not_served")."""
    if not name:
        return gateway.model_info()
    served = gateway.models()
    for info in served:
        if info.id.lower() == name.lower():
            return info
    others = ", ".join(info.id for info in served) or "none at the moment"
    raise NotFound("model_not_served", f"{name[:100]} is not served here. Served are: {others}.")
