"""What a steered completion is asked with, whichever of the two paths or the older server's it comes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from steering.api.openai.body import Fields
from steering.api.openai.errors import invalid
from steering.api.openai.parsing import MAX_TOKENS
from steering.compat.neuronpedia.wire import LARGEST, numbers_of

Method = Literal["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP", "PROJECTION_CAP"]
Type = Literal["STEERED", "DEFAULT"]
MOST_ITEMS = 64
MOST_LOGPROBS = 10


@dataclass(frozen=True)
class Turn:
    """A message as it was sent; `role` may be the model's own word for itself."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """One thing to steer by: a feature (`source` and `index`), or a vector at a hook. `model` is what it names."""

    strength: float
    source: str = ""
    index: int = 0
    hook: str = ""
    values: tuple[float, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class SteerAsk:
    """`prompt` is text, or the turns of a chat. `special` says whether special tokens of the prompt are steered."""

    prompt: str | tuple[Turn, ...]
    model: str
    method: Method
    normalize: bool
    types: tuple[Type, ...]
    items: tuple[Item, ...]
    max_tokens: int
    temperature: float
    multiplier: float
    freq_penalty: float
    seed: int
    stream: bool = False
    n_logprobs: int = 0
    special: bool = True
    assistant_axis: bool = False


def parse_completion(body: Fields) -> SteerAsk:
    """Raises ApiError for what is missing or of the wrong type."""
    return _parsed(body, body.required_text("prompt"), special=True, assistant_axis=False)


def parse_chat(body: Fields) -> SteerAsk:
    special = _flag(body, "steer_special_tokens")
    return _parsed(body, turns_of(body, "prompt"), special, body.flag("is_assistant_axis") or False)


def turns_of(body: Fields, name: str) -> tuple[Turn, ...]:
    items = body.items(name)
    if items is None:
        raise body.missing(name)
    if not items:
        raise invalid(f"'{name}' is empty. Send at least one message.", name)
    fields = [Fields(item, f"{name}.{i}") for i, item in enumerate(items)]
    return tuple(Turn(each.required_text("role"), each.required_text("content")) for each in fields)


def _parsed(body: Fields, prompt: str | tuple[Turn, ...], special: bool, assistant_axis: bool) -> SteerAsk:
    return SteerAsk(
        prompt=prompt,
        model=body.required_text("model"),
        method=cast(Method, _choice(body, "steer_method", get_args(Method))),
        normalize=_flag(body, "normalize_steering"),
        types=_types(body),
        items=all_items(body, features_of(body)),
        max_tokens=_whole(body, "n_completion_tokens", 1, MAX_TOKENS),
        temperature=_at_least_0(body, "temperature"),
        multiplier=number_of(body, "strength_multiplier"),
        freq_penalty=number_of(body, "freq_penalty"),
        seed=int(number_of(body, "seed")),
        stream=body.flag("stream") or False,
        n_logprobs=body.whole("n_logprobs", 0, MOST_LOGPROBS) or 0,
        special=special,
        assistant_axis=assistant_axis,
    )


def features_of(body: Fields) -> tuple[Item, ...]:
    """A `steering_vector` that a feature brings along is not looked at: the feature's own decoder row counts."""
    return tuple(
        Item(
            number_of(each, "strength"),
            source=each.required_text("source"),
            index=_whole(each, "index"),
            model=each.text("model") or "",
        )
        for each in items_of(body, "features")
    )


def vectors_of(body: Fields) -> tuple[Item, ...]:
    return tuple(
        Item(number_of(each, "strength"), hook=each.required_text("hook"), values=numbers_of(each, "steering_vector"))
        for each in items_of(body, "vectors")
    )


def all_items(body: Fields, features: tuple[Item, ...]) -> tuple[Item, ...]:
    """Features, then vectors, together no more than a request may have."""
    vectors = vectors_of(body)
    if (count := len(features) + len(vectors)) > MOST_ITEMS:
        name = "vectors" if vectors else "features"
        raise invalid(f"There are {count} features and vectors; {MOST_ITEMS} is the most. Send fewer.", name)
    return (*features, *vectors)


def items_of(body: Fields, name: str) -> list[Fields]:
    found = body.items(name) or []
    if len(found) > MOST_ITEMS:
        raise invalid(f"'{name}' has {len(found)} entries; {MOST_ITEMS} is the most. Send fewer.", name)
    return [Fields(item, f"{name}.{i}") for i, item in enumerate(found)]


def number_of(body: Fields, name: str) -> float:
    value = body.number(name)
    if value is None:
        raise body.missing(name)
    if abs(value) > LARGEST:
        raise body.wrong_type(name, "a number that fits into 32 bits")
    return value


def _types(body: Fields) -> tuple[Type, ...]:
    items = body.items("types")
    if items is None:
        raise body.missing("types")
    wrong = [item for item in items if item not in get_args(Type)]
    if wrong or not items or len(items) > len(set(items)):
        shown = f"{wrong[0]!r:.40} in it" if wrong else "one twice" if items else "none"
        raise invalid(f"'types' must be an array of 'STEERED' and 'DEFAULT', each once; there was {shown}.", "types")
    return tuple(items)


def _whole(body: Fields, name: str, low: int | None = None, high: int | None = None) -> int:
    value = body.whole(name, low, high)
    if value is None:
        raise body.missing(name)
    return value


def _at_least_0(body: Fields, name: str) -> float:
    value = number_of(body, name)
    if value < 0:
        raise invalid(f"'{name}' must be 0 or more, and this is {value:g}. 0 is greedy.", name)
    return value


def _choice(body: Fields, name: str, allowed: tuple[str, ...]) -> str:
    value = body.choice(name, allowed)
    if value is None:
        raise body.missing(name)
    return value


def _flag(body: Fields, name: str) -> bool:
    value = body.flag(name)
    if value is None:
        raise body.missing(name)
    return value
