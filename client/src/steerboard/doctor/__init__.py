"""What a client stands on, looked at one by one: `examine(core)` for programs, `steerboard doctor` for people."""

from __future__ import annotations

from steerboard.doctor.checks import examine
from steerboard.doctor.finding import Finding

__all__ = ["Finding", "examine"]
