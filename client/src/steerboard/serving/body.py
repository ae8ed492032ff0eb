"""A request's body, as OpenAI's clients and Mechanex's send it, read for a model in this process."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steerboard.local.asking import KNOWN
from steerboard.serving.wire import Refusal

IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
POLICY = ("policy", "policy_id", "include_trace")
NOT_HERE = {
    "tools": "calls of tools", "tool_choice": "calls of tools", "functions": "calls of tools",
    "logprobs": "log-probabilities", "top_logprobs": "log-probabilities", "echo": "echoes", "suffix": "insertions",
    "best_of": "choosing among several",
}  # fmt: skip
MOST_CHOICES = 16
MOST_ROWS = 128  # prompts times n: as the product's own /v1 has it
CHAT_TOKENS, COMPLETION_TOKENS = 1024, 16  # where nothing is said: as the product's own /v1 has it
EMPTY: tuple[Any, ...] = (None, False, 0, [], {}, "", "none")


@dataclass(frozen=True)
class Ask:
    """`prompts` are texts, or one conversation. `fields` are those of `local.asking`."""

    chat: bool
    prompts: list[Any]
    fields: dict[str, Any]
    model: str
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    policy: dict[str, Any] = field(default_factory=dict)


def read(path: str, body: Mapping[str, Any]) -> Ask:
    """Raises Refusal naming the field."""
    chat = path.endswith("/chat/completions")
    said = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
    _refuse_unknown(said, chat)
    fields = {name: said[name] for name in KNOWN if name in said}
    if "steering_vector_id" in said:
        if "steering_vector" in said:
            raise _bad("steering_vector_id", "Give either 'steering_vector' or 'steering_vector_id'.")
        fields["steering_vector"] = said["steering_vector_id"]
    fields |= _format(said)
    limit = said.get("max_completion_tokens", said.get("max_tokens"))
    most = CHAT_TOKENS if chat else COMPLETION_TOKENS
    fields |= {"max_tokens": most, "fit": True} if limit is None else {"max_tokens": _whole("max_tokens", limit)}
    if fields.get("logit_bias"):
        fields["logit_bias"] = {int(token): float(bias) for token, bias in fields["logit_bias"].items()}
    n = _whole("n", said.get("n", 1))
    if not 1 <= n <= MOST_CHOICES:
        raise _bad("n", f"'n' goes from 1 to {MOST_CHOICES}.")
    prompts = [_messages(said)] if chat else _prompts(said)
    if len(prompts) * n > MOST_ROWS:
        raise _bad("prompt", f"One request writes at most {MOST_ROWS} answers, and these are {len(prompts) * n}.")
    return Ask(
        chat=chat,
        prompts=prompts,
        fields=fields,
        model=str(said.get("model", "")),
        n=n,
        stream=bool(said.get("stream", False)),
        include_usage=bool((said.get("stream_options") or {}).get("include_usage")),
        policy={name: said[name] for name in POLICY if name in said},
    )


def _refuse_unknown(said: Mapping[str, Any], chat: bool) -> None:
    own = {"messages"} if chat else {"prompt"}
    known = KNOWN | own | {"model", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens",
                           "steering_vector_id", "response_format", *POLICY}  # fmt: skip
    for name, value in said.items():
        if name in NOT_HERE:
            if value not in EMPTY:
                raise _bad(
                    name, f"'{name}': there are no {NOT_HERE[name]} here. Leave it out, or ask a Steerboard server."
                )
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise _bad(name, f"Unknown parameter: '{name[:60]}'.{hint}")


def _format(said: Mapping[str, Any]) -> dict[str, Any]:
    wanted = said.get("response_format")
    if wanted is None:
        return {}
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": {"type": "object"}}
    schema = (wanted.get("json_schema") or {}).get("schema") if kind == "json_schema" else None
    if not isinstance(schema, Mapping):
        raise _bad("response_format", "'response_format' is of type text, json_object, or json_schema with a schema.")
    return {"json_schema": dict(schema)}


def _messages(said: Mapping[str, Any]) -> list[dict[str, str]]:
    given = said.get("messages")
    if not isinstance(given, list) or not given:
        raise _bad("messages", "'messages' must be an array of at least one message.")
    found = []
    for place, message in enumerate(given):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise _bad(f"messages[{place}]", "A message has a role (system, user or assistant) and content.")
        found.append({"role": "system" if role == "developer" else role, "content": _text(message, place)})
    return found


def _text(message: Mapping[str, Any], place: int) -> str:
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
        return "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise _bad(f"messages[{place}].content", "A message's content is text; nothing else is read here.")
    return content


def _prompts(said: Mapping[str, Any]) -> list[Any]:
    given = said.get("prompt")
    several = given if isinstance(given, list) else [given]
    if not several or not all(isinstance(each, str) for each in several):
        raise _bad("prompt", "'prompt' must be a string, or an array of strings.")
    return several


def _whole(name: str, value: Any) -> int:
    if type(value) is not int:
        raise _bad(name, f"'{name}' must be a whole number.")
    return value


def _bad(name: str, message: str) -> Refusal:
    return Refusal(400, message, param=name)
