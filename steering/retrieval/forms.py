"""The page that asks: a question, where to look, and what steers the answer."""

from __future__ import annotations

from typing import Any

from django import forms

from inference.errors import InferenceError
from inference.retrieval.chunks import Document
from inference.retrieval.index import WAYS
from inference.retrieval.layout import INSTRUCTION, LONGEST_INSTRUCTION, LONGEST_QUESTION
from inference.types import ModelInfo
from steering.presets import library as presets
from steering.presets.models import Preset
from steering.retrieval import asking
from steering.retrieval.models import Collection
from steering.vectors.models import Vector

SEPARATOR = "---"  # between pasted documents, on a line of its own
MOST_PASTED = 200_000
WAYS_SAID = {"hybrid": "Words and meaning", "words": "Words (BM25)", "meaning": "Meaning (vectors)"}
GONE = {"invalid_choice": "That is gone. Choose another."}


class AskForm(forms.Form):
    question = forms.CharField(
        max_length=LONGEST_QUESTION, error_messages={"required": "The question is empty. Write one."}
    )
    source = forms.ChoiceField(choices=[("collection", "A collection"), ("pasted", "Pasted")])
    collection = forms.ModelChoiceField(Collection.objects.none(), required=False, error_messages=GONE)
    documents = forms.CharField(required=False, max_length=MOST_PASTED, strip=False)
    relevant = forms.CharField(required=False, max_length=4_000)
    k = forms.IntegerField(required=False, min_value=1, max_value=asking.MOST_PASSAGES)
    way = forms.ChoiceField(choices=[(way, WAYS_SAID[way]) for way in WAYS], required=False)
    steer = forms.ChoiceField(choices=[("none", "Nothing"), ("vector", "A vector"), ("preset", "A preset")])
    vector = forms.ModelChoiceField(Vector.objects.none(), required=False, error_messages=GONE)
    strength = forms.FloatField(required=False, min_value=-20, max_value=20)
    preset = forms.ModelChoiceField(Preset.objects.none(), required=False, error_messages=GONE)
    instruction = forms.CharField(required=False, max_length=LONGEST_INSTRUCTION)
    answer = forms.CharField(required=False, max_length=asking.LONGEST_ANSWER)
    max_tokens = forms.IntegerField(required=False, min_value=1, max_value=asking.MOST_TOKENS)
    temperature = forms.FloatField(required=False, min_value=0, max_value=5)
    seed = forms.IntegerField(required=False, min_value=0, max_value=2**53 - 1)
    epsilon = forms.FloatField(required=False, min_value=0, max_value=100)

    def __init__(self, *args: Any, user: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.user, self.model = user, model
        fields: dict[str, Any] = self.fields
        fields["collection"].queryset = Collection.objects.visible_to(user).order_by("name")
        fields["vector"].queryset = Vector.objects.visible_to(user).in_library_order()
        fields["preset"].queryset = presets.listed(user)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        try:
            data["documents"] = pasted(data["documents"]) if data["source"] == "pasted" else ()
            if data["source"] == "collection" and not data.get("collection"):
                raise forms.ValidationError({"collection": "Choose the collection to search, or paste documents."})
            if data["source"] == "pasted":
                data["collection"] = None
                if not data["documents"]:
                    raise forms.ValidationError({"documents": "Paste the documents to answer from."})
            data["steering"] = self._steering(data)
            data["asked"] = _asked(data)
            asking.check(data["asked"])
        except InferenceError as error:
            self.add_error(error.code if error.code in self.fields else None, error.message)
        return data

    def _steering(self, data: dict[str, Any]) -> asking.Steering:
        if data["steer"] == "preset":
            if not data.get("preset"):
                raise forms.ValidationError({"preset": "Choose the preset that steers, or let nothing steer."})
            return asking.steering_of_preset(data["preset"], self.model)
        if data["steer"] == "vector":
            if not data.get("vector"):
                raise forms.ValidationError({"vector": "Choose the vector that steers, or let nothing steer."})
            return asking.steering_of_vector(self.user, data["vector"], data.get("strength"), self.model)
        return asking.Steering()


def _asked(data: dict[str, Any]) -> asking.Asked:
    plain = {name: data[name] for name in ("k", "max_tokens", "temperature", "epsilon") if data.get(name) is not None}
    return asking.Asked(
        text=data["question"], way=data.get("way") or "hybrid", instruction=data.get("instruction", ""),
        answer=data.get("answer", ""), seed=data.get("seed"), relevant=labels(data.get("relevant", "")), **plain,
    )  # fmt: skip


def pasted(text: str) -> tuple[Document, ...]:
    """Documents between lines of `---`, numbered from 1."""
    parts: list[list[str]] = [[]]
    for line in text.replace("\r", "").split("\n"):
        if line.strip() == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(line)
    texts = [text for text in ("\n".join(lines).strip() for lines in parts) if text]
    return tuple(Document(str(n), text, f"Document {n}") for n, text in enumerate(texts, 1))


def labels(text: str) -> tuple[str, ...]:
    """Ids between commas or spaces."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


STANDARD = {"source": "collection", "steer": "none", "k": 5, "way": "hybrid", "max_tokens": 48, "temperature": 0,
            "epsilon": 0.1, "instruction": INSTRUCTION}  # fmt: skip


class DocumentsForm(forms.Form):
    """Add to a collection, by pasting one or uploading some."""

    title = forms.CharField(required=False, max_length=200)
    text = forms.CharField(required=False, max_length=500_000, strip=False)


class CollectionForm(forms.Form):
    name = forms.CharField(max_length=120, error_messages={"required": "A collection needs a name. Write one."})
    description = forms.CharField(required=False, max_length=1000)
