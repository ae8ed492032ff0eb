"""Pairs that a model writes, on a client that answers as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inference.errors import Busy, InvalidRequest
from inference.persona import (
    Contrast,
    DescribedPairs,
    PersonaPairs,
    check,
    instructions_for,
    pairs_from_description,
    passes,
    persona_pairs,
    problem_of,
    tidied,
)
from inference.persona_words import reply_prompt
from inference.types import Event, Failed, Finished, GenerationRequest, Pair, Progress, Receipt, Result, Token, Usage
from inference.writing import write
from tests.fake_inference import FakeInference


class Client(FakeInference):
    """Answers with what `says` gives for a request; judges with P(yes) from `believes`."""

    def __init__(self, says: Any, believes: Any = lambda text: 0.5) -> None:
        super().__init__(delay=0.0)
        self.says, self.believes = says, believes

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.requests.append(request)
        text = self.says(request, len(self.requests))
        await asyncio.sleep(0)
        yield Token(request.id, 0, 1, text)
        yield Finished(request.id, 1, "stop", Usage(10, 5), Receipt("m", "r", 1), seconds=0.0)

    async def run(self, job: Any) -> AsyncIterator[Event]:
        import math

        values = [self.believes(item.messages[0].content) for item in job.items]
        yield Result(job.id, 0, {"items": [{"logprobs": [math.log(p), math.log(1 - p)]} for p in values]})


def system_of(request: GenerationRequest) -> str:
    return request.messages[0].content if request.messages else request.prompt or ""


def distinct(request: GenerationRequest, n: int) -> str:
    side = "sunny" if "cheerful" in system_of(request) else "dark"
    return f"Everything is {side} today and number {n}."


async def ended(events: AsyncIterator[Any]) -> tuple[dict[str, Any], list[Progress]]:
    seen = [event async for event in events]
    assert isinstance(seen[-1], Result)
    return seen[-1].payload, seen[:-1]


async def test_a_judge_that_can_judge_filters_and_the_result_says_so() -> None:
    def believes(text: str) -> float:
        number = int(text.split("number ")[1].split(".")[0])
        return 0.9 if ("sunny" in text) != (number % 10 == 1) else 0.2

    client = Client(distinct, believes)
    payload, progress = await ended(persona_pairs(client, PersonaPairs("x", "cheerful", "gloomy", count=12)))
    assert len(payload["pairs"]) == 12
    assert all(pair["scores"][0] > pair["scores"][1] for pair in payload["pairs"])
    assert payload["left_out"]["the trait in the wrong side, for the judge"] >= 1
    assert payload["auroc"] > 0.8
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert progress[-1].done == progress[-1].total


async def test_a_judge_that_cannot_is_not_listened_to() -> None:
    client = Client(distinct, lambda text: 0.3 if "sunny" in text else 0.4)
    payload, _ = await ended(persona_pairs(client, PersonaPairs("x", "cheerful", "gloomy", count=8)))
    assert (len(payload["pairs"]), payload["auroc"]) == (8, 0.0)
    assert "it was not listened to" in " ".join(payload["said"])


async def test_the_same_seed_asks_the_same() -> None:
    runs = []
    for _ in range(2):
        client = Client(distinct)
        await ended(pairs_from_description(client, DescribedPairs("x", "cheerful", count=6, judge="none", seed=3)))
        runs.append(sorted((system_of(r), r.sampling.seed) for r in client.requests))
    assert runs[0] == runs[1]


async def test_what_is_missing_is_written_again_with_other_seeds_and_then_refused() -> None:
    client = Client(lambda request, n: "always the very same words here")
    with pytest.raises(InvalidRequest, match="had two sides alike") as refused:
        await ended(pairs_from_description(client, DescribedPairs("x", "cheerful", count=6, judge="none", rounds=2)))
    assert refused.value.code == "too_few_usable"
    assert len({r.sampling.seed for r in client.requests}) == len(client.requests) == 2 * 2 * 9


async def test_a_model_without_a_template_is_shown_examples_and_cannot_be_a_persona() -> None:
    client = Client(distinct)
    client.served = lambda id, revision="fake": _bare(FakeInference.served(client, id, revision))  # type: ignore[method-assign]
    payload, _ = await ended(pairs_from_description(client, DescribedPairs("x", "cheerful", count=6, judge="none")))
    assert len(payload["pairs"]) == 6
    assert all("Behaviour: " in (r.prompt or "") for r in client.requests)
    with pytest.raises(InvalidRequest, match="has no chat template"):
        await ended(persona_pairs(client, PersonaPairs("x", "cheerful")))


def _bare(info: Any) -> Any:
    from dataclasses import replace

    return replace(info, has_chat_template=False)


async def test_a_full_waiting_list_is_waited_for_and_a_failure_is_raised() -> None:
    tries: list[int] = []

    class Full(Client):
        async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
            tries.append(1)
            if len(tries) <= 2:
                yield Failed(request.id, 0, "busy", "queue_full", "Full.", 0.01)
                return
            async for event in Client.generate(self, request):
                yield event

    job = DescribedPairs("x", "cheerful", count=6, judge="none")
    payload, _ = await ended(pairs_from_description(Full(distinct), job))
    assert len(payload["pairs"]) == 6
    tries.clear()
    with pytest.raises(Busy):
        await write(Full(distinct), GenerationRequest("a", prompt="x"))


@pytest.mark.parametrize(
    ("positive", "negative", "problem"),
    [
        ("Yes.", "I do not think so.", "a side without words"),
        ("It is a fine day.", "It is a fine day!", "two sides alike"),
        ("so so so so so so so so so", "I do not think so.", "a text that repeats itself"),
        ("Fine. Reply: good", "I do not think so.", "the form instead of a text"),
        ("Yes, until six.", "I do not think so.", "copied from the examples"),
        ("It is a fine day.", "I do not think so.", ""),
    ],
)
def test_what_is_of_no_use_is_named(positive: str, negative: str, problem: str) -> None:
    assert problem_of(Pair(positive, negative, "Hi")) == problem


def test_texts_lose_controls_and_half_sentences() -> None:
    assert tidied('"One two three. And th', complete=False) == "One two three."
    assert tidied("a\x00b\u202ec\x1b[31m", complete=True) == "a b c [31m"


@pytest.mark.parametrize("judge", ["relative", "strict"])
def test_judges_want_the_trait_in_the_positive_side(judge: Any) -> None:
    assert passes((0.9, 0.1), judge)
    assert not passes((0.1, 0.9), judge)
    assert passes((0.3, 0.1), judge) == (judge == "relative")


@pytest.mark.parametrize(
    "job",
    [
        PersonaPairs("x", " "),
        PersonaPairs("x", "kind", count=1000),
        PersonaPairs("x", "kind", opposite="Kind"),
        PersonaPairs("x", "kind", questions=("",)),
        PersonaPairs("x", "kind", instructions=(Contrast("a", " "),)),
        DescribedPairs("x", "kind", temperature=0),
        DescribedPairs("x", "k" * 500),
    ],
)
def test_what_cannot_be_asked_is_refused(job: Any) -> None:
    with pytest.raises(InvalidRequest):
        check(job)


def test_the_examples_show_the_form_and_end_where_the_model_goes_on() -> None:
    assert reply_prompt("cheerful", "Hi").endswith("Behaviour: cheerful\nSituation: Hi\nReply:")
    assert all(
        "cheerful" in each.positive and "gloomy" in each.negative for each in instructions_for("cheerful", "gloomy")
    )


def test_recipes_travel_as_json() -> None:
    job = PersonaPairs("x", "kind", instructions=(Contrast("a", "b"),), questions=("How?",))
    assert PersonaPairs.from_wire(job.to_wire()) == job
