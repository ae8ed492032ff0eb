"""Which model a caller works with: that of the key, else the person's, else the one that is served by default."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from inference.errors import NotFound, Unavailable
from inference.types import ModelInfo
from steering import gateway
from steering.access.principal import Principal
from steering.api.openai.catalog import ANSWER_SECONDS, served
from steering.compat.models import ModelChoice

DEFAULT = ("", "default")


def model_of(who: Principal, name: str = "") -> ModelInfo:
    """The model called `name`, whatever its case; for "" and "default" the caller's own. Synchronous.

    Raises NotFound("model_not_served"), Denied where the key may not use it, Unavailable while nothing is known.
    """
    wanted = choice_of(who) if name in DEFAULT else name
    found = named(wanted, chosen=name in DEFAULT) if wanted else default()
    who.require_model(found.id)
    return found


def default() -> ModelInfo:
    """The one that is served to whoever names none. Raises Unavailable."""
    info = gateway.call(gateway.inference().describe(), ANSWER_SECONDS)
    if info.id and info.state != "failed":
        return info
    raise Unavailable("model_not_ready", info.problem or "The model is being loaded. Try again soon.", retry_after=5)


def short_name(model: ModelInfo) -> str:
    """As Mechanex's catalogue calls models: "qwen3-0.6b" for Qwen/Qwen3-0.6B."""
    return model.id.rpartition("/")[2].lower()


def named(wanted: str, *, chosen: bool = False) -> ModelInfo:
    models = served()
    found = [info for info in models if info.id.lower() == wanted.lower()]
    found += [info for info in models if short_name(info) == wanted.lower()]
    if found:
        return found[0]
    there = f"Served here: {', '.join(info.id for info in models)}." if models else "No model is loaded at the moment."
    said = "was set for you and is not served any more. Set another." if chosen else "is not served here."
    raise NotFound("model_not_served", f"The model {wanted:.100} {said} {there}")


def choice_of(who: Principal) -> str:
    """The id that was set for the key, else for the person; "" for none."""
    choices = ModelChoice.objects.filter(owner=who.user).order_by(F("key").asc(nulls_last=True))
    mine = [choice for choice in choices if choice.key_id in (None, who.key.pk if who.key else None)]
    return mine[0].model_id if mine else ""


@transaction.atomic
def choose(who: Principal, name: str) -> ModelInfo:
    """Set the model of the key. A person without a key sets it for all of theirs. Raises as `model_of`."""
    model = model_of(who, name)
    if who.key is None:
        ModelChoice.objects.filter(owner=who.user).delete()
    ModelChoice.objects.update_or_create(owner=who.user, key=who.key, defaults={"model_id": model.id})
    return model
