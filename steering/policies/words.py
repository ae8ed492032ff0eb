"""A policy in words, and how a program runs it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from inference.policies.schema import Policy

KEY = "STEERBOARD_API_KEY"


def sentence_of(policy: Policy) -> str:
    """`guided-generation at 0.2, best of 2, 2 retries; JSON by schema; syntax and json_schema checked`"""
    sampling, tries = policy.sampling, policy.optimization
    how = sampling.method
    if sampling.method not in ("greedy", "constrained-beam-search"):
        how += f" at temperature {sampling.temperature:g}"
    if policy.candidates > 1:
        how += f", best of {policy.candidates}"
    if tries.retry_on_failure:
        how += f", {tries.retry_on_failure} retr{'y' if tries.retry_on_failure == 1 else 'ies'}"
    parts = [how, steering_in_words(policy), ", ".join(constraints_of(policy)), _checks(policy)]
    return "; ".join(part for part in parts if part)


def steering_in_words(policy: Policy) -> str:
    steering = policy.steering
    if not steering.enabled:
        return ""
    what = f"the preset {steering.preset}" if steering.preset else "a stored vector" if steering.vector_id else ""
    what = what or ("directions of its own" if steering.vector else "")
    raw = ", raw" if steering.vector_id and steering.unit == "raw" else ""
    return f"steered by {what} × {steering.strength:g}{raw}" if what else ""


def constraints_of(policy: Policy) -> list[str]:
    said = policy.constraints
    found = []
    if said.json_schema is not None:
        found.append("JSON by schema")
    elif said.json_mode:
        found.append("JSON")
    if said.required_fields:
        found.append(f"fields {', '.join(said.required_fields)}")
    if said.regex_pattern:
        found.append("a pattern")
    if said.grammar:
        found.append("a grammar")
    if said.tool_schema is not None:
        found.append("a tool call")
    if said.forbidden_terms:
        count = len(said.forbidden_terms)
        found.append(f"{count} forbidden term{'' if count == 1 else 's'}")
    return found


def _checks(policy: Policy) -> str:
    names = policy.verifiers.enabled
    if not names:
        return ""
    return f"checked: {', '.join(names)}"


def facts_of(policy: Policy) -> list[tuple[str, str]]:
    """Facts for a list of terms, most telling first."""
    sampling, tries, goal, verifiers = policy.sampling, policy.optimization, policy.objective, policy.verifiers
    found = [("Method", sampling.method)]
    if sampling.method not in ("greedy", "constrained-beam-search"):
        found.append(("Temperature", f"{sampling.temperature:g}"))
    found.append(("Candidates a round", str(policy.candidates)))
    found.append(("Retries", str(tries.retry_on_failure)))
    if tries.fallback_methods:
        found.append(("Then", ", ".join(tries.fallback_methods)))
    if tries.self_revision_loops:
        found.append(("Self-revisions", str(tries.self_revision_loops)))
    if tries.confidence_triggered_regeneration:
        found.append(("Retry below confidence", f"{tries.confidence_threshold:g}"))
    if words := steering_in_words(policy):
        found.append(("Steering", words.removeprefix("steered by ")))
    found.append(("Must be", ", ".join(constraints_of(policy)) or "anything"))
    found.append(("Checked", ", ".join(verifiers.enabled) or "nothing"))
    if verifiers.enabled and verifiers.repair_on_failure:
        found.append(("Repairs", f"{verifiers.max_retries} at most, with what failed told to the model"))
    if goal.latency_budget_ms:
        found.append(("Time budget", f"{goal.latency_budget_ms:,} ms"))
    if goal.token_budget:
        found.append(("Token budget", f"{goal.token_budget:,} tokens"))
    if policy.model.model != "default":
        found.append(("Model", policy.model.model))
    return found


@dataclass(frozen=True)
class Call:
    curl: str
    python: str


def call_of(name: str, base_url: str) -> Call:
    """How a program runs a stored policy."""
    body: dict[str, Any] = {"policy_id": name, "prompt": "Two apples, please.", "max_new_tokens": 64}
    address = f"{base_url}/policies/run/"
    data = shlex.quote(json.dumps(body, indent=2))
    headers = f'-H "Authorization: Bearer ${KEY}" \\\n  -H "Content-Type: application/json"'
    return Call(
        f"curl {address} \\\n  {headers} \\\n  -d {data}",
        "import os\n\nimport requests\n\n"
        f'answer = requests.post(\n    "{address}",\n'
        f'    headers={{"Authorization": "Bearer " + os.environ["{KEY}"]}},\n'
        f"    json={body!r},\n    timeout=60,\n)\n"
        'print(answer.json()["results"][0]["output"])\n',
    )
