"""Models that are served, and the workers that hold them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from inference.types import ModelInfo, WorkerInfo
from steering.api.rest.shapes.fields import Strict, Text

FACTS = (
    "id", "state", "revision", "architecture", "n_layers", "d_model", "vocab_size", "context_length", "dtype",
    "device", "has_chat_template", "rows", "waiting", "max_rows", "tokens_per_second", "problem",
    "engine",
)  # fmt: skip


class ModelShape(serializers.Serializer):
    id = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(choices=["loading", "ready", "failed"])
    revision = serializers.CharField(allow_blank=True)
    architecture = serializers.CharField(allow_blank=True)
    n_layers = serializers.IntegerField()
    d_model = serializers.IntegerField()
    vocab_size = serializers.IntegerField()
    context_length = serializers.IntegerField(help_text="Tokens.")
    dtype = serializers.CharField(allow_blank=True)
    device = serializers.CharField(allow_blank=True)
    has_chat_template = serializers.BooleanField()
    rows = serializers.IntegerField(help_text="Being written now.")
    waiting = serializers.IntegerField()
    max_rows = serializers.IntegerField()
    tokens_per_second = serializers.FloatField()
    problem = serializers.CharField(allow_blank=True, help_text="Why it is not ready, and what to do.")
    engine = serializers.CharField(help_text="What runs it: built-in, or vLLM and its version.")


class ModelList(serializers.Serializer):
    data = ModelShape(many=True)


class WorkerShape(serializers.Serializer):
    id = serializers.CharField()
    host = serializers.CharField()
    pid = serializers.IntegerField()
    state = serializers.ChoiceField(choices=["loading", "ready", "draining", "empty", "failed", "lost"])
    model = ModelShape(allow_null=True)
    started = serializers.FloatField(help_text="Seconds since 1970.")
    heartbeat_age = serializers.FloatField(help_text="Seconds since it was last heard of.")
    memory_bytes = serializers.IntegerField()


class WorkerList(serializers.Serializer):
    data = WorkerShape(many=True)
    loadable = serializers.ListField(child=serializers.CharField(), help_text="What `load` may name.")


class WorkerLoad(Strict):
    model = Text(max_length=300, help_text="One of `loadable`.")


class WorkerAsked(serializers.Serializer):
    message = serializers.CharField()


def model_to_json(info: ModelInfo) -> dict[str, Any]:
    wire = info.to_wire()
    return {name: wire[name] for name in FACTS}


def worker_to_json(worker: WorkerInfo) -> dict[str, Any]:
    return worker.to_wire() | {"model": model_to_json(worker.model) if worker.model else None}
