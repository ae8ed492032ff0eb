from __future__ import annotations

import re
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from inference.types import ModelInfo
from steering.datasets.models import Dataset

ARCHITECTURES = (
    ("batchtopk", "BatchTopK", "The k strongest of a batch stay on. Trains fast and steadily; saved as JumpReLU."),
    ("topk", "TopK", "The k strongest of each token stay on."),
    ("matryoshka_batchtopk", "Matryoshka BatchTopK", "Nested widths: broad features first. Takes longer."),
    ("jumprelu", "JumpReLU", "A threshold for each feature, learnt with an L0 penalty."),
    ("standard", "Standard (L1)", "ReLU with an L1 penalty, as the first ones were."),
    ("gated", "Gated", "Whether a feature is on and how strong it is are told apart."),
)
TOPK_FAMILY = ("batchtopk", "topk", "matryoshka_batchtopk")
WIDTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
MOST_FILE = 10 * 2**20
MOST_CHATS = 2000
FEWEST_CHARACTERS = 2_000


def _whole(least: int, most: int) -> forms.IntegerField:
    wrong = f"Write a whole number from {least:,} to {most:,}."
    messages = {"min_value": wrong, "max_value": wrong, "invalid": wrong, "required": wrong}
    return forms.IntegerField(min_value=least, max_value=most, error_messages=messages)


def default_layer(model: ModelInfo) -> int:
    """Where steering tends to work, and before attention sinks grow: about a third of the way."""
    return max(0, round(0.3 * model.n_layers))


def initial(model: ModelInfo) -> dict[str, Any]:
    return {
        "layer": default_layer(model),
        "architecture": "batchtopk",
        "width": 4096,
        "k": 32,
        "steps": 1000,
        "batch": 1024,
        "context": min(256, model.context_length or 256),
        "seed": 0,
        "chats": 200,
        "index": True,
    }


class TrainForm(forms.Form):
    """What to train and on what. `model` gives the layers, and the sources whose names are taken."""

    layer = _whole(0, 9999)
    name = forms.CharField(required=False, max_length=60)
    architecture = forms.ChoiceField(choices=[(key, name) for key, name, _ in ARCHITECTURES])
    width = forms.TypedChoiceField(choices=[(w, f"{w:,}") for w in WIDTHS], coerce=int)
    k = _whole(1, 1024)
    penalty = forms.FloatField(required=False, min_value=0, max_value=1000)
    steps = _whole(1, 1_000_000)
    batch = _whole(8, 65_536)
    learning_rate = forms.FloatField(required=False, min_value=0, max_value=1)
    context = _whole(16, 4096)
    seed = _whole(0, 2**31 - 1)
    datasets = forms.ModelMultipleChoiceField(Dataset.objects.none(), required=False)
    file = forms.FileField(required=False, allow_empty_file=True)
    licence = forms.CharField(required=False, max_length=300)
    chats = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=MOST_CHATS,
        error_messages=dict.fromkeys(("min_value", "max_value"), f"Conversations go from 0 to {MOST_CHATS:,}."),
    )
    index = forms.BooleanField(required=False)

    def __init__(self, *args: Any, user: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model = model
        self.fields["datasets"].queryset = Dataset.objects.visible_to(user)  # type: ignore[attr-defined]

    def clean_layer(self) -> int:
        layer: int = self.cleaned_data["layer"]
        if self.model.n_layers and layer >= self.model.n_layers:
            raise forms.ValidationError(
                f"Layer {layer} is out of range: {self.model.id} has layers 0 to {self.model.n_layers - 1}."
            )
        return layer

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if name and not NAME.fullmatch(name):
            raise forms.ValidationError(
                "A name has small letters, digits, dots and dashes, and begins with a letter or digit."
            )
        return name

    def clean_file(self) -> tuple[str, str] | None:
        upload: UploadedFile | None = self.cleaned_data["file"]
        if not upload:
            return None
        size = upload.size or 0
        if size > MOST_FILE:
            raise forms.ValidationError(
                f"The file has {size / 2**20:.0f} MB and may have {MOST_FILE // 2**20}. Cut it, or train with "
                "“make sae”, which reads folders of any size."
            )
        try:
            text = upload.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise forms.ValidationError(
                f"{upload.name} is not text in UTF-8 (byte {error.start}). Save it as UTF-8 and choose it again."
            ) from error
        if not text.strip():
            raise forms.ValidationError(f"{upload.name} has no text in it. Choose another file.")
        return (upload.name or "text", text)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        data["chats"] = data.get("chats") or 0
        if not self.errors:
            self._clean_text(data)
            self._clean_sparsity(data)
            data["name"] = data["name"] or default_name(data["architecture"], data["width"])
            taken = {source.id for source in self.model.sources}
            if f"{data['layer']}-{data['name']}" in taken:
                self.add_error(
                    "name",
                    f"There is an autoencoder {data['layer']}-{data['name']} already. Give this one another name.",
                )
        return data

    def _clean_text(self, data: dict[str, Any]) -> None:
        if not (data["datasets"] or data["file"] or data["chats"]):
            self.add_error(None, "There is nothing to train on. Choose a dataset, a file, or conversations.")
        if data["chats"] and not self.model.has_chat_template:
            self.add_error("chats", f"{self.model.id} has no chat template, so it cannot write conversations. Take 0.")
        if data["file"] and not (data["datasets"] or data["chats"]) and len(data["file"][1]) < FEWEST_CHARACTERS:
            self.add_error(
                "file",
                f"The file has {len(data['file'][1]):,} characters, too few to train on and measure by. Take at least "
                f"{FEWEST_CHARACTERS:,}; a million make useful features.",
            )

    def _clean_sparsity(self, data: dict[str, Any]) -> None:
        most = min(data["width"], self.model.d_model or data["width"])
        if data["architecture"] in TOPK_FAMILY and data["k"] > most:
            self.add_error("k", f"At most {most:,} features can be on at a token here. Take fewer; 32 is usual.")

    def recipe(self) -> dict[str, Any]:
        """Fields of TrainSae."""
        data = self.cleaned_data
        sparsity = data["k"] if data["architecture"] in TOPK_FAMILY else data["penalty"] or 0.0
        names = ("layer", "architecture", "width", "steps", "batch", "context", "seed")
        return {name: data[name] for name in names} | {
            "sparsity": float(sparsity),
            "learning_rate": float(data["learning_rate"] or 0.0),
        }


def default_name(architecture: str, width: int) -> str:
    size = f"{width // 1024}k" if width % 1024 == 0 else str(width)
    return f"{architecture.replace('_', '-')}-{size}"
