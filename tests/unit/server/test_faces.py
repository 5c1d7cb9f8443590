"""Both faces, called as ASGI: nobody passes without a credential, whatever the path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from starlette.types import ASGIApp

from sealift.core.errors import LimitError, RateLimitedError, SealiftError
from sealift.server.api.auth import CERTIFICATE, Guard, RateLimiter, read_body
from sealift.server.api.device import DeviceFace
from sealift.server.api.operations import OPERATIONS, PREFIX
from sealift.server.api.operator import OperatorFace
from sealift.server.config import Config
from sealift.server.services import accounts
from tests.unit.server.world import OPERATOR, World

T = TypeVar("T")
Headers = Iterable[tuple[bytes, bytes]]


@dataclass
class Ticks:
    """Monotonic time that only a test moves."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Answer:
    """What an application sent."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def code(self) -> str:
        found = json.loads(self.body)["code"]
        assert isinstance(found, str)
        return found


def ask(
    app: ASGIApp, method: str, path: str, headers: Headers = (), /, **more: Any
) -> Answer:
    """One request to an ASGI application."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": more.pop("query", b""),
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        **more,
    }
    answer, body = Answer(), scope.pop("body", b"")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = dict(message["headers"])
        else:
            answer.body += message.get("body", b"")

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return answer


async def at_once(use_case: Callable[..., T], *arguments: Any) -> T:
    return use_case(*arguments)


@pytest.fixture
def device(world: World) -> DeviceFace:
    return DeviceFace(world.means, at_once, 300, 1 << 20)


@pytest.fixture
def operator(world: World) -> OperatorFace:
    return OperatorFace(world.means, at_once, Config(), "1", {})


def guarded(face: DeviceFace | OperatorFace, per_minute: int = 10_000) -> ASGIApp:
    return face.app(RateLimiter(per_minute, Ticks()), 100)


def routes(face: DeviceFace | OperatorFace) -> list[tuple[str, str]]:
    """Every route of a face, as the router has it, parameters filled in."""
    found = []
    for route in face.router().routes:
        methods: set[str] = route.methods  # type: ignore[attr-defined]
        path: str = route.path  # type: ignore[attr-defined]
        for name in ("name", "id", "repository", "role"):
            path = path.replace(f"{{{name}}}", "1.root.json")
        found += [(method, path) for method in sorted(methods - {"HEAD"})]
    return found


def test_no_route_of_either_face_answers_without_a_credential(
    device: DeviceFace, operator: OperatorFace
) -> None:
    """All routes, wrong methods and unknown paths: 401 and problem+json."""
    assert len(routes(operator)) == len(OPERATIONS)
    assert len(routes(device)) == 6
    for face in (device, operator):
        app = guarded(face)
        for method, path in [
            *routes(face),
            ("GET", "/"),
            ("TRACE", "/x"),
            ("PUT", "*"),
        ]:
            answer = ask(app, method, path)
            assert (answer.status, answer.code) == (401, "auth.required"), path
            assert answer.headers[b"content-type"] == b"application/problem+json"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic b3BlcmF0b3I6")],
        [(b"authorization", b"Bearer " + b"x" * 600)],
        [(b"authorization", b"Bearer TOKEN"), (b"authorization", b"Bearer TOKEN")],
        [(b"cookie", b"token=TOKEN")],
    ],
)
def test_what_is_not_the_token(
    world: World, operator: OperatorFace, headers: list[tuple[bytes, bytes]]
) -> None:
    """Anything but exactly one bearer token in force is no credential."""
    token = accounts.rotate_token(world.means, OPERATOR).encode()
    shown = [(name, value.replace(b"TOKEN", token)) for name, value in headers]
    app = guarded(operator)
    assert ask(app, "GET", f"{PREFIX}/status", shown).status == 401
    good = [(b"authorization", b"Bearer " + token)]
    assert ask(app, "GET", f"{PREFIX}/status", good).status == 200


def test_certificate_comes_from_the_scope_only(
    world: World, device: DeviceFace
) -> None:
    """Bytes in the scope that are no certificate of ours are 401; a header is 400."""
    app = guarded(device)
    path = "/director/metadata/timestamp.json"
    assert ask(app, "GET", path, [], **{CERTIFICATE: b"not ours"}).status == 401
    for name in (b"ssl-client-cert", b"client-cert", b"x-client-cert"):
        assert ask(app, "GET", path, [(name, b"x")]).status == 400


def test_E14_one_identity_is_slowed_others_are_served(
    world: World, operator: OperatorFace
) -> None:
    """A bucket per identity: empty means 429 with Retry-After, and it refills."""
    ticks = Ticks()
    limiter = RateLimiter(60, ticks)
    for _ in range(60):
        limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")
    limiter.take("b")
    ticks.at = 1.0
    limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")
    app = operator.app(RateLimiter(2, Ticks()), 100)
    assert [ask(app, "GET", "/").status for _ in range(4)] == [401, 401, 429, 429]
    assert int(ask(app, "GET", "/").headers[b"retry-after"]) > 0


def test_limiter_forgets_the_oldest() -> None:
    """Memory is bounded however many identities come."""
    limiter = RateLimiter(60, Ticks(), remembered=10)
    for number in range(1000):
        limiter.take(str(number))
    assert len(limiter._buckets) == 10


def test_busy_server_says_so() -> None:
    """Above the number of requests under way, the next is asked to come back."""

    async def idle(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not admitted")

    guard = Guard(idle, lambda _: "a", RateLimiter(60, Ticks()), 0)
    assert ask(guard, "GET", "/").status == 429


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (LimitError("too deep"), 400, "too deep"),
        (ValueError("secret /etc/passwd"), 500, "nothing was changed"),
    ],
)
def test_unplanned_errors_tell_nothing(
    error: Exception, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Our errors say what happened; any other is a bare 500, and in the log."""

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise error

    guard = Guard(failing, lambda _: "a", RateLimiter(60, Ticks()), 10)
    answer = ask(guard, "GET", "/")
    assert answer.status == status
    assert said in answer.body.decode()
    assert b"secret" not in answer.body
    assert ("secret" in caplog.text) == (status == 500)


def body_of(messages: list[dict[str, Any]], headers: Headers = ()) -> bytes:
    found = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(found)

    scope = {"type": "http", "headers": list(headers)}
    return asyncio.run(read_body(scope, receive, 10))


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_bodies_are_bounded() -> None:
    """Exactly the cap is taken; more, announced or not, and half a body are refused."""
    assert body_of([piece(b"12345", more=True), piece(b"67890", more=False)]) == (
        b"1234567890"
    )
    for messages, headers in [
        ([piece(b"12345678901", more=False)], []),
        ([], [(b"content-length", b"11")]),
        ([], [(b"content-length", b"-1")]),
        ([], [(b"content-length", b"1"), (b"content-length", b"2")]),
        ([piece(b"123", more=True), {"type": "http.disconnect"}], []),
    ]:
        with pytest.raises(SealiftError):
            body_of(messages, headers)
