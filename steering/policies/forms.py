"""What people type on the pages of policies, read into prompts, settings and search spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.datasets.models import Dataset
from steering.naming import MAX_DESCRIPTION, MAX_NAME
from steering.policies import library
from steering.policies.fields import FIELDS, number
from steering.policies.models import PolicyPreset, PolicyRun, StoredPolicy
from steering.policies.starting import MAX_NEW_TOKENS, MOST_AT_ONCE, MOST_TRIALS, as_prompt, asking_of


def _whole(low: int, high: int, what: str, **options: Any) -> forms.IntegerField:
    said = f"{what} must be a whole number from {low} to {high:,}."
    errors = dict.fromkeys(("invalid", "required", "min_value", "max_value"), said)
    return forms.IntegerField(min_value=low, max_value=high, error_messages=errors, **options)


class AskForm(forms.Form):
    """What all kinds of runs share."""

    policies = forms.ModelMultipleChoiceField(
        StoredPolicy.objects.none(),
        error_messages={
            "required": "Choose a policy.",
            "invalid_choice": "That policy is gone, or is no longer shared. Choose another.",
            "invalid_pk_value": "That is no policy. Choose one of the list.",
        },
    )
    chat = forms.BooleanField(required=False)
    system = forms.CharField(required=False, max_length=40_000)
    max_new_tokens = _whole(1, MAX_NEW_TOKENS, "Tokens an answer")
    seed = _whole(0, 2**53 - 1, "The seed", required=False)

    kind: str = PolicyRun.Kind.RUN
    DEFAULTS: Mapping[str, Any] = {"chat": True, "max_new_tokens": 128}

    def __init__(self, data: Any = None, *, user: Any, model: ModelInfo, initial: Mapping[str, Any] | None = None):
        first = {**self.DEFAULTS, **(initial or {})}
        if model.id and not model.has_chat_template:
            first["chat"] = False
        super().__init__(data, initial=first)
        self.user, self.model = user, model
        self.asked: dict[str, Any] = {}
        self.fields["policies"].queryset = library.listed(user)  # type: ignore[attr-defined]

    def clean_chat(self) -> bool:
        chat = bool(self.cleaned_data["chat"])
        if chat and self.model.id and not self.model.has_chat_template:
            raise forms.ValidationError(f"{self.model.id} has no chat template. Turn this off to continue plain text.")
        return chat

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        try:
            texts = self.texts(data)
            prompts = [as_prompt(text, chat=data["chat"], system=data["system"].strip()) for text in texts]
            asked = {"max_new_tokens": data["max_new_tokens"], "seed": data["seed"]}
            self.asked = asking_of(self.kind, prompts, **asked, **self.more(data))
        except InferenceError as error:
            self.add_error(error.code if error.code in self.fields else None, error.message)
        return data

    def texts(self, data: Mapping[str, Any]) -> list[str]:
        raise NotImplementedError

    def more(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {}


class RunForm(AskForm):
    """One policy on a prompt, or up to four side by side."""

    prompt = forms.CharField(
        max_length=100_000, strip=False, error_messages={"required": "Write a prompt: it is what the policy answers."}
    )

    def clean_policies(self) -> list[StoredPolicy]:
        chosen = list(self.cleaned_data["policies"])
        if len(chosen) > 4:
            raise forms.ValidationError(f"Four policies can be compared at most, and these are {len(chosen)}.")
        self.kind = PolicyRun.Kind.RUN if len(chosen) == 1 else PolicyRun.Kind.COMPARE
        return chosen

    def texts(self, data: Mapping[str, Any]) -> list[str]:
        return [data["prompt"].replace("\r\n", "\n")]


class PromptsForm(AskForm):
    """Over many prompts: pasted, one a line, or the prompts of a dataset."""

    how = forms.ChoiceField(choices=[("paste", "paste"), ("dataset", "dataset")])
    prompts = forms.CharField(required=False, max_length=400_000)
    dataset = forms.ModelChoiceField(
        Dataset.objects.none(),
        required=False,
        error_messages={"invalid_choice": "That dataset is gone. Choose another."},
    )
    column = forms.ChoiceField(choices=[(name, name) for name in ("prompt", "positive", "negative")], required=False)
    at_once = _whole(1, MOST_AT_ONCE, "Prompts at once")

    DEFAULTS = {**AskForm.DEFAULTS, "how": "paste", "column": "prompt", "at_once": 1}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["dataset"].queryset = Dataset.objects.visible_to(self.user)  # type: ignore[attr-defined]

    def clean_policies(self) -> list[StoredPolicy]:
        chosen = list(self.cleaned_data["policies"])
        if len(chosen) != 1:
            raise forms.ValidationError("Choose one policy.")
        return chosen

    def texts(self, data: Mapping[str, Any]) -> list[str]:
        if data["how"] == "paste":
            return [line.strip() for line in data["prompts"].splitlines() if line.strip()]
        if data["dataset"] is None:
            self.add_error("dataset", "Choose the dataset whose prompts are to be answered.")
            return ["-"]
        return texts_of(data["dataset"], data["column"] or "prompt")

    def more(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"at_once": data["at_once"]}


def texts_of(dataset: Dataset, column: str) -> list[str]:
    """Each text of a column once, in their order."""
    return [text for text in dict.fromkeys(dataset.examples.values_list(column, flat=True)) if text.strip()]


class EvaluateForm(PromptsForm):
    kind = PolicyRun.Kind.EVALUATE


SPACE_FIELDS = tuple(
    path
    for path, field in FIELDS.items()
    if field.kind in ("number", "whole", "flag", "choice")
    and not path.startswith(("objective", "task_profile", "model"))
    and path != "verifiers.unit_test_timeout_ms"
)  # fmt: skip
SPACE_ROWS = 6


class TuneForm(PromptsForm):
    """A search space of up to six fields, each with the values to try."""

    kind = PolicyRun.Kind.TUNE
    search = forms.ChoiceField(choices=[("grid", "grid"), ("random", "random")])
    max_trials = _whole(1, MOST_TRIALS, "Trials")
    token_budget = _whole(1, 10_000_000, "The token budget", required=False)

    DEFAULTS = {
        **PromptsForm.DEFAULTS,
        "search": "grid",
        "max_trials": 12,
        "max_new_tokens": 64,
        "space_0": "sampling.temperature",
        "values_0": "0.2, 0.7, 1.0",
        "space_1": "optimization.best_of_n",
        "values_1": "1, 4",
    }

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for row in range(SPACE_ROWS):
            self.fields[f"space_{row}"] = forms.ChoiceField(
                choices=[("", "nothing"), *((path, path) for path in SPACE_FIELDS)], required=False
            )
            self.fields[f"values_{row}"] = forms.CharField(required=False, max_length=400)

    def rows(self) -> list[tuple[Any, Any]]:
        return [(self[f"space_{row}"], self[f"values_{row}"]) for row in range(SPACE_ROWS)]

    def more(self, data: Mapping[str, Any]) -> dict[str, Any]:
        said = {name: data[name] for name in ("search", "max_trials", "token_budget")}
        return super().more(data) | said | {"space": self._space(data)}

    def _space(self, data: Mapping[str, Any]) -> dict[str, list[Any]]:
        space: dict[str, list[Any]] = {}
        for row in range(SPACE_ROWS):
            path, text = data.get(f"space_{row}"), data.get(f"values_{row}", "")
            if not path:
                continue
            if path in space:
                self.add_error(f"space_{row}", f"{path} is there twice. Put all its values in one line.")
            values = parse_values(path, text)
            if not values:
                self.add_error(f"values_{row}", f"Give the values of {path} to try, with commas between.")
            space[path] = values
        return space


def parse_values(path: str, text: str) -> list[Any]:
    """The values of a field as they are typed: with commas between, "yes" and "no" for what is on or off."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if FIELDS[path].kind == "flag":
        said = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
        return [said.get(part.lower(), part) for part in parts]
    return [number(part) if FIELDS[path].kind in ("number", "whole") else part for part in parts]


# ---- words around a policy ----


class DescriptionForm(forms.Form):
    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION, widget=forms.Textarea)


class CloneForm(forms.Form):
    name = forms.CharField(required=False, max_length=MAX_NAME)


class PublishForm(forms.Form):
    name = forms.CharField(max_length=120, error_messages={"required": "Give the preset a name."})
    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION)
    tags = forms.CharField(required=False, max_length=600)
    visibility = forms.ChoiceField(choices=PolicyPreset.Visibility)

    def clean_tags(self) -> list[str]:
        try:
            return library.check_tags(self.cleaned_data["tags"].split(","))
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
