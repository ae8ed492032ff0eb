"""What was written here, in the shape of a server's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ENDS = {"watch": "content_filter", "constraint": "length", "cancelled": "stop"}  # in OpenAI's words


def reason_of(end: Any) -> str:
    return str(ENDS.get(end.reason, end.reason))


def told(rows: Sequence[tuple[int, Any, Any]]) -> dict[str, Any]:
    """Of answers (their number, request, and last event): receipts of what steered, and what behaviors did. Nothing
    where there was neither."""
    found: dict[str, Any] = {}
    receipts = [
        {"index": index, "seed": end.receipt.seed, "applied": [each.to_wire() for each in end.receipt.applied]}
        for index, _, end in rows
    ]
    if any(receipt["applied"] for receipt in receipts):
        found["steering"] = {"receipts": receipts}
    watches = rows[0][1].watches
    if watches:
        watched = [{"name": w.name, "action": w.action, "threshold": w.threshold, "forced": w.force} for w in watches]
        found["behaviors"] = {"watched": watched, "outcomes": [_outcome(index, end) for index, _, end in rows]}
    return found


def _outcome(index: int, end: Any) -> dict[str, Any]:
    receipt = end.receipt
    names = sorted({firing.name for firing in receipt.fired})
    return {
        "index": index,
        "fired": {name: sum(firing.name == name for firing in receipt.fired) for name in names},
        "fired_total": receipt.fired_total,
        "firings": [firing.to_wire() for firing in receipt.fired],
    }


def usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def answer(model: str, request: Any, text: str, end: Any, *, chat: bool = False) -> dict[str, Any]:
    """Of one text."""
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "model": model,
        "choices": [{"index": 0, **said, "finish_reason": reason_of(end)}],
        "usage": usage(end.usage.prompt_tokens, end.usage.completion_tokens),
        **told([(0, request, end)]),
    }
