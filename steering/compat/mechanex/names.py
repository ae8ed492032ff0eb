"""Names of behaviors as programs send them: any words, in any case, where ours are lower-case handles."""

from __future__ import annotations

import re

from steering.naming import MAX_NAME


def behavior_name(said: str) -> str:
    """`Angry replies!` is `angry-replies`; what is a name already, with its owner and version or without, stays."""
    owner, _, rest = said.strip().lower().rpartition("/")
    name, _, version = rest.partition("@")
    handle = re.sub(r"[^a-z0-9_]+", "-", name)
    handle = re.sub(r"([-_])[-_]+", r"\1", handle).strip("-_")[:MAX_NAME].strip("-_")
    return (f"{owner}/" if owner else "") + (handle or name) + (f"@{version}" if version else "")
