"""A chat or completion that a policy decides: it runs to its end, then the answer is given, in a stream too."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import HttpResponseBase, JsonResponse, StreamingHttpResponse

from inference.policies.trace import Outcome
from inference.types import Message, ModelInfo
from steering.access.principal import Principal
from steering.api.openai.answer import ENDS
from steering.api.openai.ask import Ask
from steering.api.openai.catalog import resolve
from steering.api.openai.errors import invalid
from steering.api.openai.frames import STREAM_HEADERS, frames
from steering.api.openai.parsing import DEFAULT_COMPLETION_TOKENS, DEFAULT_TOKENS
from steering.api.openai.rows import while_valid
from steering.policies.running import Chosen, choose, run_now
from steering.threads import in_thread

ITS_OWN = ("max_tokens", "seed", "stop")  # what a request may say beside a policy


async def answer(who: Principal, ask: Ask) -> HttpResponseBase:
    """Raises ApiError, Denied and InferenceError with a status, since nothing is sent before the end."""
    model, chosen = await in_thread(_chosen)(who, ask)
    outcome = await _watched(who, ask, chosen, model)
    chat = ask.kind == "messages"
    head = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model.id,
        "system_fingerprint": f"fp_{model.revision[:16] or 'unknown'}",
    }
    if ask.stream:
        sent = _sent(_events(head, ask, outcome, chat))
        return StreamingHttpResponse(sent, content_type="text/event-stream", headers=STREAM_HEADERS)
    said = {"message": {"role": "assistant", "content": outcome.output, "refusal": None}}
    choice = {"index": 0, **(said if chat else {"text": outcome.output}), "logprobs": None}
    choice["finish_reason"] = _reason(outcome)
    return JsonResponse({**head, "choices": [choice], "usage": _usage(outcome), **_decided(outcome)})


def _chosen(who: Principal, ask: Ask) -> tuple[ModelInfo, Chosen]:
    assert ask.policy is not None
    model, preset = resolve(who, ask.model)
    if preset is not None:
        said = "A policy says what steers. Name the model without a preset, and the preset in the policy."
        raise invalid(said, "model")
    _check_alone(ask)
    return model, choose(who.user, policy=ask.policy.policy, policy_id=ask.policy.policy_id)


def _check_alone(ask: Ask) -> None:
    """Raises ApiError for what the policy itself decides."""
    beside = {
        "steering": ask.steering,
        "behavior_names": ask.behaviors.names or ask.behaviors.force_all,
        "n": ask.n > 1,
        "best_of": ask.best_of,
        "echo": ask.echo,
        "draft_model": ask.draft,
        "ensemble": ask.ensemble,
        "tools": ask.tools,
        ask.format.param if ask.format else "response_format": ask.format,
        **{name: name not in ITS_OWN for name in ask.sampling},
    }
    for name, given in beside.items():
        if given:
            raise invalid(f"'{name}' cannot stand beside a policy, which decides that itself. Put it there.", name)
    if ask.sampling.get("stop"):
        raise invalid("'stop' cannot stand beside a policy. Put it into its 'stop_sequences'.", "stop")
    if len(ask.prompts) != 1 or not (isinstance(ask.prompts[0], str) or isinstance(ask.prompts[0][0], Message)):
        raise invalid("A policy answers one prompt, as text. Send one.", "prompt")


async def _watched(who: Principal, ask: Ask, chosen: Chosen, model: ModelInfo) -> Outcome:
    """Runs as long as the key holds and the client waits."""
    assert ask.policy is not None
    default = DEFAULT_TOKENS if ask.kind == "messages" else DEFAULT_COMPLETION_TOKENS
    return await while_valid(
        who,
        run_now(
            who,
            chosen,
            ask.prompts[0],  # type: ignore[arg-type]
            model=model,
            max_new_tokens=ask.sampling.get("max_tokens", default),
            seed=ask.sampling.get("seed"),
            include_trace=ask.policy.include_trace,
            source="openai",
        ),
    )


def _reason(outcome: Outcome) -> str:
    return ENDS.get(outcome.finish_reason, outcome.finish_reason) or "stop"


def _usage(outcome: Outcome) -> dict[str, int]:
    """Of all candidates."""
    read, written = outcome.prompt_tokens, outcome.spent_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _decided(outcome: Outcome) -> dict[str, Any]:
    said = outcome.to_wire()
    trace = said.pop("trace")
    return {"policy": {name: value for name, value in said.items() if name != "output"}, "trace": trace}


def _events(head: dict[str, Any], ask: Ask, outcome: Outcome, chat: bool) -> Iterator[dict[str, Any]]:
    head = head | ({"object": "chat.completion.chunk"} if chat else {})
    usage = {"usage": None} if ask.include_usage else {}

    def chunk(said: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        part = {"delta": said} if chat else {"text": said.get("content", "")}
        return {**head, "choices": [{"index": 0, **part, "logprobs": None, "finish_reason": reason}], **usage}

    if chat:
        yield chunk({"role": "assistant", "content": ""})
    yield chunk({"content": outcome.output})
    yield {**chunk({}, _reason(outcome)), **_decided(outcome)}
    if ask.include_usage:
        yield {**head, "choices": [], "usage": _usage(outcome)}


async def _sent(events: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    for frame in frames(events):
        yield frame
    yield b"data: [DONE]\n\n"
