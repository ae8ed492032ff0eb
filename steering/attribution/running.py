"""Start the parts of an attribution, and keep what their jobs find."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db import transaction

from inference.errors import Busy, InvalidRequest
from inference.types import (
    Attribute,
    AttributeFeatures,
    Component,
    Contrast,
    DirectLogits,
    LogitLens,
    MapModel,
    ModelInfo,
    PatchExactly,
)
from steering import draining
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.attribution.findings import cells_of
from steering.attribution.models import Attribution, ModelMap, Part
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_cancel, job_start
from steering.refusals import need

MOST_VERIFIED = 200  # components patched in one click
CONTRAST = tuple(field.name for field in dataclasses.fields(Contrast) if field.name not in ("id", "model"))
OWN = ("id", "model", "kind")
REPEATED = ("sites", "sums", "top")  # of an exact patching's payload: large, and found by the heat maps already
TITLES = {
    Part.Kind.ATTRIBUTE: "Attribute",
    Part.Kind.EXACT: "Patch the top of",
    Part.Kind.FEATURES: "Features of",
    Part.Kind.LENS: "Logit lens of",
    Part.Kind.DIRECT: "Direct logits of",
}
PartRequest = Attribute | PatchExactly | AttributeFeatures | LogitLens | DirectLogits


def attribution_start(
    *,
    owner: Any,
    name: str,
    question: Attribute,
    model: ModelInfo,
    who: Principal | None = None,
    source: str = "attribution",
) -> Attribution:
    """Save a question and begin to answer it. Raises InferenceError for what cannot be asked, Denied for a limit."""
    draining.refuse_new_work()
    need(bool(model.id), "no_model", "No model is ready yet, and an attribution needs to know which one. Try again.")
    check(question)
    attribution = Attribution(owner=owner, name=name, model_id=model.id, revision=model.revision)
    attribution.settings = stored(question)
    with transaction.atomic():
        attribution.save()
        _start(attribution, question, who, source)
    return attribution


def check(question: Attribute) -> None:
    """What needs no model. Raises InvalidRequest whose code is the field's name."""
    need(bool(question.clean.strip()), "clean", "Write the clean prompt: the one that gives the answer to explain.")
    need(
        bool(question.corrupted.strip()),
        "corrupted",
        "Write the corrupted prompt: the same text, changed where the answer should come from.",
    )
    need(bool(question.sites), "sites", "Choose at least one site.")
    if question.metric == "kl":
        need(not question.targets and not question.against, "targets", "KL compares whole answers: leave targets out.")
    else:
        need(bool(question.targets), "targets", "Name a target token, such as “ Mary”, with its space.")
    if question.metric == "logit_difference":
        need(bool(question.against), "against", "A logit difference needs a token to compare with, such as “ John”.")
    else:
        need(not question.against, "against", "Only a logit difference takes tokens to compare with. Leave them out.")


def stored(request: Any) -> dict[str, Any]:
    return {name: value for name, value in request.to_wire().items() if name not in OWN}


def question_of(attribution: Attribution) -> Attribute:
    """Raises InvalidRequest when this version does not know the settings."""
    return Attribute.from_wire({"id": "", "kind": Attribute.kind, "model": "", **attribution.settings})


# ---- further parts ----


def verify(
    attribution: Attribution,
    *,
    top: int = 20,
    each: bool = False,
    components: tuple[Component, ...] = (),
    who: Principal | None = None,
    source: str = "attribution",
) -> Part:
    """Patch for real: these components, else the predicted top, of `each` site or of all together.

    Raises InferenceError, Denied.
    """
    if each and not components:
        components = strongest_of_each(attribution, top)
    many = len(components) or top
    need(1 <= many <= MOST_VERIFIED, "top", f"Patch 1 to {MOST_VERIFIED} components at once, not {many}.")
    settings = question_of(attribution).to_wire() | {"kind": PatchExactly.kind, "top": top}
    settings["components"] = [component.to_wire() for component in components]
    return part_start(attribution, PatchExactly.from_wire(settings), who=who, source=source)


def strongest_of_each(attribution: Attribution, top: int) -> tuple[Component, ...]:
    """The `top` predicted largest of every site. Raises InvalidRequest where nothing is predicted yet."""
    part = attribution.found().get(Part.Kind.ATTRIBUTE)
    if part is None or part.findings is None:
        raise InvalidRequest("nothing_predicted", "There are no predictions yet. Wait for the heat maps.")
    by_position = attribution.settings.get("by_position", True)
    found: list[Component] = []
    for site in part.findings["sites"]:
        cells = sorted(cells_of(part.findings, site, by_position=by_position), key=lambda cell: -abs(cell.value))
        found += [Component(site, cell.layer, cell.position, cell.head) for cell in cells[:top]]
    return tuple(found)


def features(
    attribution: Attribution, *, source_id: str, baseline: str = "corrupted", steps: int = 0, top: int = 50,
    who: Principal | None = None, source: str = "attribution",
) -> Part:  # fmt: skip
    """Attribute to the features of an SAE. Raises InferenceError, Denied."""
    need(bool(source_id), "source", "Choose the SAE whose features are to be attributed.")
    settings = {name: attribution.settings[name] for name in CONTRAST if name in attribution.settings}
    if baseline == "zero":
        settings |= {"corrupted": "", "alignment": []}
    asked = {"source": source_id, "baseline": baseline, "steps": steps, "top": top}
    request = AttributeFeatures.from_wire({"id": "", "kind": AttributeFeatures.kind, **settings, **asked})
    return part_start(attribution, request, who=who, source=source)


def lens(
    attribution: Attribution, *, which: str = "clean", who: Principal | None = None, source: str = "attribution"
) -> Part:
    """The logit lens of one of the prompts. Raises InferenceError, Denied."""
    question = question_of(attribution)
    targets = (*question.targets, *question.against)
    request = LogitLens("", _prompt(question, which), targets=targets, chat=question.chat)
    return part_start(attribution, request, which=which, who=who, source=source)


def direct(
    attribution: Attribution, *, which: str = "clean", who: Principal | None = None, source: str = "attribution"
) -> Part:
    """Direct logit attribution of one of the prompts. Raises InferenceError, Denied."""
    question = question_of(attribution)
    need(
        bool(question.targets),
        "targets",
        "Direct logits need a target token, and KL has none. Duplicate this with another metric.",
    )
    request = DirectLogits("", _prompt(question, which), question.targets, question.against, chat=question.chat)
    return part_start(attribution, request, which=which, who=who, source=source)


def _prompt(question: Attribute, which: str) -> str:
    need(which in ("clean", "corrupted"), "which", "Choose the clean or the corrupted prompt.")
    return question.clean if which == "clean" else question.corrupted


def part_start(
    attribution: Attribution, request: PartRequest, *, which: str = "", who: Principal | None = None, source: str
) -> Part:
    """Raises Busy where such a part is being found already, InferenceError, Denied."""
    draining.refuse_new_work()
    running = attribution.newest(whole=False).get(request.kind)
    if running is not None and running.is_active:
        raise Busy(
            "part_is_running",
            f"“{running.get_kind_display()}” is being found already. Wait for it, or cancel it.",
            retry_after=5,
        )
    with transaction.atomic():
        return _start(attribution, request, who, source, which)


def _start(attribution: Attribution, request: PartRequest, who: Principal | None, source: str, which: str = "") -> Part:
    kind = Part.Kind(request.kind)
    request = dataclasses.replace(request, model=attribution.model_id)
    if isinstance(request, Contrast):
        asked = attribution.settings
        kept = {name: value for name, value in stored(request).items() if name not in asked or asked[name] != value}
    else:
        kept = {"which": which}
    part = Part(attribution=attribution, kind=kind, settings=kept)
    part.job = job_start(
        owner=attribution.owner,
        kind=kind,
        title=f"{TITLES[kind]} “{attribution.name}”",
        request=request,
        about={"attribution": str(attribution.pk)},
        who=who,
        source=source,
        tokens=_tokens(request),
    )
    part.save()
    return part


def _tokens(request: PartRequest) -> int:
    """What it may read at most."""
    if isinstance(request, LogitLens | DirectLogits):
        return tokens_in((request.prompt,))
    return tokens_in(text for text in (request.clean, request.corrupted) if text) * _runs(request)


def _runs(request: Contrast) -> int:
    """How often the prompts are read: once to compare them, once for each step, once for each component patched."""
    exact = (len(request.components) or request.top) if isinstance(request, PatchExactly) else 0
    return 1 + getattr(request, "steps", 0) + exact


# ---- keeping ----


def _keep(job: Job, payload: dict[str, Any]) -> None:
    part = Part.objects.select_related("attribution").filter(job=job).first()
    if part is None:
        return  # deleted while it ran
    repeated = REPEATED if part.kind == Part.Kind.EXACT else ()
    part.findings = {name: value for name, value in payload.items() if name not in repeated}
    part.succeeded = True
    part.save(update_fields=["findings", "succeeded"])
    Job.objects.filter(pk=job.pk).update(result={"attribution": str(part.attribution_id)})  # once is enough
    job.result_url = part.attribution.get_absolute_url()
    job.used_tokens = _read(payload, job)


def _read(payload: dict[str, Any], job: Job) -> int:
    prompts = [side["tokens"] for name in ("clean", "corrupted") if (side := payload.get(name))]
    read = sum(len(tokens) for tokens in prompts) or len(payload.get("tokens", ()))
    return read * (1 + int(job.request.get("steps") or 0) + len(payload.get("patched", ())))


for _kind in Part.Kind.values:
    keeps_results_of(_kind)(_keep)


def attribution_cancel(attribution: Attribution) -> None:
    """End what still runs for it."""
    for part in attribution.parts.filter(job__state__in=Job.ACTIVE).select_related("job"):
        assert part.job is not None
        job_cancel(part.job)


# ---- the model's map ----


def map_start(
    *, owner: Any, model: ModelInfo, name: str, who: Principal | None = None, source: str = "attribution"
) -> Job:
    """Ask for the computation graph of a model; `name` is what a request says to mean it. Raises Denied."""
    need(bool(model.id), "no_model", "No model is ready yet. Wait until it has loaded, then try again.")
    about = {"model_id": model.id, "revision": model.revision}
    request = MapModel("", model=name)
    title = f"Map {model.id}"
    return job_start(owner=owner, kind=MapModel.kind, title=title, request=request, about=about, who=who, source=source)


@keeps_results_of(MapModel.kind)
def keep_map(job: Job, payload: dict[str, Any]) -> None:
    from django.urls import reverse

    named = {"model_id": job.request["model_id"], "revision": job.request["revision"]}
    ModelMap.objects.update_or_create(**named, defaults={"findings": payload})
    Job.objects.filter(pk=job.pk).update(result={})
    job.result_url = reverse("attribution:map")


def map_of(model: ModelInfo) -> ModelMap | None:
    return ModelMap.objects.filter(model_id=model.id, revision=model.revision).first()


def map_job(owner: Any, model: ModelInfo) -> Job | None:
    """The person's newest attempt."""
    mine = Job.objects.owned_by(owner).filter(kind=MapModel.kind, request__model_id=model.id)
    found: Job | None = mine.first()
    return found
