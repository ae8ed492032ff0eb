"""The official Python client against a real server: it must not notice that this is not OpenAI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.text import Vocabulary
from tests.inference import tiny
from tests.openai.server import Server

MODEL = "Tiny-Llama"
MESSAGES: Any = [{"role": "system", "content": "Be calm."}, {"role": "user", "content": "The quick brown fox"}]
ENDLESS: Any = {"max_tokens": 20_000, "extra_body": {"ignore_eos": True}}
VOCABULARY = Vocabulary(tiny.tokenizer())
ASCII_ONLY = {str(i): -100 for i in range(tiny.VOCAB) if any(byte > 126 for byte in VOCABULARY.raw(i))}
Make = Callable[..., openai.OpenAI]


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    given = {"model": MODEL, "messages": MESSAGES, "max_tokens": 12, "seed": 5, "extra_body": {"ignore_eos": True}}
    return client.chat.completions.create(**(given | changes))


def complete(client: openai.OpenAI, **changes: Any) -> Any:
    given = {"model": MODEL, "prompt": "A calm reply", "max_tokens": 12, "seed": 5, "extra_body": {"ignore_eos": True}}
    return client.completions.create(**(given | changes))


# ---- models ----


def test_models_are_listed_with_the_presets_one_may_use(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [m.id for m in listed] == [MODEL, "tiny-llama::calm@1.0", "tiny-llama::polite@1.0"]
    assert all(m.object == "model" and m.created > 0 and m.owned_by for m in listed)


@pytest.mark.parametrize("name", [MODEL, MODEL.lower(), "tiny-llama::calm@1.0", "TINY-LLAMA::calm"])
def test_a_model_is_retrieved_by_name_whatever_its_case(name: str, client: openai.OpenAI) -> None:
    assert client.models.retrieve(name).id.lower() == name.lower()


@pytest.mark.parametrize("name", ["gpt-5", "tiny-llama::hidden", "tiny-llama::calm@9.9", "a/b/c"])
def test_a_model_or_preset_that_one_may_not_use_is_not_found(name: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)
    with pytest.raises(openai.NotFoundError) as refusal:
        chat(client, model=name)
    assert refusal.value.code in ("model_not_found", "preset_not_found") and refusal.value.request_id


# ---- chat ----


def test_a_chat_is_answered_with_real_counts(client: openai.OpenAI) -> None:
    answer: ChatCompletion = chat(client)
    (choice,) = answer.choices
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == MODEL
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and answer.system_fingerprint
    assert answer.usage and answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens + 12 == answer.usage.total_tokens > 12 + 8
    assert abs(answer.created - time.time()) < 600


def test_a_streamed_chat_says_the_same_as_a_whole_one(client: openai.OpenAI) -> None:
    whole = chat(client)
    chunks: list[ChatCompletionChunk] = list(chat(client, stream=True, stream_options={"include_usage": True}))
    *content, usage = chunks
    assert content[0].choices[0].delta.role == "assistant" and not content[0].choices[0].delta.content
    assert "".join(c.choices[0].delta.content or "" for c in content) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in content] == [None] * (len(content) - 1) + ["length"]
    assert all(c.usage is None for c in content)
    assert usage.choices == [] and usage.usage == whole.usage
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1 and len(content) > 5


def test_without_stream_options_no_usage_is_sent(client: openai.OpenAI) -> None:
    assert all(chunk.choices and chunk.usage is None for chunk in chat(client, stream=True))


def test_the_clients_own_stream_helper_assembles_the_answer(client: openai.OpenAI) -> None:
    given: Any = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "logprobs": True, "stop": ["e"]}
    with client.chat.completions.stream(**given, max_tokens=300) as stream:
        final = stream.get_final_completion()
    whole = client.chat.completions.create(**given, max_tokens=300)
    assert final.choices[0].message.content == whole.choices[0].message.content


def test_history_and_an_answer_to_continue_are_read(client: openai.OpenAI) -> None:
    longer = [*MESSAGES, {"role": "assistant", "content": "jumps over"}, {"role": "user", "content": "the lazy dog"}]
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "The quick"}, {"type": "text", "text": "fox"}]}]
    resumed: Any = [{"role": "developer", "content": "Be calm."}, {"role": "assistant", "content": "The quick"}]
    counts = [chat(client, messages=m).usage.prompt_tokens for m in (MESSAGES, longer, parts, resumed)]
    assert counts[1] > counts[0] and min(counts) > 3


@pytest.mark.parametrize("seed", [5, -3, 2**62])
def test_a_seed_repeats_and_n_gives_different_answers(seed: int, client: openai.OpenAI) -> None:
    texts = [[c.message.content for c in chat(client, n=3, seed=seed).choices] for _ in range(2)]
    assert texts[0] == texts[1] and len(set(texts[0])) == 3
    assert chat(client, seed=seed).choices[0].message.content == texts[0][0]


def test_n_streamed_choices_are_told_apart(client: openai.OpenAI) -> None:
    whole = chat(client, n=3)
    texts = {0: "", 1: "", 2: ""}
    for chunk in chat(client, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [*texts.values()] == [c.message.content for c in whole.choices]
    assert whole.usage.completion_tokens == 36


def test_a_stop_string_across_tokens_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    given = {"max_tokens": 60, "temperature": 0, "logit_bias": ASCII_ONLY}
    text = chat(client, **given).choices[0].message.content
    stop = text[7:12]
    for streamed in (False, True):
        answer = chat(client, stop=[stop, "never there"], logprobs=True, stream=streamed, **given)
        chunks = list(answer) if streamed else []
        found = "".join(c.choices[0].delta.content or "" for c in chunks) or answer.choices[0].message.content
        reason = chunks[-1].choices[0].finish_reason if chunks else answer.choices[0].finish_reason
        entries = [e for c in chunks for e in (c.choices[0].logprobs.content if c.choices[0].logprobs else [])]
        entries = entries or answer.choices[0].logprobs.content
        assert (found, reason) == (text[: text.index(stop)], "stop")
        assert "".join(e.token for e in entries) == found
        assert b"".join(bytes(e.bytes) for e in entries).decode() == found


@pytest.mark.parametrize("seed", range(4))
def test_logprobs_join_to_the_text_as_strings(seed: int, client: openai.OpenAI) -> None:
    answer = chat(client, logprobs=True, top_logprobs=4, temperature=2, seed=seed, max_tokens=60)
    entries = answer.choices[0].logprobs.content
    assert "".join(e.token for e in entries) == answer.choices[0].message.content
    assert all(len(e.top_logprobs) == 4 and e.logprob <= 0 for e in entries)
    assert all(e.top_logprobs[0].logprob >= e.logprob for e in entries)
    streamed = chat(client, logprobs=True, top_logprobs=4, temperature=2, seed=seed, max_tokens=60, stream=True)
    again = [e for c in streamed if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [(e.token, e.bytes, e.logprob) for e in again] == [(e.token, e.bytes, e.logprob) for e in entries]


def test_bytes_of_a_character_over_several_tokens_join_to_it(client: openai.OpenAI) -> None:
    ids = tiny.tokenizer()("猫")["input_ids"]
    written = []
    for i, id in enumerate(ids):  # each forced after those before
        answer = complete(client, prompt=[40, *ids[:i]], max_tokens=1, logit_bias={str(id): 100}, echo=True, logprobs=0)
        written.append(answer.choices[0].logprobs.tokens[-1])
    assert written == ["\ufffd", "\ufffd", "猫"]  # what is torn at the end of a text has no character
    chatted = chat(client, logit_bias={str(ids[0]): 100}, max_tokens=1, logprobs=True).choices[0].logprobs.content
    assert [entry.bytes for entry in chatted] == [[0xE7]]


def test_a_bias_forces_a_token(client: openai.OpenAI) -> None:
    answer = chat(client, logit_bias={"70": 100}, max_tokens=3, logprobs=True)
    assert len({e.token for e in answer.choices[0].logprobs.content}) == 1


def test_without_a_limit_an_answer_ends_by_itself_or_at_the_servers_limit(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, stop="e")
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert chat(client, max_tokens=openai.omit, max_completion_tokens=3).usage.completion_tokens == 3


# ---- completions ----


def test_prompts_come_as_text_as_ids_and_in_lists(client: openai.OpenAI) -> None:
    ids = [40, 41, 42]
    both = complete(client, prompt=["A calm reply", "The quick"], n=2)
    assert [c.index for c in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == complete(client).choices[0].text
    assert both.choices[3].text == complete(client, prompt="The quick", n=2).choices[1].text
    assert both.usage.completion_tokens == 48
    listed = complete(client, prompt=[ids, ids[:2]], temperature=0)
    assert listed.choices[0].text == complete(client, prompt=ids, temperature=0).choices[0].text
    assert listed.usage.prompt_tokens == 5


def test_a_completion_streams_and_counts(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks[:-1]) == complete(client).choices[0].text
    assert chunks[-2].choices[0].finish_reason == "length" and chunks[-1].usage.completion_tokens == 12
    assert complete(client, max_tokens=openai.omit).usage.completion_tokens == 16


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("prompt", ["A calm 猫 reply", [40, 41, 42, 250, 43]])
def test_echoed_logprobs_join_to_prompt_and_answer(prompt: Any, streamed: bool, client: openai.OpenAI) -> None:
    answer = complete(client, prompt=prompt, echo=True, logprobs=2, temperature=1.5, max_tokens=20, stream=streamed)
    choices = [c.choices[0] for c in answer] if streamed else answer.choices
    text = "".join(c.text for c in choices)
    lists = [c.logprobs for c in choices if c.logprobs]
    tokens, values, tops, offsets = (
        [each for found in lists for each in getattr(found, name)]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    )
    assert "".join(tokens) == text and (isinstance(prompt, list) or text.startswith(prompt))
    assert values[0] is None and tops[0] is None and all(v <= 0 for v in values[1:])
    assert all(2 <= len(top) <= 3 and max(top.values()) >= v for top, v in zip(tops[1:], values[1:], strict=True))
    assert [text[o : o + len(t)] for t, o in zip(tokens, offsets, strict=True)] == tokens


def test_a_prompt_alone_is_echoed_and_counted(client: openai.OpenAI) -> None:
    answer = complete(client, echo=True, max_tokens=0, logprobs=1)
    assert answer.choices[0].text == "A calm reply" and answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.prompt_tokens
    assert complete(client, echo=True, max_tokens=0).choices[0].logprobs is None


# ---- responses ----


def test_a_response_whole_and_streamed(client: openai.OpenAI) -> None:
    given: Any = {"model": MODEL, "input": "The quick brown fox", "instructions": "Be calm.", "temperature": 0,
                  "max_output_tokens": 9, "extra_body": {"ignore_eos": True}}  # fmt: skip
    whole = client.responses.create(**given)
    assert whole.id.startswith("resp_") and whole.output_text and whole.status == "incomplete"
    assert whole.incomplete_details and whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage and whole.usage.output_tokens == 9
    with client.responses.stream(**given) as stream:
        events: list[Any] = list(stream)
    final = events[-1].response
    assert final.output_text == whole.output_text and final.usage == whole.usage
    assert [e.sequence_number for e in events] == sorted(e.sequence_number for e in events)
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text


def test_a_response_reads_a_conversation_and_gives_logprobs(client: openai.OpenAI) -> None:
    talk: Any = [*MESSAGES, {"role": "assistant", "content": [{"type": "output_text", "text": "jumps"}]},
                 {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "over"}]}]  # fmt: skip
    answer = client.responses.create(
        model=MODEL, input=talk, max_output_tokens=5, include=["message.output_text.logprobs"], top_logprobs=2
    )
    part: Any = answer.output[0].content[0]  # type: ignore[union-attr]
    assert "".join(entry.token for entry in part.logprobs) == answer.output_text


@pytest.mark.parametrize("field", [{"previous_response_id": "resp_1"}, {"background": True}, {"conversation": "c"}])
def test_what_needs_state_is_refused_by_name(field: dict[str, Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model=MODEL, input="Hi", **field)
    assert refusal.value.param == next(iter(field)) and refusal.value.code == "unsupported_parameter"


# ---- errors ----


def test_a_bad_key_is_an_authentication_error(server: Server, client_of: Make) -> None:
    for key in ("sk-wrong", server.key("expired"), "sk-sb-0000000000-11"):
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        for ask in (client.models.list, lambda c=client: chat(c), lambda c=client: chat(c, stream=True)):
            with pytest.raises(openai.AuthenticationError) as refusal:
                ask()
            assert refusal.value.code == "invalid_api_key" and refusal.value.status_code == 401
    with pytest.raises(openai.PermissionDeniedError):
        chat(client_of("scopeless"))
    with pytest.raises(openai.PermissionDeniedError) as denied:
        chat(client_of("narrow"))
    assert "another-model" in str(denied.value) and client_of("narrow").models.list().data == []


def test_a_spent_quota_is_said_once_and_not_tried_again(client_of: Make) -> None:
    client = client_of("poor", max_retries=2)
    used, began = 0, time.monotonic()
    with pytest.raises(openai.RateLimitError) as refusal:
        while True:
            answer = complete(client, prompt="A calm", max_tokens=5)
            used += answer.usage.total_tokens
    assert refusal.value.code == "insufficient_quota" and refusal.value.type == "insufficient_quota"
    assert 60 - 20 < used <= 60 and time.monotonic() - began < 60
    assert refusal.value.response.headers["x-should-retry"] == "false"


def test_too_many_requests_say_when_to_come_back(client_of: Make) -> None:
    client = client_of("slow")
    first = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    assert first.headers["x-ratelimit-limit-requests"] == "1" and first.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as refusal:
        chat(client)
    assert refusal.value.code == "rate_limit_exceeded"
    assert 0 < int(refusal.value.response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_that_is_too_long_is_a_bad_request(streamed: bool, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        complete(client, prompt=[40] * 40_001, max_tokens=1, stream=streamed)
    assert refusal.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refusal:
        chat(client, max_tokens=50_000, stream=streamed)
    assert refusal.value.code == "context_length_exceeded" and refusal.value.param == "max_tokens"


UNSUPPORTED: list[tuple[str, dict[str, Any]]] = [
    ("tools[0].type", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}),
    ("functions", {"functions": [{"name": "f"}]}),
    ("function_call", {"function_call": {"name": "f"}}),
    ("modalities", {"modalities": ["text", "audio"]}),
    ("reasoning_effort", {"reasoning_effort": "high"}),
    ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
    ("messages[0].role", {"messages": [{"role": "function", "content": "x", "name": "f"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "change"), UNSUPPORTED, ids=[name for name, _ in UNSUPPORTED])
def test_what_is_not_done_here_is_refused_by_name(param: str, change: dict[str, Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        chat(client, **change)
    assert refusal.value.param == param and refusal.value.code == "unsupported_parameter"


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {"temperature": -1}),
    ("temperature", {"temperature": "hot"}),
    ("top_p", {"top_p": 0}),
    ("n", {"n": 0}),
    ("n", {"n": 1000}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": True}),
    ("stop", {"stop": [""]}),
    ("stop", {"stop": [3]}),
    ("logit_bias", {"logit_bias": {"cat": 1}}),
    ("logit_bias", {"logit_bias": {"5": 200}}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("messages", {"messages": []}),
    ("messages[0].role", {"messages": [{"role": "wizard", "content": "x"}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": None}]}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("temprature", {"extra_body": {"temprature": 1}}),
]


@pytest.mark.parametrize(("param", "change"), WRONG, ids=[f"{n}-{i}" for i, (n, _) in enumerate(WRONG)])
def test_what_is_wrong_is_refused_by_name(param: str, change: dict[str, Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        chat(client, **change)
    assert refusal.value.param == param and refusal.value.type == "invalid_request_error"
    assert refusal.value.message and refusal.value.body


def test_what_changes_nothing_is_accepted(client: openai.OpenAI) -> None:
    assert chat(
        client, user="me", metadata={"a": "b"}, store=False, parallel_tool_calls=True, tool_choice="none",
        response_format={"type": "text"}, frequency_penalty=0.5, presence_penalty=0.5, top_p=0.9,
        extra_body={"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.1, "ignore_eos": True},
    ).choices  # fmt: skip


def test_every_answer_names_its_request(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert answer._request_id.startswith("req_")
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    assert int(raw.headers["openai-processing-ms"]) >= 0 and raw.headers["openai-version"]


# ---- many, and gone ----


async def test_thirty_two_at_once_are_answered_each_as_alone(server: Server, client: openai.OpenAI) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key(), max_retries=0) as many:
        asked = [chat(many, seed=i, n=1, stream=False) for i in range(32)]  # type: ignore[arg-type]
        answers = await asyncio.gather(*asked)
    texts = [answer.choices[0].message.content for answer in answers]
    assert len(set(texts)) > 16
    for i in (0, 13, 31):
        assert texts[i] == chat(client, seed=i).choices[0].message.content


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_goes_away_stops_its_rows(streamed: bool, server: Server) -> None:
    server.until("rows", 0)
    mine = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key(), max_retries=0)
    with server.slow():
        async with mine as client:
            asked: Any = chat(client, n=2, stream=streamed, **ENDLESS)  # type: ignore[arg-type]
            if streamed:
                stream = await asked
                async for _ in stream:
                    break
            else:
                waiting = asyncio.create_task(asked)
            await asyncio.to_thread(server.until, "rows", 2)
            if streamed:
                await stream.close()
            else:
                waiting.cancel()
            seconds = await asyncio.to_thread(server.until, "rows", 0)
            await asyncio.to_thread(server.until, "ledger", 0)
    assert seconds < 15  # the 20,000 tokens would take far longer


def test_a_revoked_key_stops_its_stream_with_an_error(client_of: Make, server: Server) -> None:
    with server.slow():
        stream = chat(client_of("doomed"), stream=True, **ENDLESS)
        next(iter(stream))
        server.ask("revoke doomed")
        assert server.until("rows", 0) < 15  # 5 on a machine that is not busy; the tokens would take far longer
    with pytest.raises(openai.APIError) as end:
        list(stream)  # what lies in buffers comes first
    assert end.value.code == "invalid_api_key" and "revoked" in end.value.message
    with pytest.raises(openai.AuthenticationError):
        chat(client_of("doomed"))
