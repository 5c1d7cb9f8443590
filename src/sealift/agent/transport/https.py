"""Requests over one kept connection: small files, ranges of large ones, reports.

Every failure leaves as an error of ours and closes the connection, so that the next
request starts clean. Nothing is retried here; only a connection that went stale while
idle is replaced before use.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Final

from sealift.agent import life
from sealift.agent.ports import Answer
from sealift.agent.transport.answers import (
    PROBLEM_MAX,
    REDIRECTS,
    Head,
    check_plain,
    check_range,
    refusal,
)
from sealift.agent.transport.pace import Bucket, Pace
from sealift.agent.transport.url import followed, origin, target
from sealift.agent.transport.wire import (
    HEAD_MAX,
    Connection,
    TlsFiles,
    tls_context,
    translated,
)
from sealift.core.errors import FailedTransferError, LimitError, NotFoundError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from http.client import HTTPResponse

    from sealift.agent.ports import Clock

_PIECE: Final = 64 * 1024
_REDIRECTS_MAX: Final = 3
_AGENT: Final = "sealift-agent"
_SINGLE: Final = frozenset({"content-length", "content-range", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every transfer. Rates in bytes per second, window in seconds.

    An answer that comes below ``rate_min`` over a whole ``window`` is given up (E4).
    ``rate_max`` is this device's own; 0 is as fast as it goes.
    """

    rate_min: float = 1024
    window: float = 60
    rate_max: float = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """One question; ``length`` is the most bytes its answer may have."""

    method: str
    url: str
    length: int
    headers: Mapping[str, str]
    body: bytes | None = None


class HttpsTransport:
    """:class:`~sealift.agent.ports.Transport` over HTTPS with a client certificate.

    ``floor`` gives the least that the time can be, in Unix seconds. The client
    certificate is shown to the origin of ``base`` and to nobody else; the pinned CA
    file holds for a server that a payload is redirected to as well. Not for use by
    several threads at a time.
    """

    def __init__(
        self,
        base: str,
        files: TlsFiles,
        clock: Clock,
        *,
        floor: Callable[[], float],
        limits: Limits | None = None,
    ) -> None:
        self._base = base.rstrip("/") + "/"
        self._home = origin(self._base)
        self._files = files
        self._clock = clock
        self._floor = floor
        self._limits = limits or Limits()
        self._context = tls_context(files)
        self._foreign: ssl.SSLContext | None = None
        self._kept: Connection | None = None
        self._session: ssl.SSLSession | None = None
        self._bucket: Bucket | None = None
        if self._limits.rate_max:
            self._bucket = Bucket(self._limits.rate_max, clock.monotonic())
        self._etags: dict[str, str] = {}

    # ── the port ─────────────────────────────────────────────────────────────────────
    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        """Fetch a small file whole; never follows a redirect.

        Raises:
            LimitError: more than ``limit`` bytes. FailedTransferError,
            SlowTransferError, AuthRequiredError, RevokedError: as named.
        """
        headers = {"If-None-Match": etag} if etag else {}
        asked = _Request("GET", self._base + path, limit, headers)
        with self._answer(asked) as (head, response):
            if head.status == 304 and etag:
                self._drain(response)
                return Answer(304, b"", etag, head.poll_seconds)
            if head.status == 200:
                body = self._body(head, response, limit)
                return Answer(200, body, head.etag, head.poll_seconds)
            error = refusal(head, self._problem(response), sent=False)
            if isinstance(error, NotFoundError):
                return Answer(404)
            raise error

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        """POST ``body``; the answer, at most ``limit`` bytes.

        Raises:
            RequestError: the server refuses the content (the code is the server's).
            AuthRequiredError, RevokedError: it refuses this device.
            TransportError: try again later; ``retry_after`` seconds if it said so.
            LimitError: the answer is longer.
        """
        return self.post(path, body, "application/json", limit=limit)

    def post(self, path: str, body: bytes, media: str, *, limit: int) -> bytes:
        """The same for a body of another media type."""
        headers = {"Content-Type": media}
        asked = _Request("POST", self._base + path, limit, headers, body)
        with self._answer(asked) as (head, response):
            if head.status == 204:
                self._drain(response)
                return b""
            if head.status in {200, 201, 202}:
                return self._body(head, response, limit)
            raise refusal(head, self._problem(response), sent=True)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        """Bytes ``[start, stop)`` of a file of ``length`` bytes, in pieces ≤ 64 KiB.

        A redirect is followed up to three times, to https only, and another origin is
        not shown the client certificate. A known entity tag goes along as ``If-Range``,
        so a file that changed comes whole, from its first byte; a part of it under
        another tag is refused, and the tag forgotten.

        Raises:
            FailedTransferError, SlowTransferError: as named. NotFoundError: 404, 410.
            AuthRequiredError, RevokedError: as named.
            LengthError: the server tells another total length than ``length``.
        """
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if path in self._etags:
            headers["If-Range"] = self._etags[path]
        url = self._base + path
        for _ in range(_REDIRECTS_MAX + 1):
            asked = _Request("GET", url, length, headers)
            with self._answer(asked) as (head, response):
                if head.status not in REDIRECTS:
                    self._require(head, response, {200, 206})
                    self._remember(path, head)
                    begin = check_range(head, start, stop, length)
                    _check_drop(start - begin, drop_max)
                    yield from self._span(response, start - begin, stop - begin)
                    return
                self._drain(response)
            url = followed(url, head)
        raise FailedTransferError("the server redirects without end")

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._kept is not None:
            self._session = self._kept.session
            self._kept.drop()
            self._kept = None

    def reload(self, files: TlsFiles) -> None:
        """Be somebody else from now on: with the next request, another connection.

        Raises:
            InvalidConfigError, KeyUnreadableError: the files cannot be used; nothing
            changed.
        """
        context = tls_context(files)
        self.close()
        self._files, self._context, self._session = files, context, None

    # ── requests ─────────────────────────────────────────────────────────────────────
    @contextlib.contextmanager
    def _answer(self, asked: _Request) -> Iterator[tuple[Head, HTTPResponse]]:
        """Ask, and hand out the head of the answer with the reader of its body.

        The connection is kept only if the body was read to its end.
        """
        connection, response = None, None
        try:
            connection = self._connection(origin(asked.url))
            response = self._ask(connection, asked)
            yield _head(response), response
        except (OSError, HTTPException, ValueError) as error:
            raise translated(error) from error
        finally:
            if connection is not None:
                self._settle(connection, response)

    def _ask(self, connection: Connection, asked: _Request) -> HTTPResponse:
        watch, limits = connection.watch, self._limits
        headers = {**asked.headers, "User-Agent": _AGENT}
        connection.request(asked.method, target(asked.url), asked.body, headers)
        watch.pace = Pace(limits.rate_min, limits.window, asked.length + HEAD_MAX)
        watch.expect_head()
        response = connection.getresponse()
        watch.expect_body()
        return response

    def _connection(self, where: tuple[str, int]) -> Connection:
        """The kept connection if it is still good, else a new one."""
        if where != self._home:
            if self._foreign is None:
                self._foreign = tls_context(TlsFiles(self._files.ca))
            return Connection(where, self._foreign, self._clock, floor=self._floor)
        kept, self._kept = self._kept, None
        if kept is not None:
            if not kept.stale():
                return kept
            kept.drop()
        return Connection(
            where, self._context, self._clock, floor=self._floor, session=self._session
        )

    def _settle(self, connection: Connection, response: HTTPResponse | None) -> None:
        """Keep the connection if its answer is over, else drop it; keep the session."""
        over = response is not None and response.isclosed() and not response.will_close
        ours = connection.origin == self._home
        if ours:
            self._session = connection.session
        if ours and over:
            self._kept = connection
        else:
            connection.drop()

    # ── bodies ───────────────────────────────────────────────────────────────────────
    def _body(self, head: Head, response: HTTPResponse, limit: int) -> bytes:
        check_plain(head)
        if head.length is not None and head.length > limit:
            raise LimitError(f"the answer is longer than {limit} bytes", limit=limit)
        body = b"".join(self._pieces(response, limit + 1))
        if len(body) > limit:
            raise LimitError(f"the answer is longer than {limit} bytes", limit=limit)
        if head.length is not None and len(body) != head.length:
            raise FailedTransferError("the answer was cut short")
        return body

    def _problem(self, response: HTTPResponse) -> bytes:
        """The body of a refusal, as far as anybody will read it."""
        return b"".join(self._pieces(response, PROBLEM_MAX))

    def _drain(self, response: HTTPResponse) -> None:
        """Read a body nobody needs, so that the connection can be kept."""
        self._problem(response)

    def _require(self, head: Head, response: HTTPResponse, good: set[int]) -> None:
        if head.status not in good:
            raise refusal(head, self._problem(response), sent=False)

    def _span(self, response: HTTPResponse, drop: int, most: int) -> Iterator[bytes]:
        """The bytes of a body from ``drop`` to ``most``, all of them."""
        at = 0
        for piece in self._pieces(response, most):
            if at + len(piece) > drop:
                yield piece[max(0, drop - at) :]
            at += len(piece)
        if at != most:
            raise FailedTransferError("the answer was cut short", bytes=at)

    def _pieces(self, response: HTTPResponse, most: int) -> Iterator[bytes]:
        """At most ``most`` bytes of a body, no faster than this device allows."""
        while most and (piece := response.read(min(_PIECE, most))):
            most -= len(piece)
            self._brake(len(piece))
            yield piece

    def _brake(self, count: int) -> None:
        if self._bucket is not None:
            pause = self._bucket.take(count, self._clock.monotonic())
            if pause:
                with life.within(pause):
                    self._clock.sleep(pause)

    def _remember(self, path: str, head: Head) -> None:
        """Keep the strong entity tag of one file at a time.

        Raises:
            FailedTransferError: a part of another file than the one known (RFC 9110,
                15.3.7: parts are combined only under one strong tag).
        """
        etag = head.etag
        if etag is None or not etag.startswith('"'):
            return
        known = self._etags.pop(path, etag)
        if head.status == 206 and etag != known:
            raise FailedTransferError("the file changed on the server in the meantime")
        self._etags = {path: etag}


def _head(response: HTTPResponse) -> Head:
    """Status and headers; what decides about lengths may stand there only once."""
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        if headers.setdefault(name.lower(), value) != value and name.lower() in _SINGLE:
            raise FailedTransferError(f"the answer has two values for {name.lower()}")
    return Head(response.status, headers)


def _check_drop(drop: int, drop_max: int) -> None:
    if drop > drop_max:
        raise FailedTransferError(
            "the server cannot continue a download and would start from zero",
            hint="use a server or proxy that answers range requests",
            drop=drop,
        )
