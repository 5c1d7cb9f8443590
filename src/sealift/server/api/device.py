"""What devices see: metadata of both repositories, containers, and where to report.

Plain ASGI on the poll path; nothing here is trusted by a device. Every request was
identified before it is routed (``auth.Guard``), and what is answered is chosen by that
identity, never by an id in the request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.routing import Route, Router

from sealift.core.audit import Actor, ActorType
from sealift.core.errors import NotFoundError
from sealift.server.api.auth import Endpoint, Guard, peer_identity, read_body
from sealift.server.api.problems import send_json
from sealift.server.domain.ranges import Part, Unsatisfiable, Whole, wanted
from sealift.server.services import director, identity, reports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from starlette.types import ASGIApp, Receive, Scope, Send

    from sealift.server.api.auth import RateLimiter
    from sealift.server.ports import Caller, Means, StoredContainer

__all__ = ["DeviceFace"]

_CALLER = "sealift.caller"
_FILE = re.compile(r"([1-9][0-9]{0,14})\.([A-Za-z0-9_.~%-]{1,200})\.json\Z")
_CONTAINER = re.compile(r"([0-9a-f]{64})\.([A-Za-z0-9][A-Za-z0-9._+-]{0,159})\Z")
_PRIVATE = (b"cache-control", b"private, no-store")
_SHORT = (b"cache-control", b"public, max-age=60")
_FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
_JSON = (b"content-type", b"application/json")
Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class DeviceFace:
    """The device listener's application.

    ``write`` runs a use case on the writer and awaits it; ``seen`` collects when which
    device was heard of, ``used`` when which certificate was used first, until somebody
    flushes them.
    """

    means: Means
    write: Callable[..., Awaitable[Any]]
    poll_seconds: int
    manifest_bytes: int
    seen: dict[str, datetime] = field(default_factory=dict)
    used: dict[str, datetime] = field(default_factory=dict)

    def app(self, limiter: RateLimiter, in_flight_max: int) -> ASGIApp:
        """Every route behind the guard."""
        return Guard(self.router(), self.identify, limiter, in_flight_max)

    def router(self) -> Router:
        """The routes, the poll first."""
        routes = (
            ("GET", "/director/metadata/timestamp.json", self.poll),
            ("GET", "/image/metadata/timestamp.json", self.image_timestamp),
            ("GET", "/director/metadata/{name}", self.director_file),
            ("GET", "/image/metadata/{name}", self.image_file),
            ("GET", "/director/targets/{name}", self.container),
            ("POST", "/director/manifest", self.manifest),
        )
        return Router(
            [Route(path, Endpoint(do), methods=[verb]) for verb, path, do in routes],
            redirect_slashes=False,
            default=Endpoint(_nothing),
        )

    def identify(self, scope: Scope) -> str:
        """The device behind the certificate, looked up on every request.

        Raises:
            AuthRequiredError, RevokedError, MalformedError: see ``auth``, ``identity``.
        """
        peer = peer_identity(scope)
        caller = identity.caller_of(self.means.store.reader, peer.sha256)
        scope[_CALLER] = caller
        scope["app"] = self  # a wrong method then raises instead of answering in text
        now = self.means.clock.now()
        self.seen[caller.device_id] = now
        if caller.first_use:
            self.used.setdefault(peer.sha256, now)
        return caller.device_id

    # ── metadata ─────────────────────────────────────────────────────────────────────
    async def poll(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """The Director's Timestamp for this device: 304 while nothing is new."""
        caller: Caller = scope[_CALLER]
        due = self.means.clock.now().timestamp() >= caller.renew_at
        if caller.etag is None or due:
            actor = _actor(scope)
            record = await self.write(
                director.issue_for, self.means, actor, caller.device_id
            )
            etag, body = record.etag, record.timestamp
        elif _matches(scope, caller.etag):
            etag, body = caller.etag, None
        else:
            known = self.means.store.reader.metadata.director(caller.device_id)
            if known is None:
                raise NotFoundError("the Director has nothing for this device yet")
            etag, body = known.etag, known.timestamp
        if _matches(scope, etag):
            body = None
        await _send_file(send, body, [*self._interval(etag), _PRIVATE])

    async def image_timestamp(
        self, scope: Scope, _receive: Receive, send: Send
    ) -> None:
        """The Image repository's Timestamp, the same for all."""
        found = self.means.store.reader.metadata.newest("image", "timestamp")
        if found is None:
            raise NotFoundError("nothing was published yet")
        etag = found.sha256[:32]
        body = None if _matches(scope, etag) else found.body
        await _send_file(send, body, [*self._interval(etag), _SHORT])

    async def director_file(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """A Director Root, or this device's Snapshot or Targets in force."""
        version, role = _version_and_role(scope)
        metadata = self.means.store.reader.metadata
        if role == "root":
            root = metadata.find("director", role, version)
            if root is None:
                raise NotFoundError("there is no such root")
            await _send_file(send, root.body, [_FOREVER])
            return
        record = metadata.director(scope[_CALLER].device_id)
        if record is not None and role in {"targets", "snapshot"}:
            place = 0 if role == "targets" else 1
            if record.versions[place] == version:
                body = record.targets if role == "targets" else record.snapshot
                await _send_file(send, body, [_PRIVATE])
                return
        raise NotFoundError("there is no such file for this device")

    async def image_file(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """A published version of a role of the Image repository."""
        version, role = _version_and_role(scope)
        found = self.means.store.reader.metadata.find("image", role, version)
        if found is None or role == "timestamp":
            raise NotFoundError("there is no such file")
        await _send_file(send, found.body, [_FOREVER])

    # ── containers ───────────────────────────────────────────────────────────────────
    async def container(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A container the Director orders for this device, whole or a range of it."""
        match = _CONTAINER.match(scope["path_params"]["name"])
        device_id = scope[_CALLER].device_id
        if match is None:
            raise NotFoundError("there is no such container for this device")
        reader = self.means.store.reader
        found = director.ordered_container(reader, device_id, match[1], match[2])
        if director.may_begin(reader, device_id):
            means, actor = self.means, _actor(scope)
            await self.write(
                director.start_download, means, actor, device_id, found.name
            )
        await self._send_container(scope, receive, send, found)

    async def _send_container(
        self, scope: Scope, receive: Receive, send: Send, found: StoredContainer
    ) -> None:
        etag, length = f'"{found.sha256}"', found.length
        headers: Headers = [(b"etag", etag.encode()), (b"accept-ranges", b"bytes")]
        part = wanted(
            _header(scope, b"range"), _header(scope, b"if-range"), etag, length
        )
        match part:
            case Unsatisfiable():
                headers.append((b"content-range", f"bytes */{length}".encode()))
                await _send(send, 416, b"", headers)
                return
            case Whole():
                start, stop, status = 0, length, 200
            case Part(start, stop):
                status = 206
                shown = f"bytes {start}-{stop - 1}/{length}"
                headers.append((b"content-range", shown.encode()))
        headers += [
            (b"content-length", str(stop - start).encode()),
            (b"content-type", b"application/octet-stream"),
            _PRIVATE,
        ]
        pieces = self.means.blobs.read(found.sha256, start, stop)
        first = await asyncio.to_thread(next, pieces, b"")
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await _send_pieces(receive, send, first, pieces)

    # ── reports ──────────────────────────────────────────────────────────────────────
    async def manifest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A signed report; the answer is a status, never an instruction."""
        body = await read_body(scope, receive, self.manifest_bytes)
        device_id = scope[_CALLER].device_id
        await self.write(reports.receive, self.means, _actor(scope), device_id, body)
        await send_json(send, {"poll_seconds": self.poll_seconds})

    def _interval(self, etag: str) -> Headers:
        return [
            (b"etag", f'"{etag}"'.encode()),
            (b"sealift-poll-seconds", str(self.poll_seconds).encode()),
        ]


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFoundError("there is nothing here")


def _actor(scope: Scope) -> Actor:
    return Actor(ActorType.DEVICE, scope[_CALLER].device_id)


def _version_and_role(scope: Scope) -> tuple[int, str]:
    match = _FILE.match(scope["path_params"]["name"])
    if match is None:
        raise NotFoundError("there is no such file")
    return int(match[1]), unquote(match[2])


def _header(scope: Scope, name: bytes) -> str | None:
    found = [value for known, value in scope["headers"] if known == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _matches(scope: Scope, etag: str) -> bool:
    shown = _header(scope, b"if-none-match")
    return shown is not None and shown.removeprefix("W/").strip('"') == etag


async def _send_file(send: Send, body: bytes | None, headers: Headers) -> None:
    """A small file, or 304 if there is no body to send."""
    if body is None:
        await _send(send, 304, b"", headers)
    else:
        await _send(send, 200, body, [*headers, _JSON])


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    if status != 304:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_pieces(
    receive: Receive, send: Send, piece: bytes, rest: Iterator[bytes]
) -> None:
    """Send piece by piece, and stop reading when the device has gone away."""
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        while piece and not gone.done():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await asyncio.to_thread(next, rest, b"")
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
