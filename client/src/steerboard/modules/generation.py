"""Writing text."""

from __future__ import annotations

from steerboard._calls import AsyncSide, Module, SyncSide, call
from steerboard._sending import ask
from steerboard._wire import Plan, Request


class _Generation(Module):
    name = "generation"

    @call
    def generate(self, prompt: str, max_tokens: int = 128) -> Plan[str]:
        body = {"model": self._core.model, "prompt": prompt, "max_tokens": max_tokens}
        answer = yield from ask(self._core, Request("POST", "/v1/completions", json=body))
        return str(answer["choices"][0]["text"])


class Generation(_Generation, SyncSide):
    pass


class AsyncGeneration(_Generation, AsyncSide):
    pass
