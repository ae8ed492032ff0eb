from __future__ import annotations

import re
from typing import Any

from django import forms
from django.conf import settings

from inference.types import CreateVector, ModelInfo
from steering.datasets.models import Dataset
from steering.vectors import builds
from steering.vectors.methods import Method, method_of, methods
from steering.vectors.models import Vector

POOLINGS = ("mean", "last", "window")
MOST_WINDOW = 512  # tokens
FORECAST_FEWEST = 4  # pairs that can be compared
MOST_SEEDS, MOST_STEPS, MOST_VECTORS = 16, 2000, 16

LABELS = {
    "method": "Method",
    "pooling": "From each side",
    "window": "How many",
    "span": "Tokens of",
    "shots": "Examples before it",
    "chat": "Chat template",
    "layers": "Layers",
    "layer": "Layer",
    "form": "Form",
    "rank": "Rank",
    "steps": "Steps",
    "learning_rate": "Learning rate",
    "seeds": "Random starts",
    "seed": "Seed",
    "max_norm": "Largest norm",
    "noise": "Noise",
    "target_loss": "Loss that suffices",
    "satisfice": "When it is reached",
    "beta": "Beta",
    "count": "Vectors",
    "target_layer": "Layer to change",
}


def _whole(least: int, most: int) -> forms.IntegerField:
    wrong = f"Write a whole number from {least} to {most}."
    messages = {"min_value": wrong, "max_value": wrong, "invalid": wrong}
    return forms.IntegerField(required=False, min_value=least, max_value=most, error_messages=messages)


def _number(least: float, most: float, what: str) -> forms.FloatField:
    wrong = f"{what} goes from {least:g} to {most:g}."
    messages = {"min_value": wrong, "max_value": wrong, "invalid": wrong}
    return forms.FloatField(required=False, min_value=least, max_value=most, error_messages=messages)


class BuildForm(forms.Form):
    """What to build a vector from, and how. Only what the method reads counts; what is empty is its own default."""

    dataset = forms.ModelChoiceField(
        Dataset.objects.none(),
        error_messages={
            "required": "Choose the dataset to build from.",
            "invalid_choice": "That dataset is gone. Choose another.",
        },
    )
    name = forms.CharField(required=False, max_length=120)
    method = forms.ChoiceField(choices=[])
    pooling = forms.ChoiceField(choices=[(name, name) for name in POOLINGS], required=False)
    window = _whole(1, MOST_WINDOW)
    span = forms.ChoiceField(choices=[("answer", "answer"), ("all", "all")], required=False)
    shots = _whole(1, 16)
    chat = forms.BooleanField(required=False)
    layers = forms.CharField(required=False, max_length=400)
    layer = _whole(0, 9999)
    form = forms.ChoiceField(choices=[(name, name) for name in ("add", "clamp", "affine")], required=False)
    rank = _whole(1, 16)
    steps = _whole(1, MOST_STEPS)
    learning_rate = _number(1e-6, 10, "A learning rate")
    seeds = _whole(1, MOST_SEEDS)
    seed = _whole(0, 2**31 - 1)
    max_norm = _number(0.001, 100, "The largest norm, in lengths of an ordinary token,")
    noise = _number(0, 100, "The noise")
    target_loss = _number(0, 1000, "The loss that suffices")
    satisfice = forms.ChoiceField(choices=[("stop", "stop"), ("square", "square")], required=False)
    beta = _number(0.001, 10, "Beta")
    count = _whole(1, MOST_VECTORS)
    target_layer = _whole(0, 9999)

    DEFAULTS = {"method": "mean_difference", "pooling": "mean", "span": "answer"}

    def __init__(self, *args: Any, user: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model = model
        self.fields["dataset"].queryset = Dataset.objects.visible_to(user)  # type: ignore[attr-defined]
        self.fields["method"].choices = [(m.key, m.name) for m in methods()]  # type: ignore[attr-defined]

    def clean_dataset(self) -> Dataset:
        dataset = self.cleaned_data["dataset"]
        pairs = dataset.pairs()
        sides = self.data.get("method") != "melbo"  # which reads prompts alone
        if sides and pairs and all(pair.positive.strip() == pair.negative.strip() for pair in pairs):
            raise forms.ValidationError(
                f"In every pair of “{dataset.name}” both sides are the same, so there is nothing to tell apart."
                " Edit one side of each pair."
            )
        return dataset

    def clean_chat(self) -> bool:
        chat = self.cleaned_data["chat"]
        if chat and self.model.id and not self.model.has_chat_template:
            raise forms.ValidationError(f"{self.model.id} has no chat template. Turn this off to read plain text.")
        return chat

    def clean_layers(self) -> tuple[int, ...]:
        return parse_layers(self.cleaned_data["layers"], self.model.n_layers)

    def clean_layer(self) -> int | None:
        return self._in_range(self.cleaned_data["layer"])

    def clean_target_layer(self) -> int | None:
        return self._in_range(self.cleaned_data["target_layer"])

    def _in_range(self, layer: int | None) -> int | None:
        n = self.model.n_layers
        if layer is not None and n and layer >= n:
            raise forms.ValidationError(f"Layer {layer} is out of range: this model has layers 0 to {n - 1}.")
        return layer

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        for field in ("pooling", "span"):
            data[field] = data.get(field) or self.DEFAULTS[field]
        dataset, method = data.get("dataset"), method_of(data.get("method", ""))
        data["name"] = (data.get("name") or "").strip() or (dataset.name[:120] if dataset else "")
        if method and dataset:
            self._clean_pairs(data, method, dataset)
        if method and method.optimises:
            self._clean_optimised(data, method, dataset)
        return data

    def _clean_pairs(self, data: dict[str, Any], method: Method, dataset: Dataset) -> None:
        """Enough of them, for this method and for what is asked."""
        count, forecast = len(dataset.pairs()), self.data.get("action") == "forecast"
        data["shots"] = data.get("shots") or max(1, min(CreateVector.shots, count - 1))
        fewest = max(method.fewest, FORECAST_FEWEST) if forecast else method.fewest
        if count < fewest:
            self.add_error(
                "dataset",
                f"“{dataset.name}” has {count or 'no'} pair{'' if count == 1 else 's'}."
                f" {'A forecast' if forecast else method.name} needs at least {fewest}, and 24 make a direction"
                " reliable: add pairs to the dataset first.",
            )
        elif method.key == "few_shot" and data["shots"] >= count:
            said = f"“{dataset.name}” has {count} pairs, so at most {count - 1} of them can stand before another."
            self.add_error("shots", f"{said} Show fewer examples, or add pairs.")
        if forecast and method.optimises:
            self.add_error(
                "method", f"A forecast compares the differences of pairs, and {method.name} reads none. Just build it."
            )

    def _clean_optimised(self, data: dict[str, Any], method: Method, dataset: Dataset | None) -> None:
        if data.get("layer") is None and "layer" not in self.errors:
            if not self.model.n_layers:
                self.add_error("layer", "The model is not known yet, so say at which layer, or wait until it is ready.")
            data["layer"] = builds.default_layer(self.model)
        target = data.get("target_layer")
        if "target_layer" in method.params and target is not None and target <= (data.get("layer") or 0):
            said = f"The layer to change lies behind the vector's own, {data['layer']}. Choose a later one."
            self.add_error("target_layer", said)
        if dataset and method.key != "melbo" and not all(pair.prompt.strip() for pair in dataset.pairs()):
            self.add_error(
                "dataset",
                f"“{dataset.name}” has pairs without a prompt, and {method.name} needs one in each, after which the"
                " sides are written. Add prompts, or choose a method that reads texts.",
            )

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of `builds.vector_build`: what this method reads."""
        data = self.cleaned_data
        method = method_of(data["method"])
        assert method  # a choice of the field
        chosen = {name: data[name] for name in method.params if data.get(name) not in (None, "")}
        common = {name: data[name] for name in ("dataset", "name", "method", "chat")}
        return common | chosen


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Read `4, 8-12` into layer numbers; empty or `all` means every layer, and gives ().

    `n_layers` 0 means that the model is not known yet, and nothing is out of range.
    """
    text = text.strip().lower()
    if text in ("", "all"):
        return ()
    layers: set[int] = set()
    for part in filter(None, re.split(r"[,\s]+", re.sub(r"\s*[-–]\s*", "-", text))):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if not match:
            raise forms.ValidationError(f"“{part}” is not a layer. Write numbers and ranges, such as 4, 8-12.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise forms.ValidationError(f"“{part}” runs backwards. Write {last}-{first}.")
        layers.update(range(first, last + 1))
    if n_layers and max(layers) >= n_layers:
        raise forms.ValidationError(f"Layer {max(layers)} is out of range: this model has layers 0 to {n_layers - 1}.")
    return tuple(sorted(layers))


class UploadForm(forms.Form):
    file = forms.FileField(
        error_messages={
            "required": "Choose the file of a steering vector.",
            "empty": "The file is empty. Download it again from where it was made.",
        }
    )
    name = forms.CharField(required=False, max_length=120)

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > settings.MAX_UPLOAD_BYTES:
            most = settings.MAX_UPLOAD_BYTES // 2**20
            raise forms.ValidationError(
                f"The file has {file.size / 2**20:.0f} MB, and at most {most} MB are taken."
                " A steering vector is small: choose its own file, not the model's."
            )
        return file

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        file = data.get("file")
        data["name"] = (data.get("name") or "").strip() or (_stem(file.name) if file else "")
        return data


def _stem(filename: str) -> str:
    return re.sub(r"\.(safetensors|gguf|json|svec)$", "", filename, flags=re.IGNORECASE)[:120] or "uploaded vector"


class DraftForm(forms.Form):
    """What a file of another program leaves open. `site` is asked for where the format does not say it."""

    name = forms.CharField(max_length=120, error_messages={"required": "A vector needs a name."})
    site = forms.ChoiceField(
        choices=[("", "as the format says"), ("resid_post", "resid_post"), ("resid_pre", "resid_pre")], required=False
    )
    layer = forms.IntegerField(
        required=False, min_value=0, error_messages={"invalid": "A layer is a whole number, counted from 0."}
    )
    strength = forms.FloatField(initial=1.0, error_messages={"invalid": "The strength is a number, such as 1.5."})
    leave_out = forms.BooleanField(required=False)

    def __init__(self, *args: Any, understood: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.understood = understood

    def clean(self) -> dict[str, Any]:
        model, width = self.understood.model, self.understood.loose.d_model
        if model.d_model and model.d_model != width:
            raise forms.ValidationError(
                f"The directions are {width} numbers wide and {model.id} is {model.d_model} wide. Choose the model that"
                " the vector was made on, or have this server load it."
            )
        return super().clean() or {}


class RenameForm(forms.ModelForm):
    class Meta:
        model = Vector
        fields = ("name", "description")
        error_messages = {"name": {"required": "A vector needs a name."}}
