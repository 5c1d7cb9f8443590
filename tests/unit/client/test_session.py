"""The client: our errors whatever comes back, and retries only where they are safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from sealift.client.answers import Release, Status, checked
from sealift.client.session import Profile, Session, connect
from sealift.core.errors import (
    ConflictError,
    FailedTransferError,
    InvalidConfigError,
    LimitError,
    NotFoundError,
    RateLimitedError,
    SealiftError,
)

Handler = Callable[[httpx2.Request], httpx2.Response]


class Waits(list[float]):
    """Sleeping that takes no time and is remembered."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def session(handler: Handler, waits: Waits | None = None) -> Session:
    http = httpx2.Client(
        transport=httpx2.MockTransport(handler), base_url="https://server"
    )
    return Session(http, Path("ca.pem"), waits if waits is not None else Waits())


def problem(status: int, code: str, **more: object) -> Handler:
    return lambda _: httpx2.Response(status, json={"code": code, **more})


ANSWERS: dict[str, tuple[Handler, type[SealiftError]]] = {
    "a conflict": (problem(409, "input.conflict", detail="there"), ConflictError),
    "not found": (problem(404, "input.not_found"), NotFoundError),
    "unknown code": (problem(400, "no.such.code", detail="x"), FailedTransferError),
    "a page": (lambda _: httpx2.Response(500, text="<html>"), FailedTransferError),
    "a redirect": (
        lambda _: httpx2.Response(302, headers={"location": "/x"}),
        FailedTransferError,
    ),
    "half a JSON": (lambda _: httpx2.Response(200, content=b"{"), FailedTransferError),
    "a member twice": (
        lambda _: httpx2.Response(200, content=b'{"a":1,"a":2}'),
        FailedTransferError,
    ),
    "a list": (lambda _: httpx2.Response(409, json=[1]), FailedTransferError),
    "code 7": (lambda _: httpx2.Response(409, json={"code": 7}), FailedTransferError),
    "endless": (
        lambda _: httpx2.Response(200, content=b'"' + b"x" * (1 << 24) + b'"'),
        LimitError,
    ),
}


@pytest.mark.parametrize("sentence", list(ANSWERS))
def test_answers_become_our_errors(sentence: str) -> None:
    """A problem by its code; anything else as a failed transfer, bounded."""
    handler, kind = ANSWERS[sentence]
    with pytest.raises(kind) as found:
        session(handler).json("POST", "/x")
    assert type(found.value) is kind


def test_problem_keeps_detail_and_hint() -> None:
    """What the server says to the human arrives."""
    handler = problem(
        409, "input.conflict", detail="it is there", hint="choose another"
    )
    with pytest.raises(ConflictError) as found:
        session(handler).json("GET", "/x")
    assert (found.value.message, found.value.hint) == ("it is there", "choose another")


def failing(
    times: int, error: Exception | httpx2.Response
) -> tuple[Handler, list[str]]:
    """Fails so many times, then answers; and what was asked."""
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        if len(asked) > times:
            return httpx2.Response(200, json={})
        if isinstance(error, httpx2.Response):
            return error
        raise error

    return handler, asked


BUSY = httpx2.Response(
    503, headers={"retry-after": "7"}, json={"code": "audit.unavailable"}
)


@pytest.mark.parametrize(
    ("sentence", "method", "error", "tries"),
    [
        ("GET is tried again", "GET", httpx2.ReadTimeout("slow"), 3),
        ("PUT is tried again", "PUT", httpx2.RemoteProtocolError("cut"), 3),
        ("busy is asked again", "GET", BUSY, 3),
        ("POST that may have arrived is not", "POST", httpx2.ReadTimeout("slow"), 1),
        ("POST to a busy server is not", "POST", BUSY, 1),
        ("POST that never left is", "POST", httpx2.ConnectError("refused"), 3),
    ],
)
def test_retries(
    sentence: str, method: str, error: Exception | httpx2.Response, tries: int
) -> None:
    """Only what can be repeated is repeated."""
    handler, asked = failing(2, error)
    waits = Waits()
    if tries == 1:
        with pytest.raises(SealiftError):
            session(handler, waits).json(method, "/x")
    else:
        assert session(handler, waits).json(method, "/x") == {}
    assert len(asked) == tries, sentence
    assert waits == [7.0 if error is BUSY else 1.0] * (tries - 1)


def test_it_gives_up() -> None:
    """After four tries the last error is raised; a server cannot make us wait long."""
    slow = httpx2.Response(
        429, headers={"retry-after": "9999"}, json={"code": "rate.limited"}
    )
    waits = Waits()
    with pytest.raises(RateLimitedError):
        session(lambda _: slow, waits).json("GET", "/x")
    assert waits == [30.0] * 3


def test_upload_is_made_anew_for_each_try() -> None:
    """A retried upload starts from its first byte."""
    bodies: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.read())
        return BUSY if len(bodies) == 1 else httpx2.Response(200, json={})

    def content() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    session(handler).raw("PUT", "/x", content=content)
    assert bodies == [b"onetwo", b"onetwo"]


def test_shape_of_answers_is_checked() -> None:
    """A missing or wrong member is an error of ours, an unknown one is not."""
    good = {
        "version": "1",
        "time": "2026-11-22T13:00:00Z",
        "poll_seconds": 300,
        "device_url": "https://x",
        "enrol_url": "https://y",
        "published": {"image": {"root": 1}},
        "releases": 0,
        "new": None,
    }
    assert checked(Status, good) is good
    for bad in (
        {**good, "poll_seconds": "300"},
        {**good, "poll_seconds": True},
        {**good, "published": {"image": {"root": None}}},
        {**good, "published": []},
        {k: v for k, v in good.items() if k != "version"},
        [good],
        None,
    ):
        with pytest.raises(FailedTransferError):
            checked(Status, bad)
    with pytest.raises(FailedTransferError):
        checked(Release, {})


@pytest.mark.parametrize(
    "profile",
    [
        Profile("http://server", Path("ca.pem"), "t"),
        Profile("https://server", Path("/nowhere/ca.pem"), "t"),
        Profile("https://server", Path(__file__), "t"),
    ],
)
def test_profile_must_be_usable(profile: Profile) -> None:
    """No plain http, no CA that is none; and the token is never shown."""
    with pytest.raises(InvalidConfigError), connect(profile):
        pass
    assert "token" not in repr(profile)
