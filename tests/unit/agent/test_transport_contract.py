"""What every transport promises: real HTTPS and the simulated network alike."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest

from sealift.agent.ports import Transport
from sealift.agent.transport import HttpsTransport
from sealift.core.errors import (
    AuthRequiredError,
    FailedTransferError,
    LengthError,
    LimitError,
    NotFoundError,
    ReportReplayError,
    RevokedError,
    SealiftError,
)
from sealift.sim.network import (
    MemoryTransport,
    Request,
    Response,
    Server,
    answer,
    file_server,
)
from tests.tls_server import Asked, Pki, TlsServer
from tests.unit.agent.system_clock import SystemClock

BIG = bytes(range(256)) * 1000
FILES = {"big": BIG, "small": b"{}", "empty": b""}
Make = Callable[[Server], Transport]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["https", "memory"])
def make(request: pytest.FixtureRequest, pki: Pki) -> Iterator[Make]:
    """Puts a transport before a server that is a function."""
    if request.param == "memory":
        yield lambda server: MemoryTransport(server, SystemClock())
        return
    running: list[TlsServer] = []
    ways: list[HttpsTransport] = []

    def https(server: Server) -> Transport:
        running.append(TlsServer(pki, over_tls(server)))
        url = running[-1].__enter__().url
        ways.append(HttpsTransport(url, pki.files(), SystemClock(), floor=lambda: 0))
        return ways[-1]

    yield https
    for way in ways:
        way.close()
    for one in running:
        one.__exit__()


def over_tls(server: Server) -> Callable[[Asked, ssl.SSLSocket], None]:
    """The same server behind a socket."""

    def handler(asked: Asked, conn: ssl.SSLSocket) -> None:
        found = server(
            Request(
                asked.method,
                asked.target.removeprefix("/"),
                asked.body,
                asked.span,
                asked.headers.get("if-none-match"),
            )
        )
        lines = [f"HTTP/1.1 {found.status} X"]
        lines += [f"{name}: {value}" for name, value in found.headers.items()]
        conn.sendall("\r\n".join([*lines, "", ""]).encode())
        for piece in found.pieces:
            if isinstance(piece, bytes):
                conn.sendall(piece)
        if found.broken:
            raise ConnectionAbortedError

    return handler


def honest(taken: list[bytes] | None = None) -> Server:
    kept = [] if taken is None else taken

    def take(body: bytes) -> bytes:
        kept.append(body)
        return b'{"poll_seconds": 300}'

    return file_server(lambda: FILES, take)


def always(response: Response) -> Server:
    return lambda _request: response


def test_a_small_file_comes_whole(make: Make) -> None:
    """Status, body, tag and interval; the same tag again is 304."""
    way = make(honest())
    found = way.get("small", limit=2)
    assert (found.status, found.body, found.poll_seconds) == (200, b"{}", 300)
    assert found.etag is not None
    again = way.get("small", limit=2, etag=found.etag)
    assert (again.status, again.body, again.poll_seconds) == (304, b"", 300)
    assert way.get("empty", limit=0).body == b""


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_absent_small_file_is_404(make: Make, status: int) -> None:
    """It is an answer, not an error."""
    assert make(always(answer(b"", status))).get("x", limit=10).status == 404


def test_a16_a_small_file_has_a_limit(make: Make) -> None:
    """One byte more is ``format.limit``."""
    with pytest.raises(LimitError):
        make(honest()).get("small", limit=1)


@pytest.mark.parametrize(
    "span", [(0, len(BIG)), (0, 1), (7, 70_000), (len(BIG) - 1, len(BIG))]
)
def test_a_range_comes_exactly(make: Make, span: tuple[int, int]) -> None:
    """All its bytes and no other, in pieces of at most 64 KiB."""
    start, stop = span
    way = make(honest())
    pieces = list(
        way.stream("big", start=start, stop=stop, length=len(BIG), drop_max=0)
    )
    assert b"".join(pieces) == BIG[start:stop]
    assert max(map(len, pieces)) <= 65_536


def stream(way: Transport, drop_max: int = 0) -> bytes:
    return b"".join(
        way.stream("big", start=5, stop=9, length=len(BIG), drop_max=drop_max)
    )


def test_200_to_a_range_is_cut_to_it_within_bounds(make: Make) -> None:
    """What comes before is dropped if that is allowed, else it is a failed transfer."""
    whole = always(answer(BIG))
    assert stream(make(whole), drop_max=5) == BIG[5:9]
    with pytest.raises(FailedTransferError):
        stream(make(whole), drop_max=4)


ROWS: list[tuple[str, Response, type[SealiftError]]] = [
    ("absent", answer(b"", 404), NotFoundError),
    ("gone", answer(b"", 410), NotFoundError),
    ("another total length", answer(b"abcd", 206, content_range="bytes 5-8/9"), LengthError),
    ("200 of another length", answer(BIG + b"x"), LengthError),
    ("another range", answer(b"abcd", 206, content_range=f"bytes 6-9/{len(BIG)}"), FailedTransferError),
    ("no range named", answer(b"abcd", 206), FailedTransferError),
    ("encoded", answer(b"abcd", 206, content_range=f"bytes 5-8/{len(BIG)}", content_encoding="gzip"), FailedTransferError),
    ("cut short", Response(206, {"content-length": "4", "content-range": f"bytes 5-8/{len(BIG)}"}, (b"abc",), broken=True), FailedTransferError),
    ("overloaded", answer(b"", 503), FailedTransferError),
    ("unknown device", answer(b"", 401), AuthRequiredError),
    ("revoked", answer(b'{"code": "identity.revoked"}', 403, content_type="application/problem+json"), RevokedError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "response", "error"), ROWS, ids=[row[0] for row in ROWS]
)
def test_a_range_or_an_error_of_ours(
    make: Make, sentence: str, response: Response, error: type[SealiftError]
) -> None:
    """Every other answer has its own error."""
    with pytest.raises(error):
        stream(make(always(response)))


def test_a_report_is_delivered(make: Make) -> None:
    """Byte for byte, and the answer comes back within its limit."""
    taken: list[bytes] = []
    way = make(honest(taken))
    assert way.put("director/manifest", BIG, limit=100) == b'{"poll_seconds": 300}'
    assert taken == [BIG]
    with pytest.raises(LimitError):
        way.put("director/manifest", b"", limit=3)


def test_a_refused_report_says_why(make: Make) -> None:
    """The code is the server's."""
    refusal = answer(
        b'{"code": "report.replay"}', 409, content_type="application/problem+json"
    )
    with pytest.raises(ReportReplayError):
        make(always(refusal)).put("director/manifest", b"", limit=100)
