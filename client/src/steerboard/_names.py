"""Names as the server has them: lower-case letters and digits, with single hyphens or underscores between them."""

from __future__ import annotations

import re

MAX_NAME = 40


def handle(said: str) -> str:
    """`Angry replies!` is `angry-replies`; what is a name already, with its owner and version or without, stays."""
    owner, _, rest = said.strip().lower().rpartition("/")
    name, _, version = rest.partition("@")
    made = re.sub(r"[^a-z0-9_]+", "-", name)
    made = re.sub(r"([-_])[-_]+", r"\1", made).strip("-_")[:MAX_NAME].strip("-_") or name
    return "".join([f"{owner}/" if owner else "", made, f"@{version}" if version else ""])
