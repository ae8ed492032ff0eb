"""Programs to copy: the same request in curl, Python and JavaScript, steered where there is something to steer with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inference.types import ModelInfo

PLAIN_PROMPT = "Write one sentence about the sea."
ANSWER_TOKENS = 60
TEMPERATURE = 0.4  # OpenAI's 1 is too hot for small models
UNKNOWN_MODEL = "MODEL"  # while none is loaded


@dataclass(frozen=True)
class Example:
    """A question whose answer shows what steering does; `steering` is what the request's body says of it."""

    prompt: str = PLAIN_PROMPT
    steering: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snippet:
    language: str
    title: str
    code: str


_finders: list[Callable[[ModelInfo], Example | None]] = []


def offers_examples(finder: Callable[[ModelInfo], Example | None]) -> Callable[[ModelInfo], Example | None]:
    """Name a function that knows something to steer a model with; to be imported when Django starts."""
    _finders.append(finder)
    return finder


def example_on(model: ModelInfo) -> Example:
    return next((example for find in _finders if (example := find(model))), Example())


def chat_snippets(base: str, secret: str, model: ModelInfo) -> list[Snippet]:
    """`base` is the address of the OpenAI-compatible API, ending in /v1."""
    example, name = example_on(model), model.id or UNKNOWN_MODEL
    return [
        Snippet("curl", "curl", _curl(base, secret, name, example)),
        Snippet("python", "Python", _python(base, secret, name, example)),
        Snippet("javascript", "JavaScript", _javascript(base, secret, name, example)),
    ]


def steered_snippets(base: str, secret: str, model: str, example: Example) -> list[Snippet]:
    """The same request to a model named by its id, steered as `example` says."""
    return [
        Snippet("curl", "curl", _curl(base, secret, model, example)),
        Snippet("python", "OpenAI client", _python(base, secret, model, example)),
    ]


def list_snippets(address: str, secret: str) -> list[Snippet]:
    """For keys that may not generate: read a list of the REST API."""
    auth = json.dumps(f"Bearer {secret}")
    curl = f'curl {address} \\\n  -H "Authorization: Bearer {secret}"'
    python = (
        "# pip install requests\nimport requests\n\n"
        f'answer = requests.get({json.dumps(address)}, headers={{"Authorization": {auth}}})\n'
        "answer.raise_for_status()\nprint(answer.json())"
    )
    javascript = (
        f"const answer = await fetch({json.dumps(address)}, {{\n  headers: {{ Authorization: {auth} }},\n}});\n"
        "console.log(await answer.json());"
    )
    return [
        Snippet("curl", "curl", curl),
        Snippet("python", "Python", python),
        Snippet("javascript", "JavaScript", javascript),
    ]


def _curl(base: str, secret: str, model: str, example: Example) -> str:
    body: dict[str, Any] = {"model": model, "messages": _messages(example), "max_tokens": ANSWER_TOKENS}
    body["temperature"] = TEMPERATURE
    if example.steering:
        body["steering"] = example.steering
    text = json.dumps(body, ensure_ascii=False, indent=2).replace("'", "'\\''")
    return (
        f"curl {base}/chat/completions \\\n"
        f'  -H "Authorization: Bearer {secret}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{text}'"
    )


def _python(base: str, secret: str, model: str, example: Example) -> str:
    lines = [
        "# pip install openai",
        "from openai import OpenAI",
        "",
        f"client = OpenAI(base_url={_quoted(base)}, api_key={_quoted(secret)})",
        "answer = client.chat.completions.create(",
        f"    model={_quoted(model)},",
        f"    messages={_quoted(_messages(example))},",
        f"    max_tokens={ANSWER_TOKENS},",
        f"    temperature={TEMPERATURE},",
    ]
    if example.steering:
        lines.append(f'    extra_body={{"steering": {_quoted(example.steering)}}},  # leave out: the model as it is')
    return "\n".join([*lines, ")", "print(answer.choices[0].message.content)"])


def _javascript(base: str, secret: str, model: str, example: Example) -> str:
    lines = [
        "// npm install openai; save this as ask.mjs and start it with: node ask.mjs",
        'import OpenAI from "openai";',
        "",
        f"const client = new OpenAI({{ baseURL: {_quoted(base)}, apiKey: {_quoted(secret)} }});",
        "const answer = await client.chat.completions.create({",
        f"  model: {_quoted(model)},",
        f"  messages: {_quoted(_messages(example))},",
        f"  max_tokens: {ANSWER_TOKENS},",
        f"  temperature: {TEMPERATURE},",
    ]
    if example.steering:
        lines.append(f"  steering: {_quoted(example.steering)}, // leave out: the model as it is")
    return "\n".join([*lines, "});", "console.log(answer.choices[0].message.content);"])


def _messages(example: Example) -> list[dict[str, str]]:
    return [{"role": "user", "content": example.prompt}]


def _quoted(value: Any) -> str:
    """As JSON, which Python and JavaScript read alike for texts, numbers, lists and objects."""
    return json.dumps(value, ensure_ascii=False)
