"""What one check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """`cure` says what to do, for all but ok and skipped."""

    check: str
    status: Status
    detail: str
    cure: str = ""

    def wire(self) -> dict[str, Any]:
        return asdict(self)
