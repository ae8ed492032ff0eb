"""Where an answer's turn ends and who is said to have it, read off a chat template; and how a stream ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from inference.errors import Busy
from inference.models.loader import LoadedModel
from inference.tokens import tokenize, turn_ends
from inference.types import (
    AppliedIntervention,
    Direction,
    Event,
    Finished,
    GenerationRequest,
    Intervention,
    Message,
    Receipt,
    Site,
    Token,
    Tokenize,
    Usage,
)
from steering.access.denied import Denied
from steering.access.principal import Principal
from steering.compat.neuronpedia.steer import running
from steering.compat.neuronpedia.steer.answers import Answer, chat, conversation
from steering.compat.neuronpedia.steer.ask import SteerAsk, Turn
from steering.compat.neuronpedia.steer.prompts import Prompt
from steering.compat.neuronpedia.wire import Refusal
from tests.inference.conftest import tiny_folder, tiny_model  # noqa: F401

ENDS, USER = 99, 3
ASK = SteerAsk(
    prompt=(Turn("user", "Hi"),), model="", method="SIMPLE_ADDITIVE", normalize=False, types=("STEERED", "DEFAULT"),
    items=(), max_tokens=9, temperature=0, multiplier=1, freq_penalty=0, seed=0,
)  # fmt: skip
PROMPT = Prompt("<user>Hi<assistant>", (3, 50, 4), ("<user>", "Hi", "<assistant>"), (True, False, True), {ENDS})  # type: ignore[arg-type]


def token(seq: int, id: int, text: str) -> Token:
    return Token("a", seq, id, text)


def finished(*applied: AppliedIntervention) -> Finished:
    return Finished("a", 9, "length", Usage(3, 3), Receipt("m", "r", 0, applied), 0.1)


def answer(*steering: Intervention) -> Answer:
    plain = GenerationRequest("a", token_ids=PROMPT.ids)
    return Answer(ASK, PROMPT, {"STEERED": replace(plain, interventions=steering), "DEFAULT": plain})


def feed(made: Answer, row: int, *events: Event) -> list[bool]:
    return [made.take(row, event) for event in events]


def test_what_follows_the_end_of_a_turn_is_not_part_of_the_answer() -> None:
    made = answer()
    news = feed(made, 0, token(0, 50, " So "), token(1, 51, "calm "), token(2, ENDS, ""), token(3, 52, "user"))
    assert news == [True, True, False, False] and not made.ended
    feed(made, 1, token(0, 50, "Other"), finished())
    assert made.ended
    body = chat(made)
    assert [each["raw"] for each in body["outputs"]] == [PROMPT.raw + " So calm ", PROMPT.raw + "Other"]
    assert body["outputs"][0]["chat_template"][-1] == {"role": "assistant", "content": "So calm"}
    assert [turn.role for turn in conversation(made, "STEERED", "model")] == ["user", "model"]


def test_an_answer_that_was_not_steered_is_withheld() -> None:
    made = answer(Intervention(directions=(Direction(Site(1), None),)))  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="withheld"):
        made.take(0, finished())


@pytest.mark.parametrize(
    ("texts", "special", "role"),
    [
        (["<turn>", "user", "\n", "hi", "</turn>", "\n", "<turn>", "model", "\n"], (0, 4, 6), "model"),
        (["<turn>", "user", "\n", "hi", "</turn>", "\n", "<turn>", "assistant", "\n"], (0, 4, 6), "assistant"),
        (["<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"], (0, 2), "assistant"),
        (["[INST]", "tell me of the model", "[/INST]"], (0, 2), "assistant"),
        (["<user>", "hi", "<assistant>"], (0, 2), "assistant"),
        (["User: hi", "Assistant:"], (), "assistant"),
    ],
)  # fmt: skip
def test_the_templates_own_name_for_who_answers(texts: list[str], special: tuple[int, ...], role: str) -> None:
    flags = tuple(place in special for place in range(len(texts)))
    assert Prompt("", tuple(range(len(texts))), tuple(texts), flags).role == role


def test_the_end_of_a_turn_is_read_off_the_template(tiny_model: Callable[[str], LoadedModel]) -> None:  # noqa: F811
    model = tiny_model("llama")
    assert turn_ends(model) == {USER}  # this template has no end mark: what follows an answer is the next turn's mark
    model.tokenizer.chat_template = (
        "{% for m in messages %}<user>{{ m['role'] }}:{{ m['content'] }}<pad>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert turn_ends(model) == {2}
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<eos>{% endfor %}"
    assert turn_ends(model) == frozenset()  # the model ends there by itself
    model.tokenizer.chat_template = "{{ raise_exception('one message only') if messages|length > 1 }}"
    assert turn_ends(model) == frozenset()


def test_a_chats_tokens_are_those_of_the_template(tiny_model: Callable[[str], LoadedModel]) -> None:  # noqa: F811
    model = tiny_model("llama")
    job = Tokenize("t", messages=(Message("user", "A calm reply."),))
    found = list(tokenize(model, job))[-1].payload  # type: ignore[union-attr]
    assert found["text"] == "<user>A calm reply.<assistant>" == "".join(text for _, text in found["tokens"])
    assert [id for id, _ in found["tokens"]] == model.encode_chat(job.messages)
    assert found["special"][0] and found["special"][-1] and not any(found["special"][1:-1])
    assert found["ends"] == [USER] and not found["bos"]


def test_a_stream_that_breaks_says_so_in_a_frame_that_is_no_answer() -> None:
    async def rows() -> Any:
        yield 0, token(0, 50, "So")
        yield 1, token(0, 51, "No")
        raise Busy("queue_full", "The model's waiting list is full. Try again shortly.", retry_after=2.0)

    async def told() -> list[Any]:
        events, made = rows(), answer()
        found = running.frames(made, await anext(events), events, chat)
        return [json.loads(each.removeprefix(b"data: ")) async for each in found]

    *before, last = asyncio.run(told())
    assert [each["outputs"][1]["raw"] for each in before] == [PROMPT.raw + "No"]
    assert last == {"error": "The model's waiting list is full. Try again shortly.", "code": "queue_full"}


def test_a_stream_without_a_word_still_has_its_answer() -> None:
    async def rows() -> Any:
        for row in (0, 1):
            yield row, token(0, 1, "")
            yield row, finished()

    async def told() -> list[Any]:
        events = rows()
        return [each async for each in running.frames(answer(), await anext(events), events, chat)]

    (only,) = asyncio.run(told())
    assert [each["raw"] for each in json.loads(only.removeprefix(b"data: "))["outputs"]] == [PROMPT.raw] * 2


def test_a_long_stream_sends_no_frame_for_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame is the whole so far: one a token would cost the square of the text."""
    monkeypatch.setattr(running, "PACE", 3600.0)
    count = 10 * running.PROMPT_FRAMES
    threads = set()

    def body(made: Answer) -> dict[str, Any]:
        threads.add(threading.current_thread())
        return chat(made)

    async def rows() -> Any:
        for seq in range(count):
            yield 0, token(seq, 50, "a")
        yield 1, token(0, 51, "b")
        for row in (0, 1):
            yield row, replace(finished(), usage=Usage(3, count))

    async def told() -> list[Any]:
        events, made = rows(), answer()
        found = running.frames(made, await anext(events), events, body)
        return [json.loads(each.removeprefix(b"data: ")) async for each in found]

    found = asyncio.run(told())
    assert len(found) <= running.PROMPT_FRAMES + 2
    assert [each["raw"] for each in found[-1]["outputs"]] == [PROMPT.raw + "a" * count, PROMPT.raw + "b"]
    assert len(threads) > 1, "long frames are written beside the loop"


def test_what_is_sure_to_be_refused_reaches_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def spent(who: Any, tokens: int) -> None:
        raise Denied(429, "quota_spent", f"There is no room for {tokens} tokens. Come back tomorrow.")

    async def read(*_: Any) -> Any:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(running.planning, "check", lambda who, ask: (None, ()))
    monkeypatch.setattr(running, "refuse_if_plain", spent)
    monkeypatch.setattr(running, "read_prompt", read)
    with pytest.raises(Denied, match="no room for 18 tokens"):
        asyncio.run(running.begin(Principal(None), ASK))
