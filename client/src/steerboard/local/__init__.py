"""A model in this process, for `load`, and everything that is asked of it. Needs Steerboard's package `inference`."""

from __future__ import annotations

from steerboard.local.local import Local
from steerboard.local.opening import open_studio

__all__ = ["Local", "open_studio"]
