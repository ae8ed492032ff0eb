"""Steered completions as the older server had them: keyed by the types as they were sent, plain or as a chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.parsing import MAX_TOKENS
from steering.compat.neuronpedia.steer import ask as fields
from steering.compat.neuronpedia.steer.answers import Answer, conversation
from steering.compat.neuronpedia.steer.ask import Item, Method, SteerAsk, Turn, Type
from steering.compat.neuronpedia.steer.running import begin, whole
from steering.compat.neuronpedia.wire import bad
from steering.compat.older.wire import SOURCE, operation

METHODS: dict[str, Method] = {
    "simple_additive": "SIMPLE_ADDITIVE",
    "orthogonal_decomp": "ORTHOGONAL_DECOMP",
    "projection_cap": "PROJECTION_CAP",
}
TYPES: dict[str, Type] = {"steered": "STEERED", "default": "DEFAULT"}


@dataclass(frozen=True)
class OlderAsk:
    """`types` are the words that were sent, each once; `wanted.types` what they mean, each once."""

    types: tuple[str, ...]
    wanted: SteerAsk


def parse(body: Fields) -> OlderAsk:
    prompt, types = body.required_text("prompt"), _types(body)
    seed, count = fields.number_of(body, "seed"), body.whole("n_completion_tokens", 1, MAX_TOKENS)
    if count is None:
        raise body.missing("n_completion_tokens")
    temperature = fields.number_of(body, "temperature")
    if temperature < 0:
        raise bad(f"temperature must be 0 or more, and this is {temperature:g}. 0 is greedy.", "bad_temperature")
    wanted = SteerAsk(
        prompt=(Turn("user", prompt),) if body.flag("instruct") else prompt,
        model=body.required_text("model"),
        method=_method(body),
        normalize=body.flag("normalize_steering") or False,
        types=tuple(dict.fromkeys(TYPES[each.lower()] for each in types)),
        items=fields.all_items(body, _features(body)),
        max_tokens=count,
        temperature=temperature,
        multiplier=fields.number_of(body, "strength_multiplier"),
        freq_penalty=fields.number_of(body, "freq_penalty"),
        seed=int(seed),
    )
    return OlderAsk(types, wanted)


def _types(body: Fields) -> tuple[str, ...]:
    items = body.items("types")
    if not items:
        raise body.missing("types")
    for item in items:
        if not isinstance(item, str) or item.lower() not in TYPES:
            raise bad(f"Invalid completion type: {item!s:.60}. Use 'steered' and 'default'.", "completion_type")
    return tuple(dict.fromkeys(items))


def _method(body: Fields) -> Method:
    name = (body.text("steering_method") or "simple_additive").lower()
    if name not in METHODS:
        raise bad(f"Invalid steering method. Use {', '.join(METHODS)}.", "steering_method")
    return METHODS[name]


def _features(body: Fields) -> tuple[Item, ...]:
    """A feature's `layer` is a source, such as 12-gemmascope-res-16k."""
    found = fields.items_of(body, "features")
    for each in found:
        if not each.has("index"):
            raise each.missing("index")
    return tuple(
        Item(
            fields.number_of(each, "strength"),
            source=each.required_text("layer"),
            index=cast(int, each.whole("index")),
        )
        for each in found
    )


@operation(parse)
async def completion(who: Principal, wanted: OlderAsk) -> dict[str, Any]:
    answer = await whole(*await begin(who, wanted.wanted, source=SOURCE))
    return {word: _shaped(answer, TYPES[word.lower()]) for word in wanted.types}


def _shaped(answer: Answer, kind: Type) -> Any:
    """Prompt and text; of a chat the messages, the reply under the template's own name for who answers."""
    raw = answer.prompt.raw + answer.text_of(kind)
    if isinstance(answer.ask.prompt, str):
        return raw
    turns = conversation(answer, kind, answer.prompt.role)
    return {"chat_template": [{"content": turn.content, "role": turn.role} for turn in turns], "raw": raw}
