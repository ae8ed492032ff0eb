"""A contestant that loads nothing: it prints what libraries print, and says how long a question was."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.lines import Answer, serve


def start(name: str) -> tuple[dict[str, Any], Answer]:
    print("a library's greeting")
    return {"name": name}, lambda question: {"length": len(question["text"]), "again": 1 / question["divisor"]}


if __name__ == "__main__":
    serve(start)
