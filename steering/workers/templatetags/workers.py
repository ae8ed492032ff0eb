"""How the state of a worker is said and shown."""

from __future__ import annotations

from django import template

from inference.types import ModelInfo

register = template.Library()

STATES = {
    "loading": ("busy", "Loading"),
    "ready": ("ok", "Ready"),
    "draining": ("warn", "Draining"),
    "empty": ("none", "No model"),
    "failed": ("down", "Failed"),
    "lost": ("down", "Lost"),
}


@register.filter
def dot(state: str) -> str:
    return STATES[state][0]


@register.filter
def state_word(state: str) -> str:
    return STATES[state][1]


@register.filter
def model_facts(info: ModelInfo) -> str:
    if not info.n_layers:
        return ""
    return f"{info.n_layers} layers · {info.dtype} · {info.device.upper()}"
