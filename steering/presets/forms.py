from __future__ import annotations

import dataclasses
from typing import Any

from django import forms

from inference.errors import InferenceError
from inference.types import SamplingParams
from steering.naming import MAX_DESCRIPTION
from steering.presets import names
from steering.presets.content import MAX_SYSTEM_PROMPT, PresetContent
from steering.presets.models import Preset
from steering.presets.words import SAMPLING

LISTS = ("stop", "temperature_schedule", "top_p_schedule")  # kept as they are
NUMBERS = [name for name in SAMPLING if name not in LISTS]
WHOLE = {name for name in NUMBERS if isinstance(getattr(SamplingParams(), name), int)} | {"seed"}


class DescriptionForm(forms.ModelForm):
    """What may change of a version that is saved: its words."""

    class Meta:
        model = Preset
        fields = ("description",)

    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION, widget=forms.Textarea)


class VersionForm(forms.Form):
    """A preset again, with other numbers. Empty sampling fields are left to the request."""

    version = forms.CharField(max_length=12, error_messages={"required": "A version needs a number, such as 1.1."})
    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION)
    system_prompt = forms.CharField(required=False, max_length=MAX_SYSTEM_PROMPT)

    def __init__(self, preset: Preset, newest: list[str], data: Any = None):
        content = preset.parsed
        first: dict[str, Any] = {
            "version": names.next_version(newest),
            "description": preset.description,
            "system_prompt": content.system_prompt,
        }
        super().__init__(data, initial=first | {f"sampling_{n}": content.sampling.get(n) for n in NUMBERS})
        self.preset = preset
        for i, use in enumerate(content.uses):
            self.fields[f"strength_{i}"] = forms.FloatField(initial=use.strength)
        for name in NUMBERS:
            kind = forms.IntegerField if name in WHOLE else forms.FloatField
            self.fields[f"sampling_{name}"] = kind(required=False, label=SAMPLING[name])

    def clean_version(self) -> str:
        version = self.cleaned_data["version"].strip()
        try:
            names.check_version(version)
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
        return version

    def strengths(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith("strength_")]

    def samplings(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith("sampling_")]

    def content(self) -> PresetContent:
        """The preset's content with what the form changed. Only of a valid form."""
        old, given = self.preset.parsed, self.cleaned_data
        uses = tuple(
            dataclasses.replace(use, strength=given[f"strength_{i}"]) for i, use in enumerate(old.uses)
        )  # fmt: skip
        sampling = {name: value for name, value in old.sampling.items() if name not in NUMBERS}
        sampling |= {n: given[f"sampling_{n}"] for n in NUMBERS if given[f"sampling_{n}"] is not None}
        return dataclasses.replace(old, uses=uses, system_prompt=given["system_prompt"].strip(), sampling=sampling)
