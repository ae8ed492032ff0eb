"""HTTP as our server reads it: httptools, with a bound on all that is not body, which that has not."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024  # of a request line and its headers, cookies included, and again of what comes after a body


class BoundedHttp(HttpToolsProtocol):
    _unread = 0  # bytes since a request, or the last piece of its body, began

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"A request may have {MAX_HEAD_BYTES} bytes beside its body, and this one has more.")

    def on_message_begin(self) -> None:
        self._unread = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)
