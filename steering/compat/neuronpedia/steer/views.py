"""The two paths of steered completions."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase

from steering.access.principal import Principal
from steering.compat.neuronpedia.steer import answers
from steering.compat.neuronpedia.steer.ask import SteerAsk, parse_chat, parse_completion
from steering.compat.neuronpedia.steer.running import answered
from steering.compat.neuronpedia.wire import operation


@operation(parse_completion)
async def completion(who: Principal, ask: SteerAsk) -> dict[str, Any] | HttpResponseBase:
    return await answered(who, ask, answers.completion)


@operation(parse_chat)
async def completion_chat(who: Principal, ask: SteerAsk) -> dict[str, Any] | HttpResponseBase:
    return await answered(who, ask, answers.chat)
