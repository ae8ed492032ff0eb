"""Server-sent events out of lines."""

from __future__ import annotations

from steerboard._wire import Event


class EventReader:
    """Takes lines without their ends, gives an event whenever one is complete."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._event = "message"
        self._id = ""

    def line(self, line: str) -> Event | None:
        if not line:
            return self.end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id":
                self._id = value
        return None

    def end(self) -> Event | None:
        """The event so far, at an empty line. What the end of a stream cuts off is no event."""
        data, event = self._data, self._event
        self._data, self._event = [], "message"
        return Event("\n".join(data), event, self._id or None) if data else None
