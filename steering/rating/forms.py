from __future__ import annotations

import dataclasses
from typing import Any

from django import forms

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.datasets.models import Dataset
from steering.presets import library as presets
from steering.presets.models import Preset
from steering.rating import planning
from steering.vectors.models import Vector


class StudyForm(forms.Form):
    """What to rate: a preset, or a vector at a layer and strength; on prompts written here or of a dataset."""

    name = forms.CharField(required=False, max_length=120)
    question = forms.CharField(required=False, max_length=300)
    source = forms.ChoiceField(choices=[("vector", "Vector"), ("preset", "Preset")])
    vector = forms.ModelChoiceField(
        Vector.objects.none(), required=False, error_messages={"invalid_choice": "That vector is gone. Choose another."}
    )
    preset = forms.ModelChoiceField(
        Preset.objects.none(), required=False, error_messages={"invalid_choice": "That preset is gone. Choose another."}
    )
    layer = forms.IntegerField(required=False, min_value=0, max_value=9999)
    strength = forms.FloatField(required=False, min_value=-20, max_value=20)
    prompts = forms.CharField(required=False, max_length=400_000)
    dataset = forms.ModelChoiceField(
        Dataset.objects.none(),
        required=False,
        error_messages={"invalid_choice": "That dataset is gone. Choose another."},
    )
    most = forms.IntegerField(required=False, min_value=planning.LEAST, max_value=planning.MOST)
    max_tokens = forms.IntegerField(required=False, min_value=1, max_value=planning.MAX_TOKENS)
    temperature = forms.FloatField(required=False, min_value=0, max_value=5)
    seed = forms.IntegerField(required=False, min_value=0, max_value=2**53 - 1)

    DEFAULTS = {"source": "vector", "most": 20, "max_tokens": 60, "temperature": 0.7}

    def __init__(self, *args: Any, user: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.user, self.model = user, model
        fields: dict[str, Any] = self.fields
        fields["vector"].queryset = Vector.objects.visible_to(user).in_library_order()
        fields["dataset"].queryset = Dataset.objects.visible_to(user)
        fields["preset"].queryset = presets.listed(user)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors:
            try:
                data["settings"] = self._settings(data)
                data["prompts"] = self._prompts(data)
            except InferenceError as error:
                self.add_error(error.code if error.code in self.fields else None, error.message)
        return data

    def _settings(self, data: dict[str, Any]) -> planning.StudySettings:
        if data["source"] == "preset":
            if not data.get("preset"):
                raise forms.ValidationError({"preset": "Choose the preset to rate."})
            made = planning.of_preset(data["preset"], self.model)
        else:
            vector = data.get("vector")
            if not vector:
                raise forms.ValidationError({"vector": "Choose the vector to rate."})
            strength = vector.facts.dose if data.get("strength") is None else data["strength"]
            made = planning.of_vector(self.user, vector, data.get("layer"), strength, self.model)
        given: dict[str, Any] = {
            "max_tokens": data.get("max_tokens") or self.DEFAULTS["max_tokens"],
            "seed": data.get("seed"),
        }
        given["temperature"] = self.DEFAULTS["temperature"] if data.get("temperature") is None else data["temperature"]
        return dataclasses.replace(made, sampling=dataclasses.replace(made.sampling, **given))

    def _prompts(self, data: dict[str, Any]) -> list[str]:
        written = planning.prompts_of(data.get("prompts", ""))
        if data.get("dataset"):
            written += [p for p in planning.prompts_in(data["dataset"]) if p not in written]
        if len(written) < planning.LEAST:
            raise forms.ValidationError(
                {"prompts": f"Write at least {planning.LEAST} prompts, one a line, or choose a dataset that has some."}
            )
        return written[: data.get("most") or planning.MOST]
