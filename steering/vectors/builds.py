"""Building a vector from a dataset: start the job, and keep what it yields; and the forecast of whether it pays."""

from __future__ import annotations

from typing import Any

from inference.types import CreateVector, Datapoint, Forecast, ModelInfo, OptimiseVector, Pair
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.datasets.models import Dataset
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.vectors.facts import without_values
from steering.vectors.library import vector_keep
from steering.vectors.methods import method_of

KIND = "create_vector"
KINDS = (KIND, OptimiseVector.kind)
FORECAST = Forecast.kind
DEFAULT_STEPS = 40  # for the estimate alone: what a method takes when nobody says


def vector_build(
    *,
    owner: Any,
    dataset: Dataset,
    name: str,
    who: Principal | None = None,
    source: str = "vectors",
    **settings: Any,
) -> Job:
    """Start building. `settings` are the method and those fields of CreateVector or OptimiseVector that it reads.

    Raises Denied for a limit, or a model that the key of `who` may not use.
    """
    pairs, digest = dataset.pairs(), dataset.digest()
    request = request_for(pairs, digest, settings)
    steps = (request.steps or DEFAULT_STEPS) * request.seeds * 3 if isinstance(request, OptimiseVector) else 1
    return job_start(
        owner=owner,
        kind=request.kind,
        title=f"Build “{name}”",
        request=request,
        about=_about(dataset, name) | {"settings": settings},
        who=who,
        source=source,
        tokens=_tokens(pairs) * steps,
    )


def forecast_start(*, owner: Any, dataset: Dataset, name: str, **settings: Any) -> Job:
    """Ask how reliable such a vector would be; nothing is built."""
    pairs = dataset.pairs()
    request = Forecast(id="", pairs=pairs, **settings)
    about = _about(dataset, name) | {"settings": settings}
    title = f"Forecast for “{name}”"
    tokens = _tokens(pairs)
    return job_start(owner=owner, kind=Forecast.kind, title=title, request=request, about=about, tokens=tokens)


def request_for(pairs: tuple[Pair, ...], digest: str, settings: dict[str, Any]) -> CreateVector | OptimiseVector:
    """The job for a method's settings."""
    method = method_of(settings.get("method", "mean_difference"))
    if method is None or not method.optimises:
        return CreateVector(id="", pairs=pairs, dataset_digest=digest, **settings)
    targets = method.key != "melbo"
    points = tuple(
        Datapoint(pair.prompt, (pair.positive,), (pair.negative,)) if targets else Datapoint(pair.prompt)
        for pair in pairs
    )
    if not targets:
        points = tuple(dict.fromkeys(points))
    return OptimiseVector(id="", datapoints=points, dataset_digest=digest, **settings)


def default_layer(model: ModelInfo) -> int:
    """Where optimised vectors are put unless said: two fifths of the way, as most papers do."""
    return model.n_layers * 2 // 5


def _about(dataset: Dataset, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "dataset": str(dataset.pk),
        "dataset_name": dataset.name,
        "dataset_version": dataset.version,
    }


def _tokens(pairs: tuple[Pair, ...]) -> int:
    return sum(tokens_in((pair.prompt + pair.positive, pair.prompt + pair.negative)) for pair in pairs)


@keeps_results_of(KIND)
@keeps_results_of(OptimiseVector.kind)
def keep_built_vector(job: Job, payload: dict[str, Any]) -> None:
    """Add what was built to its owner's library, and let the job lead there: to the first, where there are several."""
    assert job.owner  # builds belong to people
    dataset = Dataset.objects.visible_to(job.owner).filter(pk=job.request["dataset"]).first()
    found = payload.get("vectors") or [payload["vector"]]
    name = job.request["name"]
    kept = [
        vector_keep(
            owner=job.owner,
            name=f"{name[:110]}, {number}" if len(found) > 1 else name,
            description=dataset.description if dataset else "",
            summary=without_values(summary),
            dataset=dataset,
            dataset_version=job.request["dataset_version"],
        )
        for number, summary in enumerate(found, 1)
    ]
    job.used_tokens = found[0].get("provenance", {}).get("tokens", 0)
    job.result_url = kept[0].get_absolute_url()


def settings_of(job: Job) -> dict[str, Any]:
    """What was chosen for a build; older rows have it among the request's fields."""
    names = ("method", "pooling", "span", "chat", "layers")
    return job.request.get("settings") or {name: job.request[name] for name in names if name in job.request}


def build_settings(job: Job) -> dict[str, str]:
    """The settings of an earlier build, as the build page's query, to change and try again."""
    chosen = settings_of(job) | {"model": job.request.get("model", "")}
    asked = {name: _as_field(value) for name, value in chosen.items() if value is not None}
    return {"dataset": job.request["dataset"], "name": job.request["name"]} | asked


def _as_field(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def disagreeing(job: Job, dataset: Dataset | None) -> list[dict[str, Any]]:
    """The pairs that a forecast found to disagree, with their texts as long as the dataset is as it was."""
    rows = job.result.get("disagreeing", ())
    same = dataset is not None and dataset.version == job.request["dataset_version"]
    pairs = dataset.pairs() if dataset and same else ()
    return [
        {
            "number": row["row"] + 1,
            "cosine": row["cosine"],
            "pair": pairs[row["row"]] if row["row"] < len(pairs) else None,
        }
        for row in rows
    ]


def recipe_of(job: Job) -> list[tuple[str, str]]:
    """The settings of a build in words, for its page."""
    from steering.vectors.forms import LABELS

    chosen = settings_of(job)
    return [(LABELS[name], _in_words(name, chosen[name])) for name in LABELS if name in chosen and name != "method"]


def _in_words(name: str, value: Any) -> str:
    if name in ("layers", "target_layer") and value in ((), [], None):
        return "all" if name == "layers" else "the method’s own"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "the method’s own" if value in (None, 0, "") and name != "layer" else _as_field(value)
