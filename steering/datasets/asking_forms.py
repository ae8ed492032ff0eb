"""What to ask the model for, when it is to write pairs."""

from __future__ import annotations

from typing import Any, get_args

from django import forms

from inference.errors import InvalidRequest
from inference.persona import LONGEST_TRAIT, Contrast, DescribedPairs, Judge, PersonaPairs, check
from inference.types import ModelInfo
from steering.datasets.asking import Asked

HOW = (("description", "Short replies"), ("persona", "Persona"))
FIELD_OF = {
    "no_trait": "trait",
    "trait_too_long": "trait",
    "same_sides": "opposite",
    "pair_count": "count",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "rounds": "rounds",
    "seed": "seed",
}


class AskForm(forms.Form):
    """Gives `asked`, the request, once it is valid. What is left empty is the recipe's own default."""

    how = forms.ChoiceField(choices=HOW, required=False)
    trait = forms.CharField(required=False, max_length=LONGEST_TRAIT)
    opposite = forms.CharField(required=False, max_length=LONGEST_TRAIT)
    name = forms.CharField(required=False, max_length=120)
    count = forms.IntegerField(required=False)
    judge = forms.ChoiceField(choices=[(name, name) for name in get_args(Judge)], required=False)
    max_tokens = forms.IntegerField(required=False)
    temperature = forms.FloatField(required=False)
    rounds = forms.IntegerField(required=False)
    seed = forms.IntegerField(required=False)
    prompts = forms.CharField(required=False, max_length=40_000)
    positive = forms.CharField(required=False, max_length=20_000)
    negative = forms.CharField(required=False, max_length=20_000)

    DEFAULTS = {"how": "description", "judge": "auto"}

    def __init__(self, *args: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model = model

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        if data.get("how") == "persona" and self.model.id and not self.model.has_chat_template:
            self.add_error("how", f"{self.model.id} has no chat template. Choose short replies, which need none.")
        systems = _lines(data["positive"]), _lines(data["negative"])
        if len(systems[0]) != len(systems[1]):
            counts = f"{len(systems[0])} system prompts for the positive side and {len(systems[1])} for the negative"
            self.add_error("positive", f"There are {counts}: each needs its counterpart, one a line.")
            return data
        self.asked = self._asked(data, tuple(map(Contrast, *systems)))
        try:
            check(self.asked)
        except InvalidRequest as error:
            self.add_error(FIELD_OF.get(error.code), error.message)
        return data

    def _asked(self, data: dict[str, Any], instructions: tuple[Contrast, ...]) -> Asked:
        names = ("count", "judge", "max_tokens", "temperature", "rounds", "seed")
        chosen = {name: data[name] for name in names if data[name] not in (None, "")}
        chosen |= {"id": "", "opposite": data["opposite"]}
        prompts = _lines(data["prompts"])
        if data["how"] == "persona":
            return PersonaPairs(trait=data["trait"], questions=prompts, instructions=instructions, **chosen)
        return DescribedPairs(description=data["trait"], situations=prompts, **chosen)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
