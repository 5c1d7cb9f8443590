"""A file server on loopback that answers several ranges at once, as zchunk asks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

_BORDER = "sealift-benchmark"
_RANGE = re.compile(r"(\d+)-(\d+)")


@contextmanager
def serve_ranges(file: Path) -> Iterator[tuple[str, list[int]]]:
    """The address of one file while the block lasts, and the bytes of each answer."""
    lengths: list[int] = []

    class Handler(_Handler):
        content = file.read_bytes()
        sent = lengths

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{file.name}", lengths
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    content = b""
    sent: ClassVar[list[int]]

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        ranges = [(int(m[1]), int(m[2]) + 1) for m in _RANGE.finditer(asked)]
        if not ranges:
            self._answer(200, {}, self.content)
        elif len(ranges) == 1:
            (start, stop) = ranges[0]
            fields = {"Content-Range": self._place(start, stop)}
            self._answer(206, fields, self.content[start:stop])
        else:
            kind = f"multipart/byteranges; boundary={_BORDER}"
            self._answer(206, {"Content-Type": kind}, self._parts(ranges))

    def _parts(self, ranges: list[tuple[int, int]]) -> bytes:
        parts = [
            f"\r\n--{_BORDER}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: {self._place(start, stop)}\r\n\r\n".encode()
            + self.content[start:stop]
            for start, stop in ranges
        ]
        return b"".join([*parts, f"\r\n--{_BORDER}--\r\n".encode()])

    def _place(self, start: int, stop: int) -> str:
        return f"bytes {start}-{stop - 1}/{len(self.content)}"

    def _answer(self, status: int, fields: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.sent.append(len(body))  # before the client can have it all
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
