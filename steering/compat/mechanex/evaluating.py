"""Is a vector any good, and pairs that the model writes: /steering/evaluate and /steering/generate-pairs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from inference.alignment import EvaluateVector, check, evaluate_vector
from inference.persona import LEAST_PAIRS, MOST_PAIRS, DescribedPairs
from steering import draining
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.compat.answering import patient
from steering.compat.mechanex.examples import MOST_NAME, read_words
from steering.compat.mechanex.following import left_by, result_of
from steering.compat.mechanex.wire import operation
from steering.compat.served import DEFAULT, model_of
from steering.datasets.asking import pairs_ask
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.refusals import storable
from steering.threads import in_thread
from steering.vectors.lookup import find_vector
from steering.vectors.uses import VectorUse, check_uses, resolve_uses

SOURCE = "mechanex"
MOST_STRENGTH = 10_000
JUDGE_TOKENS = 120  # around a text that is judged

recipe(EvaluateVector, evaluate_vector)


@keeps_results_of(EvaluateVector.kind)
def count_evaluation(job: Job, payload: dict[str, Any]) -> None:
    job.used_tokens, job.written_tokens = payload["prompt_tokens"], payload["completion_tokens"]


@operation("vectors")
async def evaluate(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /steering/evaluate. Spaces come while it lasts."""
    return await patient(_evaluated(who, await in_thread(_start_evaluation)(who, body)))


async def _evaluated(who: Principal, job: Job) -> dict[str, Any]:
    row = await result_of(who, job)
    found = {"cosine_metrics": row.result["cosine"], "judge_evaluation": row.result["judge"]}
    return found | {"job_id": str(row.pk)}


def _start_evaluation(who: Principal, body: Fields) -> Job:
    draining.refuse_new_work()
    model = model_of(who)
    vector = find_vector(who.user, body.required_text("steering_vector_id"), model)
    multiplier = body.number("multiplier")
    strength = 1.0 if multiplier is None else multiplier
    _check_judge(body, model.id)
    use = VectorUse(str(vector.pk), operation=vector.facts.operation, strength=strength, unit="raw")
    check_uses((use,), "this evaluation")
    (intervention,) = resolve_uses(who.user, (use,), model)
    asked = EvaluateVector(
        id="",
        vector_id=vector.content_id,
        layer=intervention.layers[0],
        positive=_texts(body, "positive_texts"),
        negative=_texts(body, "negative_texts"),
        operation=use.operation,
        strength=strength,
        prompts=_texts(body, "test_prompts"),
        concept=read_words(body, "persona_description", 2000),
        model=model.id,
    )
    check(asked)
    return job_start(
        owner=who.user,
        kind=asked.kind,
        title=f"Evaluate “{vector.name}”",
        request=asked,
        who=who,
        source=SOURCE,
        tokens=_most_tokens(asked),
    )


def _texts(body: Fields, name: str) -> tuple[str, ...]:
    found = body.texts(name) or ()
    for text in found:
        storable(text, f"A text of '{name}'")
    if not all(text.strip() for text in found):
        raise invalid(f"A text of '{name}' is empty. Write it, or leave it out.", name)
    return found


def _check_judge(body: Fields, served: str) -> None:
    """The judge is the served model: any other that is asked for is refused."""
    judge = body.text("judge_model")
    if judge is not None and judge not in DEFAULT and judge.lower() != served.lower():
        raise invalid(f"The judge is the served model, {served}. Leave 'judge_model' out.", "judge_model")


def _most_tokens(asked: EvaluateVector) -> int:
    texts = tokens_in(asked.texts)
    if not asked.prompts:
        return texts
    written = 2 * (tokens_in(asked.prompts) + len(asked.prompts) * asked.max_tokens)
    judged = (len(asked.texts) + 2 * len(asked.prompts)) * (JUDGE_TOKENS + tokens_in((asked.concept,)))
    return 2 * texts + 2 * written + judged


# ---- pairs ----


@operation("datasets")
async def generate_pairs(request: HttpRequest, who: Principal, body: Fields) -> Any:
    """POST /steering/generate-pairs: written, and scored, by the served model. Spaces come while it lasts."""
    job, said, wanted = await in_thread(_start_pairs)(who, body)
    return await patient(_written(who, job, said, wanted))


def _start_pairs(who: Principal, body: Fields) -> tuple[Job, dict[str, str], int]:
    draining.refuse_new_work()
    name = read_words(body, "persona_name", MOST_NAME)
    if not name:
        raise body.missing("persona_name")
    description = read_words(body, "persona_description", 2000)
    wanted = body.whole("num_pairs", 1, MOST_PAIRS) or 50
    body.whole("batch_size", 1, 1000)  # rows share the engine's batch, whatever it says
    asked = DescribedPairs(
        id="",
        description=description or name,
        opposite=read_words(body, "negative_description", 2000),
        count=max(wanted, LEAST_PAIRS),
        model=model_of(who).id,
    )
    job = pairs_ask(owner=who.user, request=asked, name=name, keep_as="dataset", who=who, source=SOURCE)
    return job, {"persona": name, "persona_description": description}, wanted


async def _written(who: Principal, job: Job, said: dict[str, str], wanted: int) -> dict[str, Any]:
    row = await result_of(who, job)
    pairs = [_pair(pair) for pair in row.result["pairs"]]
    best = sorted(range(len(pairs)), key=lambda i: -pairs[i]["final_score"])[:wanted]
    pairs = [pairs[i] for i in sorted(best)]
    mean = sum(pair["final_score"] for pair in pairs) / max(len(pairs), 1)
    return {
        **said,
        "total_pairs": len(pairs),
        "pairs": pairs,
        "avg_final_score": mean,
        "judge_auroc": row.result["auroc"],
        "notes": row.result["said"],
        "dataset_id": str(left_by(row)),
        "job_id": str(row.pk),
    }


def _pair(pair: dict[str, Any]) -> dict[str, Any]:
    """`final_score` from 0 to 1: 0.5 is a pair whose sides the judge finds alike."""
    positive, negative = pair["scores"] or (0.5, 0.5)
    return {
        "prompt": pair["prompt"],
        "positive_answer": pair["positive"],
        "negative_answer": pair["negative"],
        "positive_score": positive,
        "negative_score": negative,
        "final_score": (1 + positive - negative) / 2,
    }
