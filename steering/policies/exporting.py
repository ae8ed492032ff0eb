"""What a run found as rows: a result, an answer to a prompt, or a trial, each on a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from steering.policies.models import PolicyRun

RESULT = ("output", "accepted", "score", "latency_ms", "tokens", "constraints_ok", "verifier_ok", "reason")
TRIAL = (
    "success_rate", "avg_score", "avg_latency_ms", "avg_tokens", "pass_count", "fail_count", "spent_tokens", "refused",
)  # fmt: skip


def rows_of(run: PolicyRun) -> Iterator[dict[str, Any]]:
    found = run.result or {}
    if run.kind == PolicyRun.Kind.TUNE:
        for number, trial in enumerate(found.get("trials", []), 1):
            yield {"trial": number, **trial.get("values", {}), **{name: trial.get(name) for name in TRIAL}}
        return
    evaluated = run.kind == PolicyRun.Kind.EVALUATE
    for place, result in enumerate(found.get("outputs" if evaluated else "results", [])):
        prompt = run.asked["prompts"][place if evaluated else 0]
        entry = run.policies[0 if evaluated or len(run.policies) == 1 else place]
        error = result.get("error") or {}
        row = {"policy": entry["name"], "prompt": text_of(prompt), **{name: result.get(name) for name in RESULT}}
        yield row | ({"reason": error.get("message")} if error else {})


def text_of(prompt: Any) -> str:
    """A stored prompt as one text: messages one after the other, each under its role."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{one['role']}: {one['content']}" for one in prompt)


def as_jsonl(run: PolicyRun) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(run))


def as_csv(run: PolicyRun) -> str:
    rows = list(rows_of(run))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_safe(row.get(name)) for name in columns])
    return out.getvalue()


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is shown as the text that it is."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
