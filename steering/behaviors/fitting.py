"""From contrastive pairs to a behavior: start the fit, and keep what it finds as the first version.

What is detected is what has to be corrected: where the direction is "suppress" the side that shows the behavior, where
it is "encourage" the side that lacks it. So one rate of false alarms means the same for both, and what the fit's own
vector points to is always steered away from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.types import FitDetector, ModelInfo, Pair, Wire
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.behaviors import library
from steering.behaviors.choosing import Correction, check_correction, corrector_of
from steering.behaviors.models import Behavior
from steering.datasets.models import Dataset
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.naming import next_version
from steering.refusals import need
from steering.vectors.facts import without_values
from steering.vectors.library import vector_keep

KIND = FitDetector.kind
FEWEST_PAIRS = 8  # fewer leave too little to set a threshold by


@dataclass(frozen=True)
class FitSettings(Wire):
    """How to fit a behavior. `source` and `max_features` count for a probe on features alone."""

    name: str
    description: str = ""
    direction: Literal["suppress", "encourage"] = "suppress"
    on: Literal["residual", "features"] = "residual"
    source: str = ""
    layers: tuple[int, ...] = ()
    max_features: int = 16
    false_positive_rate: float = 0.05
    held_out: float = 0.3
    seed: int = 0
    chat: bool = False
    few: bool = False  # make do with fewer than FEWEST_PAIRS, and then with nothing held out
    correction: Correction = field(default_factory=Correction)


def check_settings(settings: FitSettings, n_pairs: int) -> None:
    """Raises InvalidRequest for what the fit could not do, or could not be kept after it."""
    library.check_name(settings.name)
    need(
        n_pairs >= (1 if settings.few else FEWEST_PAIRS),
        "few_pairs",
        f"{n_pairs} pairs are too few: some are kept back to set the threshold by. Give {FEWEST_PAIRS} or more; "
        "50 give figures that one can rely on.",
    )
    need(
        0.001 <= settings.false_positive_rate <= 0.5,
        "false_positive_rate",
        "The rate of false alarms goes from 0.1 % to 50 %.",
    )
    need(0.1 <= settings.held_out <= 0.5, "held_out", "Keep back 10 % to 50 % of the pairs to judge the detector by.")
    need(1 <= settings.max_features <= 256, "max_features", "A sparse probe reads 1 to 256 features.")
    need(
        settings.on == "residual" or bool(settings.source),
        "no_source",
        "A probe on features needs a sparse autoencoder. Choose one, or read the residual stream.",
    )


def behavior_fit(
    *,
    owner: Any,
    dataset: Dataset,
    settings: FitSettings,
    model: ModelInfo | None = None,
    who: Principal | None = None,
    source: str = "behaviors",
) -> Job:
    """Start the fit; the behavior is there when the job has succeeded. Raises InvalidRequest and Denied."""
    pairs = _pairs(dataset, settings.direction)
    check_settings(settings, len(pairs))
    check_correction(owner, settings.correction)
    request = FitDetector(
        id="",
        pairs=pairs,
        on=settings.on,
        source=settings.source if settings.on == "features" else "",
        layers=settings.layers,
        max_features=settings.max_features,
        false_positive_rate=settings.false_positive_rate,
        held_out=settings.held_out,
        seed=settings.seed,
        chat=settings.chat,
        few=settings.few,
        dataset_digest=dataset.digest(),
        model=model.id if model else "",
    )
    return job_start(
        owner=owner,
        kind=KIND,
        title=f"Fit “{settings.name}”",
        request=request,
        about={
            "name": settings.name,
            "dataset": str(dataset.pk),
            "dataset_name": dataset.name,
            "dataset_version": dataset.version,
            "behavior": settings.to_wire(),
        },
        who=who,
        source=source,
        tokens=sum(tokens_in((pair.prompt + pair.positive, pair.prompt + pair.negative)) for pair in pairs),
    )


def _pairs(dataset: Dataset, direction: str) -> tuple[Pair, ...]:
    """The side to detect comes first."""
    pairs = dataset.pairs()
    return pairs if direction == "suppress" else tuple(Pair(p.negative, p.positive, p.prompt) for p in pairs)


def settings_of(job: Job) -> FitSettings:
    return FitSettings.from_wire(job.request["behavior"])


@keeps_results_of(KIND)
def keep_fit(job: Job, payload: dict[str, Any]) -> None:
    """Keep the detector as a behavior, with the fit's vector in the library; the job leads to it.

    Where the name has versions already, it is the next one: nothing is overwritten, and no fit is lost.
    """
    assert job.owner  # fits belong to people
    settings = settings_of(job)
    dataset = Dataset.objects.visible_to(job.owner).filter(pk=job.request["dataset"]).first()
    version = job.request["dataset_version"]
    summary = payload["vector"]
    vector = vector_keep(
        owner=job.owner,
        name=_vector_name(settings),
        description=f"Found by the fit of the behavior “{settings.name}”.",
        summary=without_values(summary),
        dataset=dataset,
        dataset_version=version,
    )
    detector = {name: value for name, value in payload.items() if name not in ("vector", "data", "probe")}
    behavior = Behavior(
        owner=job.owner,
        name=settings.name,
        version=_free_version(job.owner, summary["model"], settings.name),
        description=settings.description,
        model_id=summary["model"],
        direction=settings.direction,
        dataset=dataset,
        dataset_version=version,
        detector=detector | {"probe": payload["probe"], "fit": _recipe(settings), "vector": str(vector.pk)},
        threshold=payload["threshold"],
    )
    corrector = corrector_of(job.owner, settings.correction, vector, behavior.read.layer)
    library.save(behavior, corrector)
    job.used_tokens = int(payload.get("tokens") or 0)
    job.result_url = behavior.get_absolute_url()


def _recipe(settings: FitSettings) -> dict[str, Any]:
    wire = settings.to_wire()
    return {name: wire[name] for name in ("on", "source", "max_features", "false_positive_rate", "seed", "chat")}


def _vector_name(settings: FitSettings) -> str:
    return settings.name if settings.direction == "suppress" else f"not {settings.name}"


def _free_version(owner: Any, model_id: str, name: str) -> str:
    same = Behavior.objects.owned_by(owner).for_model(model_id).filter(name=name)
    return next_version(list(same.values_list("version", flat=True)))
