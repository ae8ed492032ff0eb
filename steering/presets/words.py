"""What a preset does and how a program calls it, in words."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, Literal

from django.contrib.auth.models import AnonymousUser
from django.urls import reverse

from inference.types import FeatureRef, Positions
from steering.accounts.models import User
from steering.datasets import starter_catalog
from steering.features.labels import best_of_refs
from steering.features.models import FeatureLabel
from steering.features.uses import layer_in_id, name_of
from steering.presets.models import Preset
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

ACTS = {
    "add": "adds the direction",
    "ablate": "removes the component along it",
    "clamp": "sets the component along it",
    "cap": "limits the component along it",
    "floor": "raises the component along it where it is less",
    "affine": "sets the component along it, counted from negative (0) to positive (1)",
    "rotate": "turns the residual towards this angle from it, its length kept",
}
FEATURE_ACTS = {
    "add": "adds its decoder direction",
    "ablate": "removes its activation",
    "clamp": "sets its activation",
    "cap": "limits its activation",
    "floor": "raises its activation where it is less",
}
SAMPLING = {
    "max_tokens": "Most new tokens",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "top_k": "Top-k",
    "min_p": "Min-p",
    "typical_p": "Typical-p",
    "ads_subset_size": "Diverse subset",
    "ads_beta": "Weight of being different",
    "adaptive_temperature": "Temperature by doubt",
    "temperature_schedule": "Temperature, token by token",
    "top_p_schedule": "Top-p, token by token",
    "beam_width": "Beams",
    "length_penalty": "Length penalty",
    "repetition_penalty": "Repetition penalty",
    "frequency_penalty": "Frequency penalty",
    "presence_penalty": "Presence penalty",
    "seed": "Seed",
    "stop": "Stop at",
}
Mode = Literal["chat", "completion"]
KEY = "STEERBOARD_API_KEY"
TOKENS = 60
PROMPT = "My neighbour parked in my spot again."


@dataclass(frozen=True)
class UseInWords:
    """`url` is empty where the reader may apply the vector but not open it."""

    name: str
    url: str
    layer: int
    operation: str
    acts: str
    strength: str
    unit: str
    places: str


def uses_in_words(preset: Preset, reader: User | AnonymousUser) -> list[UseInWords]:
    vectors = {str(vector.pk): vector for vector in preset.vectors.all()}
    uses = preset.parsed.uses
    labels = best_of_refs(reader, preset.model_id, [use.feature for use in uses if use.feature])
    return [
        _feature_use(use, use.feature, labels.get(use.feature), vectors) if use.feature else _use(use, vectors, reader)
        for use in uses
        if use.feature or use.vector in vectors
    ]


def _feature_use(use: VectorUse, ref: FeatureRef, label: FeatureLabel | None, vectors: dict[str, Vector]) -> UseInWords:
    return UseInWords(
        name=_called(ref, label),
        url=reverse("features:feature", args=[ref.source, ref.index]),
        layer=layer_in_id(ref.source),
        operation=use.operation,
        acts=FEATURE_ACTS[use.operation],
        strength=f"{use.strength:g}",
        unit=_unit(use),
        places=", ".join([places(use.positions), *details(use, vectors)]),
    )


def _use(use: VectorUse, vectors: dict[str, Vector], reader: User | AnonymousUser) -> UseInWords:
    vector = vectors[use.vector]
    return UseInWords(
        name=vector.name,
        url=vector.get_absolute_url() if vector.owner_id in (None, reader.pk) else "",
        layer=use.layer or 0,
        operation=use.operation,
        acts=ACTS[use.operation],
        strength=f"{use.strength:g}",
        unit=_unit(use),
        places=", ".join([places(use.positions), *details(use, vectors)]),
    )


def _called(ref: FeatureRef, label: FeatureLabel | None) -> str:
    if label is None:
        return f"feature {name_of(ref)}"
    return f"{label.text} ({name_of(ref)}{', as the model proposed to call it' if label.proposed else ''})"


def _unit(use: VectorUse) -> str:
    if use.operation == "rotate":
        return "°"
    if use.operation in ("ablate", "affine"):
        return ""
    return {"relative": "×", "raw": " raw", "max": " of its maximum"}[use.unit]


def details(use: VectorUse, vectors: dict[str, Vector]) -> list[str]:
    """What goes beyond the plain operation, in words."""
    said = ["the residual's length kept"] if use.norm_preserving else []
    if use.schedule:
        n = f"{use.schedule.tokens:,} generated tokens"
        said.append(
            {"first": f"the first {n}", "ramp": f"rising over {n}", "decay": f"halved every {n}"}[use.schedule.kind]
        )
    if c := use.condition:
        named = vectors.get(c.vector)
        what = "the prompt's last token" if c.pooling == "last" else "the prompt's mean"
        when = f"if {what}" if c.decided == "prompt" else "at tokens whose residual"
        kind = "a cosine" if c.measure == "cosine" else "a projection"
        along = f"with “{named.name}”" if named else "with it"
        at = "" if c.layer is None else f" at L{c.layer}"
        said.append(f"{when} has {kind} {along}{at} {c.comparison} {c.threshold:g}")
    return said


def places(positions: Positions) -> str:
    """Which tokens are touched: "generated tokens, from token 0 to before 16, special ones left alone"."""
    if positions.prompt and positions.generated:
        said = ["all tokens"]
    else:
        said = ["the prompt only" if positions.prompt else "generated tokens only" if positions.generated else "none"]
    if positions.start is not None or positions.stop is not None:
        end = "the end" if positions.stop is None else f"before {positions.stop}"
        said.append(f"from token {positions.start or 0} to {end}")
    if not positions.special:
        said.append("special tokens left alone")
    return ", ".join(said)


def sampling_in_words(preset: Preset) -> list[tuple[str, str]]:
    given = preset.parsed.sampling
    return [(words, _value(given[name])) for name, words in SAMPLING.items() if name in given]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(json.dumps(text, ensure_ascii=False) for text in value) or "nothing"
    return "drawn each time" if value is None else f"{value:g}"


# ---- calling ----


@dataclass(frozen=True)
class Call:
    """The same request from two places: a chat, or else a text to continue."""

    curl: str
    python: str
    chat: bool


def call_of(preset: Preset, model_name: str, base_url: str) -> Call:
    """How a program uses the preset, with a message that shows its effect."""
    mode, prompt = example_of(preset)
    chat = mode == "chat"
    said = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body: dict[str, Any] = {"model": model_name, **said, "max_tokens": TOKENS}
    address = f"{base_url}/{'chat/completions' if chat else 'completions'}"
    return Call(_curl(address, body), _python(base_url, model_name, prompt, chat), chat)


def example_of(preset: Preset) -> tuple[Mode, str]:
    """The mode and the prompt with which the first starter vector in it was shown to work."""
    vectors = {str(vector.pk): vector for vector in preset.vectors.all() if vector.is_starter}
    for use in preset.parsed.uses:
        vector = vectors.get(use.vector)
        if vector and (known := starter_catalog.starter(vector.slug)):
            return known.mode, known.guided_prompt
    return "chat", PROMPT


def _curl(address: str, body: dict[str, Any]) -> str:
    data = shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))
    headers = f'-H "Authorization: Bearer ${KEY}" \\\n  -H "Content-Type: application/json"'
    return f"curl {address} \\\n  {headers} \\\n  -d {data}"


def _python(base_url: str, model_name: str, prompt: str, chat: bool) -> str:
    verb = "chat.completions" if chat else "completions"
    said = repr(prompt)
    given = f'messages=[{{"role": "user", "content": {said}}}]' if chat else f"prompt={said}"
    answer = "message.content" if chat else "text"
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key=os.environ["{KEY}"])\n'
        f"answer = client.{verb}.create(\n    model={model_name!r},\n    {given},\n    max_tokens={TOKENS},\n)\n"
        f"print(answer.choices[0].{answer})\n"
    )
