"""What a browser may say on the playground's websocket, version 1. Everything else is refused with a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.types import Wire

SUBPROTOCOL = "steerboard.v1"
MAX_BYTES = 64 * 1024
MAX_PREVIEW_TOKENS = 64


@dataclass(frozen=True)
class RunMessage(Wire):
    """Start a run. The same `idem` never starts a second one. `parent` is continued; `version_of` is done again.

    `lanes` names the lanes to run; the others keep the answers they have in `version_of`.
    """

    idem: str
    settings: dict[str, Any]
    parent: str | None = None
    version_of: str | None = None
    lanes: tuple[str, ...] | None = None
    t: Literal["run"] = "run"


@dataclass(frozen=True)
class SubscribeMessage(Wire):
    """Send every event of a run with a sequence number above `after`, then the ones that follow."""

    run: str
    after: int = -1
    t: Literal["subscribe"] = "subscribe"


@dataclass(frozen=True)
class UnsubscribeMessage(Wire):
    run: str
    t: Literal["unsubscribe"] = "unsubscribe"


@dataclass(frozen=True)
class StopMessage(Wire):
    """Stop one lane, or all of them; what is written stays."""

    run: str
    lane: str | None = None
    t: Literal["stop"] = "stop"


@dataclass(frozen=True)
class PreviewMessage(Wire):
    """The first words of one lane, not saved. A newer one cancels it. `nonce` comes back with the text."""

    nonce: int
    lane: str
    settings: dict[str, Any]
    parent: str | None = None
    n: int = 24
    t: Literal["preview"] = "preview"


@dataclass(frozen=True)
class PingMessage(Wire):
    t: Literal["ping"] = "ping"


Message = RunMessage | SubscribeMessage | UnsubscribeMessage | StopMessage | PreviewMessage | PingMessage

_TYPES: dict[str, type[Any]] = {
    "run": RunMessage,
    "subscribe": SubscribeMessage,
    "unsubscribe": UnsubscribeMessage,
    "stop": StopMessage,
    "preview": PreviewMessage,
    "ping": PingMessage,
}


def parse_message(text: str) -> Message:
    """One message from the wire. Raises InvalidRequest, whatever the text is."""
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise InvalidRequest("too_large", "This message is larger than 64 kB. Shorten the input or the system prompts.")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("bad_json", "This message is not JSON. Reload the page.") from None
    if not isinstance(data, dict):
        raise InvalidRequest("bad_message", "A message must be a JSON object with a field “t”.")
    kind = data.get("t")
    if not isinstance(kind, str) or kind not in _TYPES:
        known = ", ".join(_TYPES)
        raise InvalidRequest("unknown_type", f"{kind!r:.40} is not a message this server knows. It knows {known}.")
    try:
        message: Message = _TYPES[kind].from_wire(data)
    except RecursionError:
        raise InvalidRequest("bad_message", "This message is nested too deeply. Reload the page.") from None
    return message
