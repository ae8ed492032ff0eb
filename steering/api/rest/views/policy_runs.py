"""What is done with policies: run, compare, evaluate, tune; and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from inference.types import Message, ModelInfo
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import invalid
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import policies as shapes
from steering.policies import starting
from steering.policies.chosen import Chosen, choose
from steering.policies.estimate import Prompt
from steering.policies.keeping import save_trial
from steering.policies.models import PolicyRun

SCOPE = "generate"
LOOK_SECONDS = 0.1


class _Asking(Endpoint):
    """What all of them share: which policies, which prompts, begin, and perhaps wait."""

    scope = SCOPE

    def begin(
        self, kind: str, chosen: Sequence[Chosen], prompts: Sequence[Prompt], asked: dict[str, Any], **more: Any
    ) -> Response:
        model = self.model(asked)
        said = starting.asking_of(kind, prompts, max_new_tokens=asked["max_new_tokens"], seed=asked.get("seed"), **more)
        starting.check_kind(kind, chosen)
        if space := said.get("space"):
            starting.refuse_lent_space(self.request.user, chosen[0], space)
        wait, traces = asked.get("wait", 0), asked.get("include_trace", True)

        def start() -> Answer:
            run = starting.start(self.who, kind, chosen, said, model, source="rest")
            run = _waited(run, wait)
            where = reverse("rest:policy-run", args=[run.pk])
            return created(shapes.run_detail(run, traces=traces), where, 202 if run.is_active else 201)

        return self.once(start, atomic=False)

    def model(self, asked: dict[str, Any]) -> ModelInfo:
        return model_named(asked.get("model", ""))

    def chosen(self, asked: dict[str, Any]) -> Chosen:
        return choose(self.request.user, policy=asked.get("policy"), policy_id=asked.get("policy_id", ""))

    def prompt(self, asked: dict[str, Any]) -> Prompt:
        """Raises ValidationError unless exactly one of `prompt` and `messages` is there."""
        if ("prompt" in asked) == ("messages" in asked):
            raise invalid({"prompt": "Give either a prompt or messages."})
        if "messages" in asked:
            if not asked["messages"]:
                raise invalid({"messages": "There is no message. Give at least one."})
            return tuple(Message(one["role"], one["content"]) for one in asked["messages"])
        return self.as_asked(asked, asked["prompt"])

    def as_asked(self, asked: dict[str, Any], text: str) -> Prompt:
        model, chat = self.model(asked), asked.get("chat")
        if chat and model.id and not model.has_chat_template:
            raise invalid({"chat": f"{model.id} has no chat template. Send false to go on from plain text."})
        return starting.as_prompt(text, chat=model.has_chat_template if chat is None else chat)


def _waited(run: PolicyRun, seconds: float) -> PolicyRun:
    """The run as it is when it has ended, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = PolicyRun.objects.select_related("job", "owner").get(pk=run.pk)
        if not found.is_active or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_SECONDS)


LATER = {202: shapes.PolicyRunDetail}


class Runs(_Asking):
    @operation(
        "policies_run",
        "Run a policy",
        says="Waits for the end, `wait` seconds at most; what takes longer is answered with 202 and goes on as a run "
        "to be asked for.",
        scope=SCOPE,
        body=shapes.PolicyRunCreate,
        answers=shapes.PolicyRunDetail,
        status=201,
        once=True,
        errors=(404,),
        also=LATER,
        asks={"policy_id": "steerboard/diverse-chatbot", "prompt": "Say hello.", "max_new_tokens": 32},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PolicyRunCreate)
        return self.begin(PolicyRun.Kind.RUN, [self.chosen(asked)], [self.prompt(asked)], asked)


class Comparisons(_Asking):
    @operation(
        "policies_compare",
        "Compare policies on one prompt",
        says="One after another with the same seed. Waits as a run does.",
        scope=SCOPE,
        body=shapes.PolicyCompareCreate,
        answers=shapes.PolicyRunDetail,
        status=201,
        once=True,
        errors=(404,),
        also=LATER,
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PolicyCompareCreate)
        chosen = [self.chosen(one) for one in asked["policies"]]
        return self.begin(PolicyRun.Kind.COMPARE, chosen, [self.prompt(asked)], asked)


class Evaluations(_Asking):
    @operation(
        "policies_evaluate",
        "Evaluate a policy over prompts",
        says="Starts a run to be asked for.",
        scope=SCOPE,
        body=shapes.PolicyEvaluateCreate,
        answers=shapes.PolicyRunDetail,
        status=202,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PolicyEvaluateCreate)
        prompts = [self.as_asked(asked, text) for text in asked["prompts"]]
        return self.begin(PolicyRun.Kind.EVALUATE, [self.chosen(asked)], prompts, asked, at_once=asked["at_once"])


class Tunings(_Asking):
    @operation(
        "policies_autotune",
        "Look for the best settings of a policy",
        says="Starts a run to be asked for. The best has the highest share of accepted answers, then the best score, "
        "then the lowest latency.",
        scope=SCOPE,
        body=shapes.PolicyTuneCreate,
        answers=shapes.PolicyRunDetail,
        status=202,
        once=True,
        errors=(404,),
        asks={"prompts": ["Say hello."], "search_space": {"sampling.temperature": [0.2, 0.7]}},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.PolicyTuneCreate)
        prompts = [self.as_asked(asked, text) for text in asked["prompts"]]
        if not asked.get("policy_id"):
            asked.setdefault("policy", {})
        more = {name: asked.get(name) for name in ("search", "max_trials", "token_budget", "at_once")}
        return self.begin(
            PolicyRun.Kind.TUNE, [self.chosen(asked)], prompts, asked, space=asked["search_space"], **more
        )


class PolicyRuns(Endpoint):
    scope = SCOPE

    @operation(
        "policies_runs_list",
        "List runs of policies",
        says="Your own, newest first.",
        scope=SCOPE,
        query=shapes.PolicyRunQuery,
        answers=shapes.PolicyRunPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.PolicyRunQuery)
        rows = PolicyRun.objects.owned_by(request.user).select_related("job").defer("result")
        rows = rows.filter(kind=query["kind"]) if "kind" in query else rows
        page, cursor = newest_first(rows, query)
        return Response(page_of([shapes.run_to_json(row) for row in page], cursor))


class OnePolicyRun(Endpoint):
    scope = SCOPE

    @operation(
        "policies_runs_get",
        "Get a run of a policy",
        says="Without traces, which have an address of their own.",
        scope=SCOPE,
        answers=shapes.PolicyRunDetail,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.run_detail(_own(self, id)))

    @operation(
        "policies_runs_delete",
        "Delete a run of a policy",
        says="One that still runs is cancelled first.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(404,),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        run = _own(self, id)
        starting.run_cancel(run)
        run.delete()
        return Response(status=204)


class Traces(Endpoint):
    scope = SCOPE

    @operation(
        "policies_runs_trace",
        "Get the traces of a run",
        says="Every candidate with its settings, scores, verdicts, tokens and times; every retry and why.",
        scope=SCOPE,
        answers=shapes.PolicyTraces,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        results = (_own(self, id).result or {}).get("results", [])
        return Response({"traces": [one.get("trace") for one in results]})


class Cancellations(Endpoint):
    scope = SCOPE

    @operation(
        "policies_runs_cancel",
        "Cancel a run of a policy",
        says="Harmless when it has ended: the answer is the run as it is.",
        scope=SCOPE,
        answers=shapes.PolicyRunDetail,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        starting.run_cancel(_own(self, id))
        return Response(shapes.run_detail(_own(self, id)))


class Replays(Endpoint):
    scope = SCOPE

    @operation(
        "policies_runs_replay",
        "Run again from a trace",
        says="Starts a run to be asked for, whose `same` says whether the text is the same.",
        scope=SCOPE,
        body=shapes.ReplayCreate,
        answers=shapes.PolicyRunDetail,
        status=202,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        run = _own(self, id)
        asked = self.read(shapes.ReplayCreate)

        def start() -> Answer:
            made = starting.replay_start(self.who, run, asked["index"], source="rest")
            found = _waited(made, 0)
            return created(shapes.run_detail(found), reverse("rest:policy-run", args=[made.pk]), 202)

        return self.once(start, atomic=False)


class Bests(Endpoint):
    scope = "vectors"

    @operation(
        "policies_runs_best",
        "Keep a trial of a search as a policy",
        scope="vectors",
        body=shapes.BestCreate,
        answers=shapes.PolicyShape,
        status=201,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        run = _own(self, id)
        asked = self.read(shapes.BestCreate)

        def save() -> Answer:
            made = save_trial(request.user, run, asked.get("trial"), asked.get("name", ""))
            return created(shapes.policy_to_json(made, request.user), reverse("rest:policy", args=[made.pk]))

        return self.once(save)


def _own(endpoint: Endpoint, id: UUID) -> PolicyRun:
    rows = PolicyRun.objects.owned_by(endpoint.request.user).select_related("job", "owner")
    return endpoint.one(rows, id)
