"""HTTPS to a real server on this machine, honest and hostile."""

from __future__ import annotations

import datetime as dt
import errno
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.client import BadStatusLine
from pathlib import Path

import pytest

from sealift.agent.transport import HttpsTransport, Limits, TlsFiles, tls_context
from sealift.agent.transport.wire import translated
from sealift.core.errors import (
    AuthRequiredError,
    FailedTransferError,
    InvalidConfigError,
    InvalidInputError,
    KeyUnreadableError,
    LengthError,
    LimitError,
    NotFoundError,
    ReportReplayError,
    RevokedError,
    SealiftError,
    SlowTransferError,
)
from tests.tls_server import Asked, Files, Handler, Pki, TlsServer, raw, reply
from tests.unit.agent.system_clock import SystemClock

DATA = bytes(range(256)) * 1000
LENGTH = len(DATA)
PATH = "/base/files/x"
QUICK = Limits(rate_min=64 * 1024, window=0.4)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def transport(
    server: TlsServer,
    *,
    files: TlsFiles | None = None,
    limits: Limits | None = None,
    floor: float = 0.0,
    clock: SystemClock | None = None,
) -> HttpsTransport:
    return HttpsTransport(
        server.url + "/base",
        files or server.pki.files(),
        clock or SystemClock(),
        floor=lambda: floor,
        limits=limits,
    )


def ask(pki: Pki, handler: Handler, **kwargs: object) -> bytes:
    """The body of a small file, from a server with this handler."""
    with TlsServer(pki, handler) as server:
        way = transport(server, **kwargs)  # type: ignore[arg-type]
        try:
            return way.get("files/x", limit=1000).body
        finally:
            way.close()


def span(
    pki: Pki,
    handler: Handler,
    start: int = 1000,
    stop: int = 200_000,
    drop_max: int = 0,
    **kwargs: object,
) -> bytes:
    """Bytes of a large file, from a server with this handler."""
    with TlsServer(pki, handler) as server:
        way = transport(server, **kwargs)  # type: ignore[arg-type]
        try:
            return b"".join(
                way.stream(
                    "files/x", start=start, stop=stop, length=LENGTH, drop_max=drop_max
                )
            )
        finally:
            way.close()


# ── what works ───────────────────────────────────────────────────────────────────────
def test_a_small_file_comes_with_its_tag_and_the_poll_interval(pki: Pki) -> None:
    """Body, entity tag and ``Sealift-Poll-Seconds`` reach the caller."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        reply(conn, 200, b"{}", ETag='"7"', Sealift_Poll_Seconds=300)

    with TlsServer(pki, handler) as server:
        way = transport(server)
        found = way.get("director/metadata/timestamp.json", limit=10)
        way.close()
    assert (found.status, found.body, found.etag, found.poll_seconds) == (
        200,
        b"{}",
        '"7"',
        300,
    )
    asked = server.asked[0]
    assert asked.target == "/base/director/metadata/timestamp.json"
    assert (asked.peer, asked.headers["accept-encoding"]) == ("device", "identity")


def test_an_unchanged_file_is_not_sent_again(pki: Pki) -> None:
    """``If-None-Match`` goes out, 304 comes back with the interval."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        status = 304 if asked.headers.get("if-none-match") == '"7"' else 200
        reply(conn, status, Sealift_Poll_Seconds=60)

    with TlsServer(pki, handler) as server:
        way = transport(server)
        for _ in range(2):
            found = way.get("x", limit=10, etag='"7"')
            assert (found.status, found.etag, found.poll_seconds) == (304, '"7"', 60)
        way.close()
    assert server.connections == 1


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_absent_is_an_answer(pki: Pki, status: int) -> None:
    """404 is "none newer"; 403 and 410 count as 404 (uptane.md section 9)."""
    with TlsServer(pki, lambda asked, conn: reply(conn, status)) as server:
        way = transport(server)
        assert way.get("director/metadata/2.root.json", limit=10).status == 404
        way.close()


def test_a_range_comes_whole_over_one_kept_connection(pki: Pki) -> None:
    """Exactly the bytes asked for, several ranges, one connection."""
    with TlsServer(pki, Files({PATH: DATA})) as server:
        way = transport(server)
        for start, stop in ((0, LENGTH), (5, 6), (1000, 200_000), (LENGTH - 1, LENGTH)):
            stream = way.stream(
                "files/x", start=start, stop=stop, length=LENGTH, drop_max=0
            )
            assert b"".join(stream) == DATA[start:stop]
        way.close()
    assert server.connections == 1
    assert [asked.headers.get("if-range") for asked in server.asked] == [None] + [
        '"one"'
    ] * 3


def two_ranges(pki: Pki, *handlers: Handler, drop_max: int = 0) -> list[object]:
    """One range after the other, each from the next handler; error codes for errors."""
    answers = iter(handlers)
    found: list[object] = []

    def in_turn(asked: Asked, conn: ssl.SSLSocket) -> None:
        next(answers)(asked, conn)

    with TlsServer(pki, in_turn) as server:
        way = transport(server)
        for start in range(1000, 1000 + 1000 * len(handlers), 1000):
            stream = way.stream(
                "files/x",
                start=start,
                stop=start + 1000,
                length=LENGTH,
                drop_max=drop_max,
            )
            try:
                found.append(b"".join(stream))
            except SealiftError as error:
                found.append(error.code)
        way.close()
    found.append([asked.headers.get("if-range") for asked in server.asked])
    return found


FIRST, SECOND, THIRD = (DATA[at : at + 1000] for at in (1000, 2000, 3000))


def test_a_file_that_changed_comes_whole(pki: Pki) -> None:
    """200 to If-Range: read from zero if that is paid for, and the new tag is kept."""
    old, new = Files({PATH: DATA}), Files({PATH: DATA}, etag='"two"')

    def whole(asked: Asked, conn: ssl.SSLSocket) -> None:
        reply(conn, 200, DATA, ETag='"two"')

    found = two_ranges(pki, old, whole, new, drop_max=LENGTH)
    assert found == [FIRST, SECOND, THIRD, [None, '"one"', '"two"']]


def test_a20_a_part_of_another_file_is_refused(pki: Pki) -> None:
    """206 under another strong tag, whatever it holds; the next one asks without."""
    old, new = Files({PATH: DATA}), Files({PATH: DATA}, etag='"two"')
    found = two_ranges(pki, old, new, new)
    assert found == [FIRST, "transport.failed", THIRD, [None, '"one"', None]]


def test_pieces_are_small(pki: Pki) -> None:
    """No piece is larger than 64 KiB."""
    with TlsServer(pki, Files({PATH: DATA})) as server:
        way = transport(server)
        stream = way.stream("files/x", start=0, stop=LENGTH, length=LENGTH, drop_max=0)
        assert max(map(len, stream)) <= 65_536
        way.close()


def test_closing_a_stream_early_drops_the_connection(pki: Pki) -> None:
    """Bytes nobody wants are not waited for; the next request connects anew."""
    with TlsServer(pki, Files({PATH: DATA})) as server:
        way = transport(server)
        stream = way.stream("files/x", start=0, stop=LENGTH, length=LENGTH, drop_max=0)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert way.get("nothing", limit=10).status == 404
        way.close()
    assert server.connections == 2


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_new_connection_resumes_the_tls_session(
    pki: Pki, newest: ssl.TLSVersion
) -> None:
    """After good-bye, the next handshake is a short one (server.md section 6)."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        reply(conn, 200, b"{}", Connection="close")
        raise ConnectionAbortedError

    with TlsServer(pki, handler, newest=newest) as server:
        way = transport(server)
        for _ in range(3):
            way.get("x", limit=10)
        way.close()
    assert [asked.resumed for asked in server.asked] == [False, True, True]


def test_an_idle_connection_that_died_is_replaced(pki: Pki) -> None:
    """A server may hang up between two polls; nobody notices."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        reply(conn, 200, b"{}")
        if len(server.asked) == 1:
            raise ConnectionAbortedError

    with TlsServer(pki, handler) as server:
        way = transport(server)
        way.get("x", limit=10)
        time.sleep(0.1)
        assert way.get("x", limit=10).body == b"{}"
        way.close()


def test_a_report_is_posted_and_answered(pki: Pki) -> None:
    """The body arrives byte for byte, the answer comes back."""
    with TlsServer(pki, lambda asked, conn: reply(conn, 200, b"{}")) as server:
        way = transport(server)
        assert way.put("director/manifest", DATA, limit=100) == b"{}"
        way.close()
    assert (server.asked[0].method, server.asked[0].body) == ("POST", DATA)


def test_an_answer_without_content_is_empty(pki: Pki) -> None:
    """204 to a report is enough."""
    with TlsServer(pki, raw("HTTP/1.1 204 X", close=False)) as server:
        way = transport(server)
        assert way.put("director/manifest", b"{}", limit=10) == b""
        assert way.put("director/manifest", b"{}", limit=10) == b""
        way.close()
    assert server.connections == 1


FOREIGN: list[tuple[Exception, str]] = [
    (
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        "name is not known",
    ),
    (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "Connection refused"),
    (TimeoutError(), "TimeoutError"),
    (ssl.SSLError(1, "x"), "TLS failed"),
    (BadStatusLine("\x1b[2Jevil"), "BadStatusLine"),
    (UnicodeError("label too long"), "UnicodeError"),
]


@pytest.mark.parametrize(("error", "said"), FOREIGN)
def test_foreign_errors_become_ours_and_quote_nobody(
    error: Exception, said: str
) -> None:
    """No socket, TLS or HTTP error leaves the transport, nor a text of the server's."""
    found = translated(error)
    assert isinstance(found, FailedTransferError)
    assert said in found.message
    assert "evil" not in found.message


def test_the_system_clock_is_not_believed(pki: Pki) -> None:
    """A certificate outside its dates passes if verified time does not forbid it."""
    handler: Handler = lambda asked, conn: reply(conn, 200, b"{}")  # noqa: E731
    after = dt.datetime(2026, 1, 3, tzinfo=dt.UTC).timestamp()
    with TlsServer(pki, handler, who="expired") as server:
        way = transport(server, floor=0)
        assert way.get("x", limit=10).body == b"{}"
        way.close()
        late = transport(server, floor=after)
        with pytest.raises(FailedTransferError, match="expired"):
            late.get("x", limit=10)
        late.close()


# ── A-32: whom not to talk to ────────────────────────────────────────────────────────
@pytest.mark.parametrize("who", ["stranger", "wrong-name"])
def test_a32_another_authority_or_name_is_refused(pki: Pki, who: str) -> None:
    """Only the pinned CA, and only the configured host name."""
    with TlsServer(pki, Files({}), who=who) as server:
        way = transport(server)
        with pytest.raises(FailedTransferError) as caught:
            way.get("x", limit=10)
        assert "CA file" in (caught.value.hint or "")
    assert server.asked == []


def test_a32_old_tls_is_refused(pki: Pki) -> None:
    """TLS 1.1 and below do not connect (CVE-2014-3566 and its kin)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.TLSVersion.TLSv1_1
        with (
            TlsServer(pki, Files({}), newest=old) as server,
            pytest.raises(FailedTransferError),
        ):
            transport(server).get("x", limit=10)
    assert server.connections == 0


def test_no_server_is_a_failed_transfer(pki: Pki) -> None:
    """A-20: nobody listens."""
    with TlsServer(pki, Files({})) as server:
        way = transport(server)
    with pytest.raises(FailedTransferError):
        way.get("x", limit=10)


@pytest.mark.parametrize(
    "location", ["http://localhost/x", "https://u:p@localhost/x", "", "//"]
)
def test_a32_a_redirect_away_from_https_is_refused(pki: Pki, location: str) -> None:
    """A payload may be elsewhere, but never in the clear (CVE-2019-3462)."""
    with pytest.raises(FailedTransferError):
        span(pki, lambda asked, conn: reply(conn, 302, Location=location))


def test_a32_metadata_and_reports_are_never_redirected(pki: Pki) -> None:
    """A redirect of a small file or a report is a failure."""
    with TlsServer(pki, lambda asked, conn: reply(conn, 302, Location="/x")) as server:
        way = transport(server)
        with pytest.raises(FailedTransferError):
            way.get("x", limit=10)
        with pytest.raises(SealiftError):
            way.put("x", b"", limit=10)
        way.close()
    assert len(server.asked) == 2


def test_a_redirected_payload_is_fetched_without_our_certificate(pki: Pki) -> None:
    """Object storage gets no look at the device's identity."""
    with TlsServer(pki, Files({"/blob?k=1": DATA})) as store:
        target = store.url + "/blob?k=1"
        found = span(pki, lambda asked, conn: reply(conn, 307, Location=target))
    assert found == DATA[1000:200_000]
    assert store.asked[0].peer is None


def test_redirects_end(pki: Pki) -> None:
    """Three are followed, a circle is not."""
    asked_for: list[str] = []

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        asked_for.append(asked.target)
        reply(conn, 302, Location="/base/files/x")

    with pytest.raises(FailedTransferError, match="redirects"):
        span(pki, handler)
    assert len(asked_for) == 4


# ── hostile answers to small files ───────────────────────────────────────────────────
SMALL: list[tuple[str, str, bytes, type[SealiftError]]] = [
    ("A-16: one byte more than the limit", "HTTP/1.1 200 X\nContent-Length: 1001", bytes(1001), LimitError),
    ("A-16: chunks without end", "HTTP/1.1 200 X\nTransfer-Encoding: chunked", b"400\r\n" + bytes(1024) + b"\r\n400\r\n", LimitError),
    ("A-16: a length no file has", "HTTP/1.1 200 X\nContent-Length: 99999999999999999999", b"", LimitError),
    ("A-18: cut short", "HTTP/1.1 200 X\nContent-Length: 900", bytes(899), FailedTransferError),
    ("A-18: cut in the head", "HTTP/1.1 200 X\nContent-", b"", FailedTransferError),
    ("A-18: cut in a chunk", "HTTP/1.1 200 X\nTransfer-Encoding: chunked", b"10\r\nabc", FailedTransferError),
    ("no length and no chunks", "HTTP/1.1 200 X", b"abc", FailedTransferError),
    ("both length and chunks", "HTTP/1.1 200 X\nContent-Length: 3\nTransfer-Encoding: chunked", b"0\r\n\r\n", FailedTransferError),
    ("two lengths", "HTTP/1.1 200 X\nContent-Length: 3\nContent-Length: 4", b"abcd", FailedTransferError),
    ("a negative length", "HTTP/1.1 200 X\nContent-Length: -1", b"abc", FailedTransferError),
    ("A-32: gzip", "HTTP/1.1 200 X\nContent-Length: 3\nContent-Encoding: gzip", b"abc", FailedTransferError),
    ("a transfer coding nobody knows", "HTTP/1.1 200 X\nTransfer-Encoding: br\nContent-Length: 3", b"abc", FailedTransferError),
    ("a status that is none", "HTTP/1.1 xyz", b"", FailedTransferError),
    ("not HTTP", "SSH-2.0-OpenSSH_9.2", b"", FailedTransferError),
    ("an unasked 304", "HTTP/1.1 304 X\nContent-Length: 0", b"", FailedTransferError),
    ("206 to a small file", "HTTP/1.1 206 X\nContent-Length: 0", b"", FailedTransferError),
    ("a server error", "HTTP/1.1 500 X\nContent-Length: 0", b"", FailedTransferError),
    ("nothing at all", "", b"", FailedTransferError),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "head", "body", "error"), SMALL)
def test_a_hostile_answer_to_a_small_file_is_refused(
    pki: Pki, sentence: str, head: str, body: bytes, error: type[SealiftError]
) -> None:
    """Every malformed, endless or truncated answer ends in an error of ours."""
    with pytest.raises(error):
        ask(pki, raw(head, body))


@pytest.mark.parametrize("line", ["X-{}: " + "x" * 60_000, "X-{}: x"])
def test_a16_endless_headers_end(pki: Pki, line: str) -> None:
    """64 KiB of headers, and no more, whether few are long or many are short."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        conn.sendall(b"HTTP/1.1 200 X\r\n")
        for number in range(1000):
            conn.sendall(line.format(number).encode() + b"\r\n")

    with pytest.raises(FailedTransferError):
        ask(pki, handler)


def test_a16_endless_continues_end(pki: Pki) -> None:
    """``100 Continue`` for ever is a head that does not end."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        for _ in range(20_000):
            conn.sendall(b"HTTP/1.1 100 X\r\n\r\n")

    with pytest.raises(FailedTransferError):
        ask(pki, handler)


# ── A-17: slow ───────────────────────────────────────────────────────────────────────
def dripping(first: bytes, piece: bytes, pause: float) -> Handler:
    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        conn.sendall(first)
        for _ in range(20):
            time.sleep(pause)
            conn.sendall(piece)

    return handler


HEAD_206 = (
    f"HTTP/1.1 206 X\r\nContent-Length: 199000\r\nContent-Range: bytes 1000-199999/{LENGTH}\r\n\r\n"
).encode()


@pytest.mark.parametrize(
    ("sentence", "handler"),
    [
        ("one byte now and then", dripping(HEAD_206, b"x", 0.05)),
        ("a burst, then a stall", dripping(HEAD_206 + bytes(100_000), b"", 0.1)),
        ("a dripping head", dripping(b"HTTP/1.1 206 X\r\nA: ", b"x", 0.05)),
        ("silence", dripping(b"", b"", 0.1)),
    ],
)
def test_a17_a_slow_answer_is_given_up(
    pki: Pki, sentence: str, handler: Handler
) -> None:
    """E4: too few bytes over a window is an error of its own, long before the deadline."""
    began = time.monotonic()
    with pytest.raises(SlowTransferError):
        span(pki, handler, limits=QUICK)
    assert time.monotonic() - began < 15


def test_a_slow_reader_is_not_a_slow_server(pki: Pki) -> None:
    """The time this device takes for itself does not count against the server."""
    with TlsServer(pki, Files({PATH: DATA})) as server:
        way = transport(server, limits=QUICK)
        pieces = []
        for piece in way.stream(
            "files/x", start=0, stop=LENGTH, length=LENGTH, drop_max=0
        ):
            time.sleep(0.25)
            pieces.append(piece)
        assert b"".join(pieces) == DATA
        way.close()


def test_this_device_brakes_itself(pki: Pki) -> None:
    """``rate_max`` holds: a second's worth at once, the rest after sleeping."""
    clock = SystemClock()
    span(
        pki, Files({PATH: DATA}), 0, LENGTH, limits=Limits(rate_max=10_000), clock=clock
    )
    assert clock.slept >= (LENGTH - 10_000) / 10_000 * 0.9


# ── hostile answers to ranges ────────────────────────────────────────────────────────
def ranged(
    status: int, content_range: str | None, body: bytes, more: str = ""
) -> Handler:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", more]
    if content_range is not None:
        lines.append(f"Content-Range: {content_range}")
    return raw("\n".join(filter(None, lines)), body)


WANTED = DATA[1000:200_000]
RANGES: list[tuple[str, Handler, type[SealiftError]]] = [
    ("A-19: another range", ranged(206, f"bytes 0-198999/{LENGTH}", WANTED), FailedTransferError),
    ("A-19: a shorter range", ranged(206, f"bytes 1000-1999/{LENGTH}", WANTED[:1000]), FailedTransferError),
    ("A-19: no Content-Range", ranged(206, None, WANTED), FailedTransferError),
    ("A-19: malformed Content-Range", ranged(206, "bytes 1000-/x", WANTED), FailedTransferError),
    ("length unknown", ranged(206, "bytes 1000-199999/*", WANTED), FailedTransferError),
    ("A-16: another total length", ranged(206, f"bytes 1000-199999/{LENGTH + 1}", WANTED), LengthError),
    ("A-16: 200 with another length", ranged(200, None, DATA + b"x"), LengthError),
    ("range and body disagree", ranged(206, f"bytes 1000-199999/{LENGTH}", WANTED + b"x"), FailedTransferError),
    ("several ranges", ranged(206, f"bytes 1000-199999/{LENGTH}", WANTED, "Content-Type: multipart/byteranges; boundary=x"), FailedTransferError),
    ("A-32: gzip", ranged(206, f"bytes 1000-199999/{LENGTH}", WANTED, "Content-Encoding: gzip"), FailedTransferError),
    ("A-18: cut short", raw(HEAD_206.decode().replace("\r\n", "\n").strip(), WANTED[:-1]), FailedTransferError),
    ("chunks", raw(f"HTTP/1.1 206 X\nTransfer-Encoding: chunked\nContent-Range: bytes 1000-199999/{LENGTH}", b"0\r\n\r\n"), FailedTransferError),
    ("gone", raw("HTTP/1.1 410 X\nContent-Length: 0"), NotFoundError),
    ("not found", raw("HTTP/1.1 404 X\nContent-Length: 0"), NotFoundError),
    ("not satisfiable", raw("HTTP/1.1 416 X\nContent-Length: 0"), FailedTransferError),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "handler", "error"), RANGES)
def test_a_hostile_answer_to_a_range_is_refused(
    pki: Pki, sentence: str, handler: Handler, error: type[SealiftError]
) -> None:
    """Only 206 with exactly the range asked for, of a file of exactly the signed length."""
    with pytest.raises(error):
        span(pki, handler)


def test_200_to_a_range_is_read_from_zero_if_that_is_paid_for(pki: Pki) -> None:
    """A server without ranges works, at a price the caller limits."""
    whole = raw(f"HTTP/1.1 200 X\nContent-Length: {LENGTH}", DATA)
    assert span(pki, whole, drop_max=1000) == WANTED
    with pytest.raises(FailedTransferError) as caught:
        span(pki, whole, drop_max=999)
    assert caught.value.fields["drop"] == 1000


# ── refusals ─────────────────────────────────────────────────────────────────────────
def problem(status: int, code: str, **headers: str | int) -> Handler:
    body = (
        f'{{"code": "{code}", "title": "No\\u001b way", "hint": "try this"}}'.encode()
    )
    kind = {"Content_Type": "application/problem+json", **headers}
    return lambda asked, conn: reply(conn, status, body, **kind)


REFUSALS: list[tuple[int, str, type[SealiftError]]] = [
    (401, "auth.required", AuthRequiredError),
    (401, "", AuthRequiredError),
    (403, "identity.revoked", RevokedError),
    (429, "rate.limited", FailedTransferError),
    (503, "audit.unavailable", FailedTransferError),
]


@pytest.mark.parametrize(("status", "code", "error"), REFUSALS)
@pytest.mark.parametrize("verb", ["get", "put", "stream"])
def test_a_refused_device_learns_why(
    pki: Pki, verb: str, status: int, code: str, error: type[SealiftError]
) -> None:
    """401, revocation and overload are told apart, whatever was asked."""
    with TlsServer(pki, problem(status, code, Retry_After=17)) as server:
        way = transport(server)
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: way.get("x", limit=10),
            "put": lambda: way.put("x", b"", limit=10),
            "stream": lambda: list(
                way.stream("x", start=0, stop=1, length=1, drop_max=0)
            ),
        }
        with pytest.raises(error) as caught:
            calls[verb]()
        way.close()
    if error is FailedTransferError:
        assert caught.value.fields["retry_after"] == 17
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "report.replay", ReportReplayError),
        (422, "nobody.knows", InvalidInputError),
    ],
)
def test_a_refused_report_carries_the_code_of_the_server(
    pki: Pki, status: int, code: str, error: type[SealiftError]
) -> None:
    """What the server says of a report is an error with the same code, if we know it."""
    with TlsServer(pki, problem(status, code)) as server:
        way = transport(server)
        with pytest.raises(error) as caught:
            way.put("director/manifest", b"{}", limit=100)
        assert caught.value.hint == "try this"
        way.close()


def test_a_malformed_problem_is_just_a_status(pki: Pki) -> None:
    """Text from an attacker is bounded and never needed."""
    kind = "Content-Type: application/problem+json"
    for body in (b"{" * 20_000, b"\xff", b"[]", b'{"code": 3}'):
        with pytest.raises(FailedTransferError, match="status 503"):
            ask(pki, raw(f"HTTP/1.1 503 X\n{kind}\nContent-Length: {len(body)}", body))


# ── files of our own ─────────────────────────────────────────────────────────────────
def test_tls_files_that_cannot_be_used_are_named(pki: Pki, tmp_path: Path) -> None:
    """Missing, malformed or mismatched PEM files say which, and what to do."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM at all")
    rows: list[tuple[TlsFiles, type[SealiftError]]] = [
        (TlsFiles(str(tmp_path / "none")), InvalidConfigError),
        (TlsFiles(str(junk)), InvalidConfigError),
        (TlsFiles(pki.path("ca"), str(tmp_path / "none"), pki.path("device", "key")), InvalidConfigError),
        (TlsFiles(pki.path("ca"), pki.path("device"), str(tmp_path / "none")), KeyUnreadableError),
        (TlsFiles(pki.path("ca"), pki.path("device"), pki.path("server", "key")), KeyUnreadableError),
        (TlsFiles(pki.path("ca"), str(junk), pki.path("device", "key")), KeyUnreadableError),
    ]  # fmt: skip
    for files, error in rows:
        with pytest.raises(error):
            tls_context(files)


def test_an_encrypted_key_fails_instead_of_asking(pki: Pki, tmp_path: Path) -> None:
    """A daemon has no terminal to type a passphrase into."""
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(Path(pki.path("device", "key")).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            form.Encoding.PEM,
            form.PrivateFormat.PKCS8,
            form.BestAvailableEncryption(b"x"),
        )
    )
    with pytest.raises(KeyUnreadableError):
        tls_context(TlsFiles(pki.path("ca"), pki.path("device"), str(locked)))


@pytest.mark.parametrize(
    "base", ["http://localhost", "https://", "ftp://x", "https://u@h"]
)
def test_only_https_addresses_are_taken(pki: Pki, base: str) -> None:
    """Plain HTTP is not a fallback."""
    with pytest.raises(FailedTransferError):
        HttpsTransport(base, pki.files(), SystemClock(), floor=lambda: 0)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Whatever a server does, no thread of a test is left behind."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before
