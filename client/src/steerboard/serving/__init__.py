"""OpenAI's protocol over a model in this process, or in front of a server: `client.serve(...)`."""

from __future__ import annotations

from steerboard.serving.running import serve

__all__ = ["serve"]
