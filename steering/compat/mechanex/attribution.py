"""Attribution patching: what the clean run's activation at each place would do for the corrupted run."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from inference.errors import InvalidRequest
from inference.types import HEAD_SITES, Attribute, AttributionSite, ModelInfo, Result
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.attribution.exporting import hook_of
from steering.attribution.running import check
from steering.compat import running
from steering.compat.answering import patient
from steering.compat.mechanex.module_paths import Place, place_of
from steering.compat.mechanex.wire import operation
from steering.compat.served import model_of
from steering.refusals import need, storable
from steering.threads import in_thread

EVERYWHERE: tuple[AttributionSite, ...] = ("resid_pre", "attn_out", "mlp_out", "z")  # where no path is named
METRICS = ("logit_difference", "log_probability", "kl")
MOST_PATHS = 2_000


@operation("jobs")
async def scores(request: HttpRequest, who: Principal, body: Fields) -> HttpResponseBase:
    model = await in_thread(model_of)(who)
    places, question = places_of(body, model), question_of(body, model)
    sites = tuple(dict.fromkeys(place.site for place in places))
    layers = tuple(sorted({place.layer for place in places}))
    job = Attribute.from_wire(question.to_wire() | {"sites": list(sites), "layers": list(layers), "top": 0})
    check(job)

    async def found() -> dict[str, Any]:
        tokens = tokens_in((job.clean, job.corrupted))
        async for event in running.job(who, job, kind="attribution", tokens=tokens, source="mechanex"):
            if isinstance(event, Result):
                return shape(job, places, event.payload)
        raise InvalidRequest("no_result", "The work ended without a result. Send the request again.")

    return await patient(found())


def places_of(body: Fields, model: ModelInfo) -> tuple[Place, ...]:
    """Those named, else every layer's residual, attention, MLP and heads. Raises InvalidRequest, ApiError."""
    paths = body.texts("target_module_paths") or ()
    need(len(paths) <= MOST_PATHS, "target_module_paths", f"At most {MOST_PATHS:,} paths. Leave some out, or all.")
    if paths:
        return tuple(place_of(path, model) for path in dict.fromkeys(paths))
    return tuple(Place(hook_of(site, n), site, n) for site in EVERYWHERE for n in range(model.n_layers))


def question_of(body: Fields, model: ModelInfo) -> Attribute:
    """KL where no token is named: it needs none. Raises ApiError, InvalidRequest."""
    targets, against = body.texts("targets") or (), body.texts("against") or ()
    usual = "logit_difference" if targets and against else "log_probability" if targets else "kl"
    clean, corrupted = body.required_text("clean_prompt"), body.required_text("corrupted_prompt")
    for text in (clean, corrupted, *targets, *against):
        storable(text, "A prompt or target")
    return Attribute(
        uuid.uuid4().hex,
        clean,
        corrupted,
        metric=body.choice("metric", METRICS) or usual,  # type: ignore[arg-type]
        targets=targets,
        against=against,
        model=model.id,
    )


def shape(job: Attribute, places: tuple[Place, ...], payload: dict[str, Any]) -> dict[str, Any]:
    """Scores by the path as it was written. Larger is closer to the clean run: of KL, by how much it falls."""
    sign = -1.0 if job.metric == "kl" else 1.0
    rows = {layer: row for row, layer in enumerate(payload["layers"])}
    totals, positions, heads = {}, {}, {}
    for place in places:
        row = rows[place.layer]
        cells = payload["sites"][place.site][row]
        totals[place.path] = sign * payload["sums"][place.site][row] + 0.0
        positions[place.path] = [_summed(cell, sign) for cell in cells]
        if place.site in HEAD_SITES:
            known = [cell for cell in cells if cell[0] is not None]
            heads[place.path] = [sign * sum(cell[head] for cell in known) + 0.0 for head in range(len(cells[0]))]
    return {
        "scores": totals,
        "positions": positions,
        "heads": heads,
        "hooks": {place.path: hook_of(place.site, place.layer) for place in places},
        "metric": job.metric,
        "clean": _side(payload["clean"]),
        "corrupted": _side(payload["corrupted"]),
        "alignment": payload["alignment"],
        "model": job.model,
        "notes": payload["notes"],
    }


def _summed(cell: Any, sign: float) -> float | None:
    """Of one position: its score, or that of all its heads; null where nothing is aligned with it."""
    values = cell if isinstance(cell, list) else [cell]
    return None if values[0] is None else sign * sum(values) + 0.0


def _side(side: dict[str, Any]) -> dict[str, Any]:
    return {"tokens": [text for _, text in side["tokens"]], "metric": side["metric"]}
