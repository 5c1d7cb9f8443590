"""The network in memory: a server is a function, an attacker is a function around it.

A :data:`Server` takes a :class:`Request` and gives a :class:`Response`; an
:data:`Attacker` takes the server it stands before and the request. Attackers compose in
a :class:`Wire`, the first one nearest to the device::

    wire.attackers = (drop("director/manifest"), replace({path: forged}))

:class:`MemoryTransport` is the device's end (the ``Transport`` port), without sockets
or TLS. It judges answers with the agent's own pure parts, ``answers`` and ``pace``, by
an injected clock, so that an hour of dripping bytes takes no time. The same wire can be
served over real TLS: ``sim.attacks.loopback``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sealift.agent.ports import Answer
from sealift.agent.transport.answers import (
    PROBLEM_MAX,
    Head,
    check_plain,
    check_range,
    refusal,
)
from sealift.agent.transport.pace import Pace
from sealift.core.errors import (
    FailedTransferError,
    LengthError,
    LimitError,
)

if TYPE_CHECKING:
    from sealift.agent.ports import Clock

__all__ = [
    "Attacker",
    "MemoryTransport",
    "Request",
    "Response",
    "Server",
    "Wire",
    "alter",
    "answer",
    "cut",
    "delay",
    "drip",
    "drop",
    "endless",
    "file_server",
    "headers",
    "on",
    "replace",
    "replay",
    "status",
]

POLL_SECONDS = 300
PIECE_BYTES = 1 << 16
RATE, WINDOW = 1024.0, 60.0
"""Lowest accepted rate, bytes per second over any window of so many seconds (E4)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a device asks for. ``span`` is a byte range ``[start, stop)``, if any."""

    method: str
    path: str
    body: bytes = b""
    span: tuple[int, int] | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What comes back: a status, headers in lower case, and pieces that take time.

    A piece is bytes, or a number of seconds in which nothing comes. ``broken`` means
    that the connection breaks after the last piece.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes | float] = ()
    broken: bool = False

    @property
    def body(self) -> bytes:
        """All bytes; only for bodies that end."""
        return b"".join(piece for piece in self.pieces if isinstance(piece, bytes))


Server = Callable[[Request], Response]
Attacker = Callable[[Server, Request], Response]


def answer(body: bytes, code: int = 200, /, **more: str) -> Response:
    """A whole answer with its length; ``more`` are headers, ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return Response(code, {"content-length": str(len(body)), **named}, (body,))


# ── an honest server ─────────────────────────────────────────────────────────────────
def file_server(
    files: Callable[[], Mapping[str, bytes]], take: Callable[[bytes], bytes]
) -> Server:
    """The device listener over files by path; ``take`` gets what is posted."""

    def serve(request: Request) -> Response:
        if request.method == "POST":
            return answer(take(request.body), content_type="application/json")
        found = files().get(request.path)
        if found is None:
            return _absent()
        etag = f'"{hashlib.sha256(found).hexdigest()[:32]}"'
        more = {"etag": etag, "sealift_poll_seconds": str(POLL_SECONDS)}
        if request.etag == etag:
            return answer(b"", 304, **more)
        if request.span is None:
            return answer(found, **more)
        return _ranged(found, request.span, more)

    return serve


def _ranged(found: bytes, span: tuple[int, int], more: Mapping[str, str]) -> Response:
    start, stop = span
    where = f"bytes {start}-{stop - 1}/{len(found)}"
    return answer(found[start:stop], 206, content_range=where, **more)


def _absent() -> Response:
    problem = {"code": "input.not_found", "title": "not found", "status": 404}
    body = json.dumps(problem).encode()
    return answer(body, 404, content_type="application/problem+json")


# ── the wire ─────────────────────────────────────────────────────────────────────────
@dataclass
class Wire:
    """The way between one device and its server, with whoever stands in it.

    ``requests`` are all requests that came, in order, whatever became of them.
    """

    server: Server
    attackers: tuple[Attacker, ...] = ()
    requests: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        """What the device gets."""
        self.requests.append(request)
        return self._pass(request, self.attackers)

    def _pass(self, request: Request, before: tuple[Attacker, ...]) -> Response:
        if not before:
            return self.server(request)
        first, *rest = before
        return first(lambda it: self._pass(it, tuple(rest)), request)

    def asked(self, pattern: str) -> int:
        """How many requests there were for paths like ``pattern``."""
        return sum(fnmatchcase(request.path, pattern) for request in self.requests)


# ── attackers ────────────────────────────────────────────────────────────────────────
def replace(files: Mapping[str, bytes | None]) -> Attacker:
    """Serve these bytes under these paths, ``None`` for "there is none"."""

    def attacker(server: Server, request: Request) -> Response:
        if request.method != "GET" or request.path not in files:
            return server(request)
        found = {p: raw for p, raw in files.items() if raw is not None}
        return file_server(lambda: found, lambda _: b"")(request)

    return attacker


def replay(files: Mapping[str, bytes]) -> Attacker:
    """Serve what was recorded, whole, and nothing that is newer."""
    served = file_server(lambda: files, lambda _: b"")

    def attacker(server: Server, request: Request) -> Response:
        return served(request) if request.method == "GET" else server(request)

    return attacker


def on(pattern: str, act: Callable[[Request, Response], Response]) -> Attacker:
    """Let ``act`` change the answers for paths like ``pattern``."""

    def attacker(server: Server, request: Request) -> Response:
        if not fnmatchcase(request.path, pattern):
            return server(request)
        return act(request, server(request))

    return attacker


def status(pattern: str, code: int) -> Attacker:
    """Answer with this status and no body."""
    return on(pattern, lambda _request, _response: answer(b"", code))


def drop(pattern: str = "*") -> Attacker:
    """Let nothing through: no answer ever comes."""

    def attacker(server: Server, request: Request) -> Response:
        if fnmatchcase(request.path, pattern):
            raise FailedTransferError("no answer came", path=request.path)
        return server(request)

    return attacker


def alter(pattern: str, change: Callable[[bytes], bytes]) -> Attacker:
    """Change the bytes of a body; head and length are as if it had always been so."""

    def act(request: Request, response: Response) -> Response:
        del request
        body = change(response.body)
        named = {**response.headers, "content-length": str(len(body))}
        return Response(response.status, named, (body,), response.broken)

    return on(pattern, act)


def headers(pattern: str, **changed: str) -> Attacker:
    """Change headers of the answer; ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in changed.items()}

    def act(request: Request, response: Response) -> Response:
        del request
        return Response(response.status, {**response.headers, **named}, response.pieces)

    return on(pattern, act)


def cut(pattern: str, at: int, *, silently: bool = False) -> Attacker:
    """End the body after ``at`` bytes; ``silently``: with a length that fits."""

    def act(request: Request, response: Response) -> Response:
        del request
        body = response.body[:at]
        length = len(body) if silently else len(response.body)
        named = {**response.headers, "content-length": str(length)}
        return Response(response.status, named, (body,), broken=not silently)

    return on(pattern, act)


def endless(pattern: str, *, length: int | None = None) -> Attacker:
    """A body without end; ``length`` is what the head says, else it comes in chunks."""

    def pieces() -> Iterator[bytes]:
        while True:
            yield b" " * PIECE_BYTES

    def act(request: Request, response: Response) -> Response:
        del request
        named = {k: v for k, v in response.headers.items() if k != "content-length"}
        named |= (
            {"transfer-encoding": "chunked"}
            if length is None
            else {"content-length": str(length)}
        )
        return Response(response.status, named, pieces())

    return on(pattern, act)


def drip(
    pattern: str, *, count: int, seconds: float, burst: int = 0, stall: float = 0.0
) -> Attacker:
    """``burst`` bytes at once, a ``stall``, then ``count`` bytes every ``seconds``."""

    def act(request: Request, response: Response) -> Response:
        del request
        body = response.body

        def pieces() -> Iterator[bytes | float]:
            yield body[:burst]
            yield stall
            for at in range(burst, len(body), count):
                yield body[at : at + count]
                yield seconds

        return Response(response.status, response.headers, pieces())

    return on(pattern, act)


def delay(pattern: str, seconds: float) -> Attacker:
    """The whole answer, later."""

    def act(request: Request, response: Response) -> Response:
        del request
        return Response(response.status, response.headers, (seconds, *response.pieces))

    return on(pattern, act)


# ── the device's end ─────────────────────────────────────────────────────────────────
class MemoryTransport:
    """:class:`~sealift.agent.ports.Transport` over a wire; ``clock`` waits for it."""

    def __init__(self, wire: Server, clock: Clock) -> None:
        self._wire = wire
        self._clock = clock

    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        """Fetch a small file whole.

        Raises:
            as the port says.
        """
        response = self._wire(Request("GET", path, etag=etag))
        head = Head(response.status, response.headers)
        if head.status in {304, 403, 404, 410}:
            code = 304 if head.status == 304 else 404
            return Answer(code, b"", head.etag, head.poll_seconds)
        body = self._whole(head, response, limit)
        if head.status != 200:
            raise refusal(head, body, sent=False)
        return Answer(200, body, head.etag, head.poll_seconds)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        """Bytes ``[start, stop)`` of a file of ``length`` bytes.

        Raises:
            as the port says.
        """
        response = self._wire(Request("GET", path, span=(start, stop)))
        head = Head(response.status, response.headers)
        if head.status not in {200, 206}:
            raise refusal(head, self._whole(head, response, PROBLEM_MAX), sent=False)
        check_plain(head)
        begins = check_range(head, start, stop, length)
        if start - begins > drop_max:
            raise FailedTransferError("too much would have to be dropped")
        yield from self._span(response, start - begins, stop - start)

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        """POST ``body``; the answer.

        Raises:
            as the port says.
        """
        response = self._wire(Request("POST", path, body))
        head = Head(response.status, response.headers)
        said = self._whole(head, response, limit)
        if head.status != 200:
            raise refusal(head, said, sent=True)
        return said

    def _whole(self, head: Head, response: Response, limit: int) -> bytes:
        check_plain(head)
        if head.length is not None and head.length > limit:
            raise LimitError(f"an answer of {head.length} bytes, {limit} allowed")
        body = bytearray()
        for piece in self._paced(response, limit):
            body += piece
            if len(body) > limit:
                raise LimitError(f"an answer of more than {limit} bytes")
        if response.broken or (head.length is not None and len(body) != head.length):
            raise FailedTransferError("the answer was cut short")
        return bytes(body)

    def _span(self, response: Response, skip: int, count: int) -> Iterator[bytes]:
        left = count
        for piece in self._paced(response, skip + count):
            dropped = min(skip, len(piece))
            skip -= dropped
            rest = piece[dropped:]
            if len(rest) > left:
                if response.status == 206:
                    raise LengthError("more bytes than were asked for")
                rest = rest[:left]  # a whole file, of which no more was asked for
            left -= len(rest)
            for at in range(0, len(rest), PIECE_BYTES):
                yield rest[at : at + PIECE_BYTES]
            if not left and not skip:
                return
        raise FailedTransferError("the answer was cut short")

    def _paced(self, response: Response, length: int) -> Iterator[bytes]:
        pace = Pace(RATE, WINDOW, max(length, 1))
        for piece in response.pieces:
            if isinstance(piece, bytes):
                pace.add(0.0, len(piece))
                yield piece
            else:
                self._clock.sleep(piece)
                pace.add(piece, 0)
