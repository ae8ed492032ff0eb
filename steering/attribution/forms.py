"""The page that asks a question: two prompts, a metric, a method."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from inference.errors import InferenceError
from inference.types import MOST_ATTRIBUTED_TOKENS, MOST_INTEGRATION_STEPS, Attribute, ModelInfo
from steering.attribution.reading import check_pairs
from steering.attribution.running import check
from steering.refusals import storable
from steering.vectors.forms import parse_layers

MAX_PROMPT = 20_000  # characters
MAX_TARGETS = 8
METRICS = {
    "logit_difference": ("Logit difference", "How much more the model leans to the target than to the other token."),
    "log_probability": ("Log-probability", "How likely the target is, in nats. Also falls when all else rises."),
    "kl": ("KL divergence", "How far the whole answer is from the clean one, in nats. No target needed."),
}
METHODS = {
    "patching": ("Attribution patching", "One gradient. Seconds; blind where attention is saturated."),
    "qk_fix": ("With the QK fix", "Attention computed anew for queries and keys (AtP*), which are added to the sites."),
    "grad_drop": ("With GradDrop", "A gradient per layer, so that effects which cancel are seen. No sign."),
    "integrated": ("Integrated gradients", "Gradients along the way from corrupted to clean. Steps times slower."),
}
SITES = {
    "resid_pre": ("resid", "the residual stream before each layer"),
    "attn_out": ("attn_out", "what attention adds"),
    "mlp_out": ("mlp_out", "what the MLP adds"),
    "z": ("heads", "each attention head’s output"),
    "q": ("queries", "of each head"),
    "k": ("keys", "of each head that has keys"),
    "v": ("values", "of each head that has keys"),
}
DEFAULT_STEPS = 8


class Lines(forms.CharField):
    """Tokens, one a line, their spaces kept."""

    def __init__(self, **options: Any):
        super().__init__(required=False, strip=False, max_length=MAX_TARGETS * 100, **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        found = tuple(dict.fromkeys(line for line in text.replace("\r", "").split("\n") if line))
        if len(found) > MAX_TARGETS:
            raise forms.ValidationError(f"At most {MAX_TARGETS} tokens, one a line.")
        return found


class QuestionForm(forms.Form):
    name = forms.CharField(required=False, max_length=120)
    clean_prompt = forms.CharField(required=False, strip=False, max_length=MAX_PROMPT)
    corrupted_prompt = forms.CharField(required=False, strip=False, max_length=MAX_PROMPT)
    chat = forms.BooleanField(required=False)
    metric = forms.ChoiceField(choices=[(name, words[0]) for name, words in METRICS.items()])
    targets = Lines()
    against = Lines()
    method = forms.ChoiceField(choices=[(name, words[0]) for name, words in METHODS.items()])
    steps = forms.IntegerField(required=False, min_value=2, max_value=MOST_INTEGRATION_STEPS)
    sites = forms.MultipleChoiceField(
        choices=[(name, words[0]) for name, words in SITES.items()],
        error_messages={"required": "Choose at least one site."},
    )
    layers = forms.CharField(required=False, max_length=200)
    alignment = forms.CharField(required=False, max_length=40_000)

    def __init__(self, *args: Any, model: ModelInfo, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model = model
        self.question: Attribute | None = None

    def clean_layers(self) -> tuple[int, ...]:
        return parse_layers(self.cleaned_data["layers"], self.model.n_layers)

    def clean_chat(self) -> bool:
        chat: bool = self.cleaned_data["chat"]
        if chat and self.model.id and not self.model.has_chat_template:
            raise forms.ValidationError(f"{self.model.id} has no chat template. Turn this off to continue plain text.")
        return chat

    def clean_alignment(self) -> tuple[tuple[int, int], ...]:
        """Pairs as JSON; empty where the engine is to find them."""
        text = self.cleaned_data["alignment"].strip()
        try:
            found = json.loads(text) if text else []
            if not isinstance(found, list) or not all(isinstance(pair, list) for pair in found):
                raise ValueError
            return check_pairs(found, MOST_ATTRIBUTED_TOKENS)
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
        except (ValueError, RecursionError):
            raise forms.ValidationError("The pairs of tokens did not arrive whole. Read the tokens again.") from None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        try:
            for name, says in (("clean_prompt", "The clean prompt"), ("corrupted_prompt", "The corrupted prompt")):
                storable(data[name], says)
            for token in (*data["targets"], *data["against"]):
                storable(token, "A target")
            self.question = self._question(data)
            check(self.question)
        except InferenceError as error:
            raise forms.ValidationError(error.message) from None
        data["name"] = " ".join(data["name"].split()) or default_name(self.question)
        return data

    def _question(self, data: dict[str, Any]) -> Attribute:
        metric, method, sites = data["metric"], data["method"], tuple(data["sites"])
        if method == "qk_fix" and not {"q", "k"} & {*sites}:
            sites += ("q", "k")  # it is of them, and of nothing else
        return Attribute(
            id="",
            clean=data["clean_prompt"],
            corrupted=data["corrupted_prompt"],
            metric=metric,
            targets=() if metric == "kl" else data["targets"],
            against=data["against"] if metric == "logit_difference" else (),
            alignment=data["alignment"],
            chat=data["chat"],
            sites=sites,
            layers=data["layers"],
            steps=(data["steps"] or DEFAULT_STEPS) if method == "integrated" else 0,
            qk_fix=method == "qk_fix",
            grad_drop=method == "grad_drop",
        )


def default_name(question: Attribute) -> str:
    """What a question is called that nobody named."""
    ends = " ".join(question.clean.split())[-60:]
    return f"…{ends}" if len(ends) == 60 else ends


def method_of(question: Attribute) -> str:
    """The form's word for how a question is answered."""
    if question.steps:
        return "integrated"
    return "grad_drop" if question.grad_drop else "qk_fix" if question.qk_fix else "patching"


def initial_of(question: Attribute, name: str = "") -> dict[str, Any]:
    """The form's values for a question that is asked again."""
    return {
        "name": name, "clean_prompt": question.clean, "corrupted_prompt": question.corrupted, "chat": question.chat,
        "metric": question.metric, "targets": "\n".join(question.targets), "against": "\n".join(question.against),
        "method": method_of(question), "steps": question.steps or DEFAULT_STEPS, "sites": list(question.sites),
        "layers": ", ".join(map(str, question.layers)),
        "alignment": json.dumps([list(pair) for pair in question.alignment]) if question.alignment else "",
    }  # fmt: skip
