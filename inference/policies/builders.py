"""Policies that come ready made; the names and settings are those of Mechanex's builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.policies.schema import Policy


def strict_json_extraction(schema: dict[str, Any], name: str = "strict-json-extraction") -> Policy:
    """An answer that is JSON and validates."""
    return Policy.parse(
        {
            "name": name,
            "task_profile": {"name": "structured extraction"},
            "sampling": {"method": "guided-generation", "temperature": 0.2, "top_p": 0.9},
            "constraints": {"json_mode": True, "json_schema": schema},
            "verifiers": {"enabled": ["syntax", "json_schema"], "repair_on_failure": True},
            "optimization": {"best_of_n": 2, "retry_on_failure": 2},
        }
    )


def fast_tool_router(name: str = "fast-tool-router") -> Policy:
    """A tool call soon: guessed ahead, within 1.2 seconds, and plain top-k where that fails."""
    return Policy.parse(
        {
            "name": name,
            "task_profile": {"name": "tool routing"},
            "objective": {"name": "latency", "latency_budget_ms": 1200},
            "sampling": {"method": "speculative-decoding", "temperature": 0.1, "top_k": 30, "speculative_steps": 6},
            "constraints": {"json_mode": True, "required_fields": ["tool_name", "arguments"]},
            "verifiers": {"enabled": ["syntax", "tool_args"]},
            "optimization": {"retry_on_failure": 1, "fallback_methods": ["top-k"]},
        }
    )


def diverse_chatbot(name: str = "diverse-chatbot") -> Policy:
    """Three candidates that differ."""
    return Policy.parse(
        {
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
    )


def ensemble_vote(models: list[str], name: str = "ensemble-vote") -> Policy:
    """Several models answer together, and the answer is held to be true or not."""
    return Policy.parse(
        {
            "name": name,
            "task_profile": {"name": "ensemble"},
            "sampling": {
                "method": "ensemble-sampling",
                "ensemble_models": models,
                "voting": "majority",
                "temperature": 0.4,
                "top_p": 0.9,
            },
            "verifiers": {"enabled": ["factuality"], "repair_on_failure": False},
        }
    )


def steering_preset(preset: str, sampling_method: str = "top-k", name: str = "") -> Policy:
    """A steering preset by name, at the strength of Mechanex's builder."""
    return Policy.parse(
        {
            "name": name or f"preset-{preset}",
            "task_profile": {"name": "steering preset"},
            "sampling": {"method": sampling_method, "temperature": 0.7, "top_p": 0.9},
            "steering": {"enabled": True, "preset": preset, "strength": 0.35},
            "optimization": {"retry_on_failure": 1},
        }
    )


BUILDERS: dict[str, Callable[..., Policy]] = {
    builder.__name__: builder
    for builder in (strict_json_extraction, fast_tool_router, diverse_chatbot, ensemble_vote, steering_preset)
}
