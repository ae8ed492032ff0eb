"""Tools over /v1 with the official client: calls whole and streamed, what came back, and what is refused."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest

MODEL = "Tiny-Llama"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "It rains?", "parameters": PARAMETERS},
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
ASKED: Any = [{"role": "user", "content": "How is Rome?"}]


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    given = {"model": MODEL, "messages": ASKED, "max_tokens": 400, "seed": 3, "tools": [WEATHER, CLOCK]}
    return client.chat.completions.create(**(given | changes))


def fits(arguments: str) -> bool:
    said = json.loads(arguments)
    return set(said) == {"city", "days"} and said["city"] in ("Rome", "Oslo") and 1 <= said["days"] <= 9


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_has_arguments_of_its_schema(seed: int, client: openai.OpenAI) -> None:
    answer = chat(client, tool_choice="required", parallel_tool_calls=False, seed=seed)
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert call.type == "function" and call.id.startswith("call_")
    assert (
        fits(call.function.arguments)
        if call.function.name == "get_weather"
        else json.loads(call.function.arguments) == {}
    )
    (receipt,) = answer.steering["receipts"]
    assert (
        receipt["constraint"]["complete"]
        and receipt["constraint"]["masked_tokens"] >= answer.usage.completion_tokens - 1
    )


def test_a_named_function_is_called_once(client: openai.OpenAI) -> None:
    for name in ("get_weather", "clock"):
        (call,) = chat(client, tool_choice=named(name)).choices[0].message.tool_calls
        assert call.function.name == name


def test_allowed_tools_are_those_that_may_be_called(client: openai.OpenAI) -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("clock")]}}
    calls = chat(client, tool_choice=allowed, max_tokens=60).choices[0].message.tool_calls
    assert calls and {call.function.name for call in calls} == {"clock"}


def test_a_streamed_call_is_assembled_by_the_client(client: openai.OpenAI) -> None:
    given = {"tool_choice": named("get_weather"), "temperature": 0}
    whole = chat(client, **given).choices[0]
    chunks = list(chat(client, stream=True, **given))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    parts = [part for delta in deltas for part in delta.tool_calls or []]
    first, *rest = parts
    assert (first.index, first.type, first.function.name, first.function.arguments) == (
        0,
        "function",
        "get_weather",
        "",
    )
    assert first.id and all(part.id is None and part.function.name is None for part in rest) and len(rest) > 3
    assert "".join(part.function.arguments for part in parts) == whole.message.tool_calls[0].function.arguments
    assert not any(delta.content for delta in deltas) and chunks[-1].choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(
        model=MODEL, messages=ASKED, max_tokens=400, seed=3, tools=[WEATHER, CLOCK], **given
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == whole.message.tool_calls[0].function.arguments
    assert "tool_calls.function.arguments.done" in {event.type for event in events}


class Forecast(pydantic.BaseModel):
    city: Literal["Rome", "Oslo"]
    rain: bool


def test_the_clients_own_models_are_parsed(client: openai.OpenAI) -> None:
    given: Any = {"model": MODEL, "messages": ASKED, "max_tokens": 400, "seed": 1}
    parsed = client.chat.completions.parse(**given, response_format=Forecast).choices[0].message.parsed
    assert isinstance(parsed, Forecast)
    called = client.chat.completions.parse(
        **given, tools=[openai.pydantic_function_tool(Forecast)], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = called.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Forecast)
    assert isinstance(
        client.responses.parse(model=MODEL, input="How is Rome?", text_format=Forecast).output_parsed, Forecast
    )


def test_auto_may_answer_in_words_with_their_logprobs(client: openai.OpenAI) -> None:
    answer = chat(client, max_tokens=8, logprobs=True)
    (choice,) = answer.choices
    assert choice.message.content and choice.message.tool_calls is None and choice.finish_reason in ("length", "stop")
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    streamed = chat(client, max_tokens=8, logprobs=True, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == choice.message.content
    called = chat(client, tool_choice="required", logprobs=True, parallel_tool_calls=False)
    assert called.choices[0].logprobs.content == []


def test_tools_are_told_and_none_leaves_them_out(client: openai.OpenAI) -> None:
    plain = chat(client, tools=openai.omit, max_tokens=1).usage.prompt_tokens
    assert chat(client, tool_choice="none", max_tokens=1).usage.prompt_tokens == plain
    assert chat(client, max_tokens=1).usage.prompt_tokens > plain + 100


def test_a_cut_call_is_said_to_be_cut(client: openai.OpenAI) -> None:
    (choice,) = chat(client, tool_choice=named("get_weather"), max_tokens=30).choices
    assert choice.finish_reason == "length"


def talk(*results: tuple[str, str]) -> Any:
    call = chat_call("call_1", "get_weather", '{"city": "Rome", "days": 1}')
    other = chat_call("call_2", "clock", "{}")
    answers = [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results]
    return [*ASKED, {"role": "assistant", "content": None, "tool_calls": [call, other]}, *answers]


def chat_call(id: str, name: str, arguments: str) -> Any:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_what_came_back_is_read(client: openai.OpenAI) -> None:
    short = chat(client, messages=talk(("call_1", "sun"), ("call_2", "noon")), max_tokens=4)
    long = chat(client, messages=talk(("call_2", "noon"), ("call_1", "sun and rain and fog")), max_tokens=4)
    assert long.usage.prompt_tokens > short.usage.prompt_tokens
    assert chat(client, messages=talk(("call_1", "sun"), ("call_2", "noon")), tools=openai.omit, max_tokens=4).choices


FUNCTION = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}


def test_a_response_calls_a_function_and_takes_its_output(client: openai.OpenAI) -> None:
    given: Any = {"model": MODEL, "input": "How is Rome?", "tools": [FUNCTION], "tool_choice": "required",
                  "temperature": 0, "parallel_tool_calls": False, "max_output_tokens": 400}  # fmt: skip
    whole = client.responses.create(**given)
    (call,) = whole.output
    assert whole.status == "completed" and call.type == "function_call" and fits(call.arguments)
    assert (call.name, call.status) == ("get_weather", "completed") and call.call_id.startswith("call_")
    assert whole.tools[0].name == "get_weather" and whole.tool_choice == "required"  # type: ignore[union-attr]
    with client.responses.stream(**given) as stream:
        events: list[Any] = list(stream)
    final = events[-1].response
    assert [e.type for e in events[:3]] == ["response.created", "response.in_progress", "response.output_item.added"]
    pieces = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert "".join(pieces) == done.arguments == call.arguments == final.output[0].arguments
    assert events[-2].type == "response.output_item.done" and events[-1].type == "response.completed"
    later: Any = [{"role": "user", "content": "How is Rome?"}, call.model_dump(),
                  {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]  # fmt: skip
    after = client.responses.create(model=MODEL, input=later, tools=[FUNCTION], max_output_tokens=4)  # type: ignore[list-item]
    assert after.output_text and after.usage and whole.usage and after.usage.input_tokens > whole.usage.input_tokens


def test_a_response_with_tools_may_be_words(client: openai.OpenAI) -> None:
    given: Any = {
        "model": MODEL,
        "input": "How is Rome?",
        "tools": [FUNCTION],
        "max_output_tokens": 6,
        "temperature": 0,
    }
    with client.responses.stream(**given) as stream:
        events: list[Any] = list(stream)
    assert events[-1].response.output_text == client.responses.create(**given).output_text
    assert events[-1].response.output[0].type == "message"


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("tools", {"tools": [named("a b")]}),
    ("tools", {"tools": [CLOCK, CLOCK]}),
    ("tools[0].function.parameters", {"tools": [{"type": "function", "function": {
        "name": "f", "parameters": {"type": "array"}}}]}),
    ("tools[0].function.nme", {"tools": [{"type": "function", "function": {"name": "f", "nme": 1}}]}),
    ("tools", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "number", "multipleOf": -1}}}}}]}),
    ("tool_choice", {"tool_choice": "perhaps"}),
    ("tool_choice", {"tools": openai.omit, "tool_choice": "required"}),
    ("tool_choice.function.name", {"tool_choice": named("other")}),
    ("messages", {"messages": talk(("call_1", "sun"))}),
    ("messages[1].tool_call_id", {"messages": [*ASKED, {"role": "tool", "tool_call_id": "x", "content": "y"}]}),
    ("regex_pattern", {"extra_body": {"regex_pattern": "a+"}}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "change"), WRONG, ids=[f"{n}-{i}" for i, (n, _) in enumerate(WRONG)])
def test_what_cannot_be_called_is_refused_by_name(param: str, change: dict[str, Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        chat(client, **change)
    assert refusal.value.param == param, refusal.value
