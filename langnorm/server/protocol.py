"""HTTP as the server reads it: by the parser that costs least, with the limit that it lacks."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_BYTES = 64 * 1024
"""Of a request, before and after its body; the head of a usual one has less than one in a hundred of them."""


class BoundedProtocol(HttpToolsProtocol):
    """Reads HTTP by httptools, and ends connections that go on and on outside a body that somebody reads.

    httptools itself keeps whatever comes of an address or a header, without end.
    """

    _num_unused_bytes = 0
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._num_unused_bytes += len(data)
        super().data_received(data)
        if self._num_unused_bytes <= _MAX_BYTES or self.transport.is_closing():
            return
        if self._is_in_head and (self.cycle is None or self.cycle.response_complete):
            self.send_400_response(f"The head of a request may have {_MAX_BYTES} bytes.")
        else:  # an error would be read as a part of the answer, or as a second one
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._num_unused_bytes, self._is_in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; what comes after the answer is of no use."""
        if not self.cycle.response_complete:
            self._num_unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._num_unused_bytes, self._is_in_head = 0, True
        super().on_message_complete()
