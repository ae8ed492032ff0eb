"""Ask a question: find passages, begin the job that answers and attributes, and keep what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from django.db import transaction

from inference import raag
from inference.raag import AnswerFromPassages, Passage
from inference.retrieval import chunks, layout
from inference.types import Intervention, ModelInfo, SamplingParams
from steering import draining
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.jobs.runner import job_cancel, job_start
from steering.presets import library as presets
from steering.presets.models import Preset
from steering.refusals import need, storable
from steering.retrieval.indexing import Searchable, of_collection, of_documents
from steering.retrieval.models import Collection, Question
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse, check_uses, resolve_uses

MOST_PASSAGES = 12
MOST_TOKENS = raag.MOST_ANSWER_TOKENS
MOST_LABELS = 1_000
LONGEST_ANSWER = 2_000
OWN = ("id", "model", "kind")
ABOUT = ("k", "way", "steered_by", "collection", "searched")  # of `Question.settings`, beside the request's

recipe(AnswerFromPassages, raag.answer_from_passages)


@dataclasses.dataclass(frozen=True)
class Steering:
    """`says` is what people read."""

    interventions: tuple[Intervention, ...] = ()
    system: str = ""
    says: str = ""


@dataclasses.dataclass(frozen=True)
class Asked:
    """`way` as of `inference.retrieval.index`; `relevant` are ids of documents or chunks."""

    text: str
    k: int = 5
    way: str = "hybrid"
    instruction: str = ""
    answer: str = ""
    max_tokens: int = 48
    temperature: float = 0.0
    seed: int | None = None
    epsilon: float = 0.1
    relevant: tuple[str, ...] = ()


def steering_of_preset(preset: Preset, model: ModelInfo) -> Steering:
    """Raises InvalidRequest."""
    need(
        not preset.parsed.behaviors, "preset",
        f"{preset} watches for behaviors, which an attributed answer does not do. Choose a preset without them.",
    )  # fmt: skip
    return Steering(presets.interventions_of(preset, model), preset.parsed.system_prompt, f"preset {preset}")


def steering_of_vector(user: Any, vector: Vector, strength: float | None, model: ModelInfo) -> Steering:
    """Raises InvalidRequest."""
    strength = vector.facts.dose if strength is None else strength
    use = VectorUse(vector=str(vector.pk), operation=vector.facts.operation, strength=strength)
    return steering_of_uses(user, (use,), model, says=f"{vector.name} {strength:+g}")


def steering_of_uses(user: Any, uses: Sequence[VectorUse], model: ModelInfo, *, says: str = "") -> Steering:
    """Raises InvalidRequest, NotFound."""
    check_uses(tuple(uses), "the question")
    words = says or (f"{len(uses)} intervention{'s' if len(uses) != 1 else ''}" if uses else "")
    return Steering(resolve_uses(user, tuple(uses), model), "", words)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A question with the passages that were found for it. `about` is what its settings say beside the request."""

    request: AnswerFromPassages
    about: dict[str, Any]
    collection: Collection | None
    model: ModelInfo


def question_prepare(
    *,
    asked: Asked,
    model: ModelInfo,
    collection: Collection | None = None,
    documents: Sequence[chunks.Document] = (),
    steering: Steering = Steering(),
) -> Prepared:
    """Search, which may take a second, so outside of any transaction. Raises InferenceError."""
    draining.refuse_new_work()
    need(bool(model.id), "no_model", "No model is ready yet, and an answer needs one. Wait a moment, then ask again.")
    need(
        (collection is None) != (not documents), "one_source",
        "Give documents, or choose a collection: exactly one of the two.",
    )  # fmt: skip
    check(asked)
    for document in documents:
        storable(document.id + document.text + document.title, "A document")
    searched = of_collection(collection) if collection else of_documents(documents)
    request = _request(asked, searched, steering, model)
    raag.check(request)
    about = {"k": asked.k, "way": asked.way, "steered_by": steering.says}
    about |= {"collection": collection.name if collection else "", "searched": len(searched.chunks)}
    return Prepared(request, about, collection, model)


def question_repeat(question: Question, model: ModelInfo) -> Question:
    """The same request once more, on the model that is served now. Raises InferenceError, Denied."""
    draining.refuse_new_work()
    need(bool(model.id), "no_model", "No model is ready yet, and an answer needs one. Wait a moment, then ask again.")
    settings = question.settings
    about = {name: settings[name] for name in ABOUT}
    wire = {name: value for name, value in settings.items() if name not in ABOUT}
    request = AnswerFromPassages.from_wire(wire | {"id": "", "model": model.id})
    need(
        not request.interventions, "steered",
        "This answer was steered, and whether you may still use what steered it has to be looked up. Press Change and "
        "ask, and choose it again.",
    )  # fmt: skip
    raag.check(request)
    return question_start(Prepared(request, about, question.collection, model), owner=question.owner)


def question_start(prepared: Prepared, *, owner: Any, who: Principal | None = None, source: str = "raag") -> Question:
    """Raises Denied for a limit."""
    request, model = prepared.request, prepared.model
    settings = {name: value for name, value in request.to_wire().items() if name not in OWN} | prepared.about
    question = Question(owner=owner, collection=prepared.collection, text=request.question, settings=settings)
    question.model_id, question.revision = model.id, model.revision
    with transaction.atomic():
        question.job = job_start(
            owner=owner,
            kind=AnswerFromPassages.kind,
            title=f"Answer “{' '.join(request.question.split()):.80}”",
            request=request,
            about={"question_id": str(question.pk)},
            who=who,
            source=source,
            tokens=most_tokens(request),
        )
        question.save()
    return question


def check(asked: Asked) -> None:
    """Raises InvalidRequest whose code is the field's name."""
    layout.check(asked.text, asked.instruction)
    for text, what in ((asked.text, "The question"), (asked.instruction, "The instruction"), (asked.answer, "It")):
        storable(text, what)
    need(1 <= asked.k <= MOST_PASSAGES, "k", f"Take 1 to {MOST_PASSAGES} passages, not {asked.k}.")
    need(len(asked.answer) <= LONGEST_ANSWER, "answer", f"An answer has at most {LONGEST_ANSWER:,} characters.")
    need(len(asked.relevant) <= MOST_LABELS, "relevant", f"At most {MOST_LABELS:,} labels. Name documents instead.")


def _request(asked: Asked, searched: Searchable, steering: Steering, model: ModelInfo) -> AnswerFromPassages:
    found = searched.search(asked.text, asked.k, asked.way)
    return AnswerFromPassages(
        "",
        question=asked.text.strip(),
        passages=tuple(
            Passage(chunk.id, chunk.document, chunk.text, chunk.title, round(hit.score, 6)) for chunk, hit in found
        ),
        instruction=asked.instruction.strip(),
        system=steering.system,
        answer=asked.answer.strip(),
        sampling=SamplingParams(max_tokens=asked.max_tokens, temperature=asked.temperature, seed=asked.seed, fit=True),
        interventions=steering.interventions,
        epsilon=asked.epsilon,
        relevant=asked.relevant,
        expected=searched.relevant(asked.relevant),
        model=model.id,
    )


def most_tokens(request: AnswerFromPassages) -> int:
    """What it may read and write at most: the prompt once for the answer and for the estimate, once with each passage
    taken out, once with all; and the answer's tokens back."""
    prompt = tokens_in((request.question, request.instruction, request.system, *(p.text for p in request.passages)))
    answer = request.sampling.max_tokens if not request.answer else tokens_in((request.answer,))
    return (prompt + answer) * (len(request.passages) + 4)


@keeps_results_of(AnswerFromPassages.kind)
def keep_answer(job: Job, payload: dict[str, Any]) -> None:
    question = Question.objects.filter(job=job).first()
    if question is None:
        return  # deleted while it ran
    question.findings, question.succeeded = payload, True
    question.save(update_fields=["findings", "succeeded"])
    Job.objects.filter(pk=job.pk).update(result={"question": str(question.pk)})  # once is enough
    job.result_url = question.get_absolute_url()
    prompt, answer = len(payload["prompt_tokens"]), len(payload["answer_tokens"])
    job.used_tokens = (prompt + answer) * (len(payload["spans"]) + 3)
    job.written_tokens = payload["usage"][1]


def question_cancel(question: Question) -> None:
    """End what still runs for it. Harmless when nothing does."""
    if question.job is not None and question.is_active:
        job_cancel(question.job)
