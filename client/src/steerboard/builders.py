"""Policies that come ready made, as plain data: to be run, changed, saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Policy = dict[str, Any]


def strict_json_extraction(schema: Mapping[str, Any], name: str = "strict-json-extraction") -> Policy:
    """An answer that is JSON and validates against a schema."""
    return {
        "name": name,
        "task_profile": {"name": "structured extraction"},
        "sampling": {"method": "guided-generation", "temperature": 0.2, "top_p": 0.9},
        "constraints": {"json_mode": True, "json_schema": dict(schema)},
        "verifiers": {"enabled": ["syntax", "json_schema"], "repair_on_failure": True},
        "optimization": {"best_of_n": 2, "retry_on_failure": 2},
    }


def fast_tool_router(name: str = "fast-tool-router") -> Policy:
    """A tool call soon: guessed ahead, within 1.2 seconds, and plain top-k where that fails."""
    return {
        "name": name,
        "task_profile": {"name": "tool routing"},
        "objective": {"name": "latency", "latency_budget_ms": 1200},
        "sampling": {"method": "speculative-decoding", "temperature": 0.1, "top_k": 30, "speculative_steps": 6},
        "constraints": {"json_mode": True, "required_fields": ["tool_name", "arguments"]},
        "verifiers": {"enabled": ["syntax", "tool_args"]},
        "optimization": {"retry_on_failure": 1, "fallback_methods": ["top-k"]},
    }


def diverse_chatbot(name: str = "diverse-chatbot") -> Policy:
    """Three candidates that differ, of which the best is kept."""
    return {
        "name": name,
        "task_profile": {"name": "open conversation"},
        "sampling": {
            "method": "ads",
            "temperature": 0.9,
            "top_p": 0.95,
            "ads_subset_size": 16,
            "ads_beta": 0.35,
            "num_candidates": 3,
            "diversity_strength": 0.7,
        },
        "optimization": {"best_of_n": 3, "retry_on_failure": 0},
    }


def ensemble_vote(models: Sequence[str], name: str = "ensemble-vote") -> Policy:
    """Several models answer together; the model itself then judges whether the answer holds."""
    return {
        "name": name,
        "task_profile": {"name": "ensemble"},
        "sampling": {
            "method": "ensemble-sampling",
            "ensemble_models": list(models),
            "voting": "majority",
            "temperature": 0.4,
            "top_p": 0.9,
        },
        "verifiers": {"enabled": ["factuality"], "repair_on_failure": False},
    }


def steering_preset(preset: str, name: str | None = None, sampling_method: str = "top-k") -> Policy:
    """A steering preset by name, at the strengths that it was found to be best at."""
    return {
        "name": name or f"preset-{preset.lower().replace('_', '-')}",
        "task_profile": {"name": "steering preset"},
        "sampling": {"method": sampling_method, "temperature": 0.7, "top_p": 0.9},
        "steering": {"enabled": True, "preset": preset, "strength": 1.0},
        "optimization": {"retry_on_failure": 1},
    }
