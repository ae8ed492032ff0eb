"""What people type, read into the settings of a recipe."""

from __future__ import annotations

import re
from typing import Any, get_args

from django import forms

from inference.errors import InferenceError
from inference.types import ModelInfo, Operation
from steering.experiments import defaults
from steering.experiments.models import Experiment
from steering.experiments.settings import (
    LISTED,
    NAMED,
    Behaviour,
    Evaluate,
    Find,
    Settings,
    Sweep,
    Writing,
    check,
    split,
    vectors_of,
)
from steering.experiments.subjects import subjects_of
from steering.vectors.facts import Facts
from steering.vectors.forms import parse_layers
from steering.vectors.models import Vector

KINDS = [
    ("lexicon_rate", "words that show it, per 100 words"),
    ("lexicon_balance", "words that show it minus words that speak against it"),
    ("mentions", "whether any of the words occurs"),
    ("words", "length in words"),
    ("json", "whether there is JSON that parses"),
    ("list_lines", "share of lines that are points of a list"),
    ("naming", "how much likelier naming it makes the answer"),
    ("judge", "rated by the model itself: unfit on the default model"),
]
UNITS = {
    "words": "words",
    "mentions": "share of answers",
    "json": "share of answers",
    "list_lines": "share of lines",
}
BESIDES = [
    ("naming", "How much likelier naming it makes the answers"),
    ("answers", "Its pairs, by how likely the whole answers are"),
    ("letters", "Its pairs, by the letter that is picked, in both orders"),
    ("judge", "Rated by the model itself"),
]
OPERATIONS = [(operation, operation) for operation in get_args(Operation)]


class ExperimentForm(forms.Form):
    """The same fields for all recipes; each takes those that it has."""

    name = forms.CharField(required=False, max_length=120)
    vectors = forms.ModelMultipleChoiceField(
        Vector.objects.none(),
        error_messages={
            "required": "Choose a vector.",
            "invalid_choice": "That vector is gone. Choose another.",
            "invalid_pk_value": "That is no vector. Choose one of the list.",
        },
    )
    layers = forms.CharField(required=False, max_length=400)
    strengths = forms.CharField(required=False, max_length=400)
    layer = forms.IntegerField(required=False, min_value=0, max_value=10_000)
    strength = forms.FloatField(required=False)
    most = forms.FloatField(required=False)
    steps = forms.IntegerField(required=False)
    directions = forms.IntegerField(required=False)
    operations = forms.MultipleChoiceField(choices=OPERATIONS, required=False)
    prompts = forms.CharField(max_length=400_000, error_messages={"required": "Give at least one prompt, one a line."})
    held_out = forms.CharField(required=False, max_length=400_000)
    kind = forms.ChoiceField(choices=KINDS)
    better = forms.ChoiceField(choices=[("higher", "more"), ("lower", "less")])
    terms = forms.CharField(required=False, max_length=40_000)
    against = forms.CharField(required=False, max_length=40_000)
    concept = forms.CharField(required=False, max_length=400)
    wish = forms.CharField(required=False, max_length=8_000)
    chat = forms.BooleanField(required=False)
    max_tokens = forms.IntegerField()
    temperature = forms.FloatField()
    floor = forms.FloatField()
    seed = forms.IntegerField()
    beside = forms.MultipleChoiceField(choices=BESIDES, required=False)

    def __init__(self, recipe: str, *args: Any, user: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.recipe, self.user, self.model = recipe, user, model
        self.settings: Settings | None = None
        for name in ("max_tokens", "temperature", "floor", "seed", "kind", "better"):
            self.fields[name].error_messages["required"] = f"“{name.replace('_', ' ')}” is empty. Fill it in."
        self.fields["vectors"].queryset = Vector.objects.visible_to(user)  # type: ignore[attr-defined]

    def clean_layers(self) -> tuple[int, ...]:
        return parse_layers(self.cleaned_data["layers"], self.model.n_layers)

    def clean_strengths(self) -> tuple[float, ...]:
        return parse_strengths(self.cleaned_data["strengths"])

    def clean_chat(self) -> bool:
        chat = self.cleaned_data["chat"]
        if chat and self.model.id and not self.model.has_chat_template:
            raise forms.ValidationError(f"{self.model.id} has no chat template. Turn this off to continue plain text.")
        return chat

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        try:
            self.settings = self._settings(data)
            check(self.settings)
            if self.model.id:
                subjects_of(self.user, self.settings, self.model)
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
        data["name"] = data["name"].strip() or self._name(data)
        return data

    def _settings(self, data: dict[str, Any]) -> Settings:
        vectors = list(data["vectors"])
        shared: dict[str, Any] = {
            "prompts": _lines(data["prompts"]),
            "behaviour": _behaviour(data),
            "writing": Writing(
                chat=data["chat"],
                max_tokens=data["max_tokens"],
                temperature=data["temperature"],
                seed=data["seed"],
                wish=data["wish"].strip(),
            ),
            "floor": data["floor"],
        }
        operations = tuple(data["operations"]) or ("add",)
        layers = data["layers"] or defaults.near(vectors[0], defaults.FIND_LAYERS)
        if self.recipe == Experiment.Recipe.SWEEP:
            return Sweep(
                vectors=tuple(str(v.pk) for v in vectors), layers=layers, strengths=data["strengths"],
                operations=operations, directions=data["directions"] or 0, **shared,
            )  # fmt: skip
        one = {"vector": str(vectors[0].pk), "operation": operations[0]}
        if self.recipe == Experiment.Recipe.FIND:
            return self._find(data, layers, one | shared)
        facts = vectors[0].facts
        return Evaluate(
            layer=facts.layer if data["layer"] is None else data["layer"],
            strength=_strength(facts, operations[0]) if data["strength"] is None else data["strength"],
            choices=defaults.choices_of(vectors[0]) if {"answers", "letters"} & set(data["beside"]) else (),
            concept=data["concept"].strip(),
            beside=tuple(data["beside"]),
            **one, **shared,
        )  # fmt: skip

    def _find(self, data: dict[str, Any], layers: tuple[int, ...], shared: dict[str, Any]) -> Find:
        held_out = _lines(data["held_out"])
        if not held_out:
            shared["prompts"], held_out = split(shared["prompts"], data["seed"])
        given = {name: data[name] for name in ("most", "steps", "directions") if data[name] is not None}
        return Find(layers=layers, held_out=held_out, **shared, **given)

    def _name(self, data: dict[str, Any]) -> str:
        names = " and ".join(vector.name for vector in data["vectors"])
        layers = data["layers"] if self.recipe != Experiment.Recipe.EVALUATE else ()
        where = f", layers {min(layers)} to {max(layers)}" if len(layers) > 1 else ""
        return f"{names}{where}"[:120]


def _behaviour(data: dict[str, Any]) -> Behaviour:
    kind = data["kind"]
    words = {name: _terms(data[name]) for name in ("terms", "against")}
    if kind not in LISTED:
        words = {}
    elif kind != "lexicon_balance":
        words.pop("against")
    units = UNITS | defaults.UNITS
    unit = units.get(kind, "words per 100")
    concept = data["concept"].strip()  # kept with every kind: a copy may be measured by naming
    says = dict(KINDS)[kind]
    says = defaults.says_of(kind, concept) if kind in NAMED else f"{says[:1].upper()}{says[1:]}."
    return Behaviour(kind, says=says, unit=unit, better=data["better"], concept=concept, **words)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _terms(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(term.strip() for term in re.split(r"[,\n]", text) if term.strip()))


def _strength(facts: Facts, operation: str) -> float:
    return facts.dose if operation == facts.operation else facts.strength


def parse_strengths(text: str) -> tuple[float, ...]:
    """`0, 0.2, 0.4` or `0 to 0.6 by 0.1`. Empty gives ()."""
    span = re.fullmatch(r"\s*(-?[\d.]+)\s*(?:to|-)\s*(-?[\d.]+)\s*by\s*([\d.]+)\s*", text)
    try:
        if span:
            first, last, step = (float(part) for part in span.groups())
            count = round((last - first) / step) + 1 if step else 0
            if not 1 <= count <= 200:
                raise ValueError
            return tuple(round(first + i * step, 6) for i in range(count))
        return tuple(float(part) for part in re.split(r"[,;\s]+", text.strip()) if part)
    except ValueError:
        raise forms.ValidationError(
            f"“{text:.40}” is no list of strengths. Write 0.2, 0.4, 0.6, or 0 to 0.6 by 0.1."
        ) from None


def initial_of(recipe: str, settings: Settings, name: str = "") -> dict[str, Any]:
    """A form filled with settings."""
    behaviour, writing = settings.behaviour, settings.writing
    fields: dict[str, Any] = {
        "name": name, "vectors": list(vectors_of(settings)), "prompts": "\n".join(settings.prompts),
        "kind": behaviour.kind, "better": behaviour.better, "terms": ", ".join(behaviour.terms),
        "against": ", ".join(behaviour.against), "concept": behaviour.concept, "wish": writing.wish,
        "chat": writing.chat, "max_tokens": writing.max_tokens, "temperature": writing.temperature,
        "floor": settings.floor, "seed": writing.seed,
    }  # fmt: skip
    if isinstance(settings, Evaluate):
        return fields | {
            "layer": settings.layer, "strength": settings.strength, "operations": [settings.operation],
            "concept": settings.concept or behaviour.concept, "beside": list(settings.beside),
        }  # fmt: skip
    fields["layers"] = ", ".join(map(str, settings.layers))
    fields["directions"] = settings.directions
    if isinstance(settings, Sweep):
        strengths = ", ".join(f"{s:g}" for s in settings.strengths)
        return fields | {"strengths": strengths, "operations": list(settings.operations)}
    return fields | {
        "held_out": "\n".join(settings.held_out), "most": settings.most, "steps": settings.steps,
        "operations": [settings.operation],
    }  # fmt: skip
