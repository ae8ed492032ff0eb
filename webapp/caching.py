"""How values lie in a cache that processes share: as JSON, so that reading one can never run code."""

from __future__ import annotations

import json
from typing import Any


class JsonSerializer:
    """For Django's Redis cache. Whole numbers stay numbers, as counting in Redis needs."""

    def __init__(self, protocol: Any = None):
        pass

    def dumps(self, value: Any) -> bytes | int:
        return value if type(value) is int else json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)
