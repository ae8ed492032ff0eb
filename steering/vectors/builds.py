"""Building a vector from a dataset: start the job, and keep what it yields; and the forecast of whether it pays."""

from __future__ import annotations

from typing import Any

from inference.types import OPTIMISE_STEPS, CreateVector, Datapoint, Forecast, ModelInfo, OptimiseVector, Pair
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
    return job_start(
        owner=owner,
        kind=request.kind,
        title=f"Build “{name}”",
        request=request,
        about=about(dataset, name) | {"settings": settings},
        who=who,
        source=source,
        tokens=most_tokens(request) if isinstance(request, OptimiseVector) else _tokens(pairs),
    )


def forecast_start(
    *,
    owner: Any,
    dataset: Dataset,
    name: str,
    who: Principal | None = None,
    source: str = "vectors",
    **settings: Any,
) -> Job:
    """Ask how reliable such a vector would be; nothing is built. Raises as `vector_build`."""
    pairs = dataset.pairs()
    return job_start(
        owner=owner,
        kind=Forecast.kind,
        title=f"Forecast for “{name}”",
        request=Forecast(id="", pairs=pairs, **settings),
        about=about(dataset, name) | {"settings": settings},
        who=who,
        source=source,
        tokens=_tokens(pairs),
    )


def request_for(pairs: tuple[Pair, ...], digest: str, settings: dict[str, Any]) -> CreateVector | OptimiseVector:
    """The job for a method's settings."""
    method = method_of(settings.get("method", "mean_difference"))
    if method is None or not method.optimises:
        return CreateVector(id="", pairs=pairs, dataset_digest=digest, **settings)
    points = datapoints_of(pairs, method.key)
    return OptimiseVector(id="", datapoints=points, dataset_digest=digest, **settings)


def datapoints_of(pairs: tuple[Pair, ...], method: str) -> tuple[Datapoint, ...]:
    """The positive side is promoted, the negative one suppressed; MELBO takes each prompt once, else the text."""
    if method == "melbo":
        return tuple(dict.fromkeys(Datapoint(pair.prompt or pair.positive) for pair in pairs))
    return tuple(Datapoint(pair.prompt, (pair.positive,), (pair.negative,)) for pair in pairs)


def most_tokens(request: OptimiseVector) -> int:
    """What an optimisation may read at most: every text once per step and seed, and a look at the end."""
    texts = [p.prompt + side for p in request.datapoints for side in (*p.promote, *p.suppress) or ("",)]
    steps = request.steps or OPTIMISE_STEPS[request.method]
    bounded = (request.kl_steps or steps) if request.kl_texts else 0
    looks = 2 if request.noise or request.batch else 1
    sides = 2 if request.method == "bipo" else 1
    each = tokens_in(texts) * sides * looks * (steps + bounded + 2) + tokens_in(request.kl_texts) * (bounded + 2)
    return each * request.seeds * request.count


def default_layer(model: ModelInfo) -> int:
    """Where optimised vectors are put unless said: two fifths of the way, as most papers do."""
    return model.n_layers * 2 // 5


def about(dataset: Dataset | None, name: str) -> dict[str, Any]:
    """What a job remembers of where its pairs came from."""
    return {
        "name": name,
        "dataset": str(dataset.pk) if dataset else None,
        "dataset_name": dataset.name if dataset else "",
        "dataset_version": dataset.version if dataset else 0,
    }


def _tokens(pairs: tuple[Pair, ...]) -> int:
    return sum(tokens_in((pair.prompt + pair.positive, pair.prompt + pair.negative)) for pair in pairs)


@keeps_results_of(KIND)
@keeps_results_of(OptimiseVector.kind)
def keep_built_vector(job: Job, payload: dict[str, Any]) -> None:
    """Add what was built to its owner's library, and let the job lead there.

    Of several it leads to the first; each is marked with the job, by which its page finds the others.
    """
    assert job.owner  # builds belong to people
    pk, name = job.request["dataset"], job.request["name"]
    dataset = Dataset.objects.visible_to(job.owner).filter(pk=pk).first() if pk else None
    found = payload.get("vectors") or [payload["vector"]]
    mark = {"built_by": str(job.pk)} if len(found) > 1 else {}
    kept = [
        vector_keep(
            owner=job.owner,
            name=f"{name[:110]} {number}" if len(found) > 1 else name,
            description=dataset.description if dataset else "",
            summary=without_values(summary) | mark,
            dataset=dataset,
            dataset_version=job.request["dataset_version"],
        )
        for number, summary in enumerate(found, 1)
    ]
    job.used_tokens = max(summary.get("provenance", {}).get("tokens", 0) for summary in found)
    job.result_url = kept[0].get_absolute_url()


def settings_of(job: Job) -> dict[str, Any]:
    """What was chosen for a build; older rows, and optimisations of programs, have it among the request's fields."""
    names = ("method", *method.params, "chat") if (method := method_of(job.request.get("method", ""))) else ()
    return job.request.get("settings") or {name: job.request[name] for name in names if name in job.request}


def build_settings(job: Job) -> dict[str, str]:
    """The settings of an earlier build, as the build page's query, to change and try again."""
    chosen = settings_of(job) | {"model": job.request.get("model", "")}
    asked = {name: as_field(value) for name, value in chosen.items() if value is not None}
    return {"dataset": job.request["dataset"] or "", "name": job.request["name"]} | asked


def as_field(value: Any) -> str:
    """A setting as the build form has it."""
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
    return "the method’s own" if value in (None, 0, "") and name != "layer" else as_field(value)
