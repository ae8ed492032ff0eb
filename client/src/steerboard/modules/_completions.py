"""From arguments to a body of /v1, and from its answers to text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypedDict

from steerboard import _errors
from steerboard._core import Core
from steerboard._numbers import wire_of
from steerboard._rest import events_once, get, interrupted, next_or_broken
from steerboard._sending import ask
from steerboard._wire import Close, Emit, Flow, Plan, Request
from steerboard.errors import NotFoundError, OverloadedError

UNSAID = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
TOP_K = "top-k"
DEFAULTS: dict[str, Any] = {"sampling_method": TOP_K, **UNSAID}


class Options(TypedDict, total=False):
    """How text is written, beside its prompt. What is left out is as the server has it."""

    model: str | None
    sampling_method: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    ads_subset_size: int | None
    ads_beta: float | None
    beam_width: int | None
    length_penalty: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    adaptive_temperature: bool | float | None
    adaptive_temperature_schedule: Sequence[float] | None
    adaptive_top_p: bool | None
    adaptive_top_p_schedule: Sequence[float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    steering: Mapping[str, Any] | None
    steering_vector: str | Mapping[Any, Any] | None
    steering_strength: float | None
    steering_preset: str | None
    behavior_names: Sequence[str] | None
    auto_correct: bool | None
    force_steering: Sequence[str] | bool | None
    json_schema: Mapping[str, Any] | str | None
    regex_pattern: str | None
    grammar: str | None
    response_format: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    draft_model: str | None
    speculative_steps: int | None
    ensemble_models: Sequence[str] | None
    ensemble: Mapping[str, Any] | None
    best_of_n: int | None


class Generated(str):
    """The text, which also knows how it came about.

    `finish_reason`, `usage` (tokens), `model`, `steering` (receipts), `behaviors` (what fired), `policy` and `trace`
    where a policy decided, `tool_calls` of a chat, `raw`: the whole answer.
    """

    raw: dict[str, Any]

    def __new__(cls, text: str, raw: Mapping[str, Any] | None = None) -> Self:
        made = super().__new__(cls, text)
        made.raw = dict(raw or {})
        return made

    def __getnewargs__(self) -> tuple[str, dict[str, Any]]:  # type: ignore[override]
        return str(self), self.raw

    @property
    def choice(self) -> dict[str, Any]:
        choices = self.raw.get("choices")
        return choices[0] if choices else {}

    @property
    def finish_reason(self) -> str | None:
        return self.choice.get("finish_reason")

    @property
    def usage(self) -> dict[str, Any] | None:
        return self.raw.get("usage")

    @property
    def model(self) -> str | None:
        return self.raw.get("model")

    @property
    def steering(self) -> dict[str, Any] | None:
        return self.raw.get("steering")

    @property
    def behaviors(self) -> dict[str, Any] | None:
        return self.raw.get("behaviors")

    @property
    def policy(self) -> dict[str, Any] | None:
        return self.raw.get("policy")

    @property
    def trace(self) -> dict[str, Any] | None:
        return self.raw.get("trace")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return (self.choice.get("message") or {}).get("tool_calls") or []


class Piece(Generated):
    """Some of the text, as it is written. The last one has `finish_reason`, and the receipts in `steering`."""


def body_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request. What is None is left out."""
    body = {name: value for name, value in options.items() if value is not None}
    vector = body.get("steering_vector")
    if isinstance(vector, Mapping):
        body["steering_vector"] = wire_of(vector)
    if vector is None and not body.get("steering_strength"):
        body.pop("steering_strength", None)  # 0 is what is not said; a preset then has its own
    for name in ("adaptive_temperature", "adaptive_top_p"):
        if body.get(name) is False:
            body.pop(name)
    if body.get("best_of_n") == 1:
        body.pop("best_of_n")
    for name, value in body.items():
        if name != "steering_vector":
            body[name] = _plain(value)
    return body


def _plain(value: Any) -> Any:
    """Tuples, arrays and numbers of other libraries as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    return value


def settled(options: Mapping[str, Any], others: Iterable[str]) -> dict[str, Any]:
    """Options whose method nobody chose: it is top-k, and where another's parameter is given, all of them together."""
    given = dict(options)
    if given.get("sampling_method") != TOP_K:
        return given
    mixed = [name for name in others if given.get(name) is not None]
    if given.get("top_p") in (None, UNSAID["top_p"]) and not mixed:
        return given
    if given.get("top_p") == UNSAID["top_p"]:
        given.pop("top_p")
    given.pop("sampling_method")
    return given


def model_of(core: Core, asked: str | None) -> Plan[str]:
    """The model that a request goes to: the one asked for, the client's, or the server's default."""
    chosen = asked or core.chosen_model
    if chosen:
        return chosen
    if core.served_model is None:
        about = yield from get(core, "/model/")
        if not about["id"]:
            raise OverloadedError(
                about.get("problem") or "The server has no model ready.",
                503,
                about,
                cure="Wait until it has loaded, or name a model.",
            )
        core.served_model = about["id"]
    return core.served_model


def answered(core: Core, path: str, body: dict[str, Any]) -> Plan[Generated]:
    """One text, whole."""
    asked = body.pop("model", None)
    named = yield from model_of(core, asked)
    try:
        answer = yield from ask(core, Request("POST", path, json={"model": named, **body}))
    except NotFoundError as error:
        if error.code != "model_not_found" or named != core.served_model:
            raise
        core.served_model = None  # the server has another default by now
        named = yield from model_of(core, asked)
        answer = yield from ask(core, Request("POST", path, json={"model": named, **body}))
    choice = answer["choices"][0]
    text = choice["message"].get("content") if "message" in choice else choice["text"]
    return Generated(text or "", answer)


def streamed(core: Core, path: str, body: dict[str, Any]) -> Flow:
    """Emits Piece. Raises StreamInterrupted where it breaks off; it is never asked for a second time."""
    named = yield from model_of(core, body.pop("model", None))
    request = Request("POST", path, json={"model": named, **body, "stream": True})
    yield from events_once(core, request)
    so_far = ""
    while True:
        event = yield from next_or_broken(so_far)
        if event is None:
            raise interrupted(so_far, "it ended before its last word.")
        if event.data == "[DONE]":
            yield Close()
            return
        chunk = json.loads(event.data)
        if "error" in chunk:
            raise _errors.of_event(chunk)
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta")
            text = (delta.get("content") if delta is not None else choice.get("text")) or ""
            so_far += text
            if text or choice.get("finish_reason") or (delta or {}).get("tool_calls"):
                yield Emit(Piece(text, chunk))
