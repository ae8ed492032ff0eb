"""What people choose of a behavior: how it is fitted, what it does, when it raises an alert."""

from __future__ import annotations

from typing import Any

from django import forms

from inference.errors import InferenceError
from inference.types import ModelInfo, SourceInfo
from steering.behaviors import library
from steering.behaviors.choosing import FEATURES, FITTED, Correction, feature_refs
from steering.behaviors.corrector import MOST_ATTEMPTS, MOST_SPAN
from steering.behaviors.fitting import FitSettings
from steering.behaviors.models import AlertRule, Behavior
from steering.datasets.models import Dataset
from steering.naming import MAX_DESCRIPTION, MAX_NAME, next_version
from steering.vectors.forms import parse_layers
from steering.vectors.models import Vector
from steering.vectors.uses import FEATURE_OPERATIONS

ACTIONS = [
    ("steer", "Steer"),
    ("stop", "Stop"),
    ("regenerate", "Write it again"),
    ("observe", "Only observe"),
]
KEPT = "kept"  # what the version before steers with


def _number(least: float, most: float, what: str, **more: Any) -> forms.FloatField:
    wrong = f"{what} goes from {least:g} to {most:g}."
    said = {"min_value": wrong, "max_value": wrong, "invalid": wrong, "required": wrong}
    return forms.FloatField(min_value=least, max_value=most, error_messages=said, **more)


def _whole(least: int, most: int, what: str, **more: Any) -> forms.IntegerField:
    wrong = f"{what}: write a whole number from {least} to {most}."
    said = {"min_value": wrong, "max_value": wrong, "invalid": wrong, "required": wrong}
    return forms.IntegerField(min_value=least, max_value=most, error_messages=said, **more)


class CorrectionForm(forms.Form):
    """The fields that say what is done where a detector fires."""

    action = forms.ChoiceField(choices=ACTIONS)
    steer_with = forms.CharField(required=False, max_length=60)
    strength = _number(-10_000, 10_000, "A strength", required=False)
    features = forms.CharField(required=False, max_length=2000)
    operation = forms.ChoiceField(choices=[(name, name) for name in FEATURE_OPERATIONS], required=False)
    unit = forms.ChoiceField(choices=[("raw", "raw"), ("max", "× its maximum")], required=False)
    dose = forms.ChoiceField(choices=[("fixed", "fixed"), ("proportional", "proportional")], required=False)
    span = _whole(1, MOST_SPAN, "Tokens to write again", required=False)
    attempts = _whole(1, MOST_ATTEMPTS, "Attempts", required=False)
    reads_prompt = forms.BooleanField(required=False)

    CORRECTION = {"action": "steer", "steer_with": FITTED, "dose": "fixed", "span": 16, "attempts": 3}
    CORRECTION |= {"operation": "ablate", "unit": "raw"}

    def __init__(self, *args: Any, user: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.user, self.model = user, model

    def vectors(self) -> list[Vector]:
        """Those that may be steered with: on the served model, one's own first."""
        rows = Vector.objects.visible_to(self.user).in_library_order()
        return [vector for vector in rows if vector.usable_on(self.model)]

    def clean_features(self) -> Any:
        try:
            return feature_refs(self.cleaned_data["features"])
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("action") == "steer" and data.get("steer_with") == FEATURES and data.get("features") == ():
            self.add_error("features", "Name the features to steer with, such as 9-res-4k/1203.")
        return data

    def correction(self) -> Correction:
        """Only of a valid form."""
        given = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
        chosen = self.CORRECTION | {name: given[name] for name in self.CORRECTION if name in given}
        return Correction(
            **chosen,  # type: ignore[arg-type]
            strength=self.cleaned_data["strength"],
            features=self.cleaned_data["features"],
            reads_prompt=self.cleaned_data["reads_prompt"],
        )


class FitForm(CorrectionForm):
    """A behavior from pairs. `how` says where those come from; of typed and uploaded ones the view makes a dataset."""

    how = forms.ChoiceField(choices=[(name, name) for name in ("dataset", "type", "upload")])
    dataset = forms.ModelChoiceField(
        Dataset.objects.none(),
        required=False,
        error_messages={"invalid_choice": "That dataset is gone. Choose another."},
    )
    name = forms.CharField(max_length=MAX_NAME, error_messages={"required": "Give the behavior a name, such as anger."})
    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION)
    direction = forms.ChoiceField(choices=Behavior.Direction)
    on = forms.ChoiceField(choices=[("residual", "residual"), ("features", "features")])
    source = forms.CharField(required=False, max_length=120)
    layers = forms.CharField(required=False, max_length=400)
    max_features = _whole(1, 256, "Features to read", required=False)
    false_positive_rate = _number(0.1, 50, "The rate of false alarms, in percent,")
    chat = forms.BooleanField(required=False)

    DEFAULTS = CorrectionForm.CORRECTION | {
        "how": "dataset",
        "direction": "suppress",
        "on": "residual",
        "false_positive_rate": 5,
        "max_features": 16,
        "chat": True,
    }

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = Dataset.objects.visible_to(self.user)  # type: ignore[attr-defined]

    def sources(self) -> list[SourceInfo]:
        return [source for source in self.model.sources if not source.problem]

    def clean_name(self) -> str:
        name = self.cleaned_data["name"].strip()
        try:
            library.check_name(name)
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
        return name

    def clean_layers(self) -> tuple[int, ...]:
        return parse_layers(self.cleaned_data["layers"], self.model.n_layers)

    def clean_chat(self) -> bool:
        chat = self.cleaned_data["chat"]
        if chat and self.model.id and not self.model.has_chat_template:
            raise forms.ValidationError(f"{self.model.id} has no chat template. Turn this off to read plain text.")
        return chat

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("how") == "dataset" and data.get("dataset") is None and "dataset" not in self.errors:
            self.add_error("dataset", "Choose the dataset with the pairs, or type or upload some.")
        if data.get("on") == "features" and not data.get("source"):
            self.add_error("source", "A probe on features needs a sparse autoencoder. Choose one.")
        return data

    def settings(self) -> FitSettings:
        """Only of a valid form."""
        data = self.cleaned_data
        return FitSettings(
            name=data["name"],
            description=data["description"].strip(),
            direction=data["direction"],
            on=data["on"],
            source=data["source"] if data["on"] == "features" else "",
            layers=data["layers"] if data["on"] == "residual" else (),
            max_features=data["max_features"] or 16,
            false_positive_rate=data["false_positive_rate"] / 100,
            chat=data["chat"],
            correction=self.correction(),
        )


class VersionForm(CorrectionForm):
    """The same detector with another threshold or correction."""

    version = forms.CharField(max_length=12, error_messages={"required": "A version needs a number, such as 1.1."})
    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION)
    threshold = forms.FloatField(error_messages={"required": "Say above which score it fires."})

    def __init__(self, behavior: Behavior, versions: list[str], *args: Any, **kwargs: Any):
        corrector = behavior.corrects
        first = self.CORRECTION | {
            "version": next_version(versions),
            "description": behavior.description,
            "threshold": behavior.threshold,
            "action": corrector.action,
            "steer_with": KEPT if corrector.uses else FITTED,
            "dose": corrector.dose,
            "span": corrector.span,
            "attempts": corrector.attempts,
            "reads_prompt": corrector.reads_prompt,
            "strength": corrector.uses[0].strength if len(corrector.uses) == 1 else None,
        }
        kwargs["initial"] = first | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)

    def clean_version(self) -> str:
        version = self.cleaned_data["version"].strip()
        try:
            library.check_version(version)
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
        return version


class DescriptionForm(forms.ModelForm):
    """What may change of a version that is saved: its words."""

    class Meta:
        model = Behavior
        fields = ("description",)

    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION, widget=forms.Textarea)


class RuleForm(forms.ModelForm):
    class Meta:
        model = AlertRule
        fields = ("percent", "runs", "email")

    percent = _number(0, 100, "The share of runs, in percent,")
    runs = _whole(1, 1_000_000, "Runs in a day")
    email = forms.BooleanField(required=False)
