"""What operators and their programs see, all of it behind a token.

A method per operation of ``operations``; no request reaches one without the token.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import Route, Router

from sealift.core.errors import (
    ForbiddenError,
    FormatError,
    InvalidInputError,
    NotFoundError,
)
from sealift.core.types import Container, Seal
from sealift.server.api import wire
from sealift.server.api.auth import (
    Endpoint,
    Guard,
    announced_length,
    bearer_token,
    body_pieces,
    read_body,
)
from sealift.server.api.operations import OPERATIONS, PREFIX, Operation, document
from sealift.server.api.problems import send_json
from sealift.server.config import url
from sealift.server.domain import openness, permissions
from sealift.server.services import (
    accounts,
    audit,
    deltas,
    deployments,
    devices,
    identity,
    metadata,
    releases,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from starlette.types import ASGIApp, Receive, Scope, Send

    from sealift.core.audit import Actor
    from sealift.server.api.auth import RateLimiter
    from sealift.server.config import Config
    from sealift.server.domain.permissions import Action
    from sealift.server.ports import Means, Session

__all__ = ["OperatorFace"]

_BEARER = "sealift.bearer"
DENIED_SECONDS = 600
"""How often the log hears of the same token trying the same forbidden thing."""
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):\Z")


@dataclass(frozen=True, slots=True)
class Request:
    """One authenticated request: who, path parameters, query, body."""

    bearer: accounts.Bearer
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    scope: Scope
    receive: Receive

    @property
    def actor(self) -> Actor:
        """Who asks."""
        return self.bearer.actor


@dataclass(frozen=True, slots=True)
class OperatorFace:
    """The operator listener's application.

    ``seen`` is filled by the device face, ``progress`` by whoever makes deltas: step
    and per cent by number.
    """

    means: Means
    write: Callable[..., Awaitable[Any]]
    config: Config
    version: str
    seen: Mapping[str, datetime]
    progress: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    _denied: dict[tuple[str, Action], datetime] = field(default_factory=dict)

    def app(self, limiter: RateLimiter, in_flight_max: int) -> ASGIApp:
        """Every route behind the guard."""
        return Guard(self.router(), self.identify, limiter, in_flight_max)

    def router(self) -> Router:
        """The routes of the table."""
        return Router(
            [
                Route(
                    PREFIX + operation.path,
                    Endpoint(self._endpoint(operation)),
                    methods=[operation.method],
                )
                for operation in OPERATIONS
            ],
            redirect_slashes=False,
            default=Endpoint(_nothing),
        )

    def identify(self, scope: Scope) -> str:
        """Who shows the token.

        Raises:
            AuthRequiredError, MalformedError: see ``auth`` and ``accounts``.
        """
        token, now = bearer_token(scope), self.means.clock.now()
        bearer = accounts.check_token(self._read, self.means.roles, token, now)
        scope[_BEARER] = bearer
        scope["app"] = self  # a wrong method then raises instead of answering in text
        return f"{bearer.actor.type.value} {bearer.actor.id}"

    @property
    def _read(self) -> Session:
        return self.means.store.reader

    def _endpoint(
        self, operation: Operation
    ) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        handler = getattr(self, operation.handler)

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            await self._authorise(scope[_BEARER], operation)
            request = Request(
                bearer=scope[_BEARER],
                parameters=scope["path_params"],
                query=_query(scope),
                body=await self._body(operation, scope, receive),
                scope=scope,
                receive=receive,
            )
            await send_json(send, await handler(request))

        return endpoint

    async def _authorise(self, bearer: accounts.Bearer, operation: Operation) -> None:
        """Let in who may do this; before anything of the request is read.

        Raises:
            ForbiddenError: he may not; the log knows of it.
        """
        try:
            permissions.check(bearer.allowed, operation.action)
        except ForbiddenError:
            await self._note_denied(bearer.actor, operation.action)
            raise

    async def _note_denied(self, actor: Actor, action: Action | None) -> None:
        if action is None:
            return
        # Once in a while is evidence; each time would let a viewer fill the disk.
        now, key = self.means.clock.now(), (actor.id, action)
        last = self._denied.get(key)
        if last is None or now - last >= timedelta(seconds=DENIED_SECONDS):
            self._denied[key] = now
            await self.write(accounts.note_denied, self.means, actor, action)

    async def _body(self, operation: Operation, scope: Scope, receive: Receive) -> Any:
        if operation.raw == "metadata":
            return await read_body(scope, receive, self.config.limits.metadata_bytes)
        if operation.takes is None:
            return None
        raw = await read_body(scope, receive, self.config.limits.request_bytes)
        try:
            return msgspec.json.decode(raw or b"{}", type=operation.takes)
        except msgspec.DecodeError as error:
            raise InvalidInputError(f"the request's body: {error}") from error

    # ── status and metadata ──────────────────────────────────────────────────────────
    async def status(self, _request: Request) -> wire.StatusAnswer:
        """What this server holds."""
        published = {
            repository: {
                role: found.version
                for role in ("root", "targets", "snapshot", "timestamp")
                if (found := metadata.newest(self._read, repository, role)) is not None
            }
            for repository in ("director", "image")
        }
        count = len(releases.all_releases(self._read))
        now = self.means.clock.now()
        return wire.StatusAnswer(
            version=self.version,
            time=now,
            poll_seconds=self.config.poll_seconds,
            device_url=url(self.config, self.config.device_listen),
            enrol_url=url(self.config, self.config.enrol_listen),
            published=published,
            releases=count,
        )

    async def openapi(self, _request: Request) -> dict[str, Any]:
        """The OpenAPI document."""
        return document(self.version)

    async def publish_root(self, request: Request) -> wire.RootAnswer:
        """Publish a root."""
        repository = _repository(request)
        version = await self.write(
            metadata.publish_root, self.means, request.actor, repository, request.body
        )
        return wire.RootAnswer(repository, version)

    async def publish_targets(self, request: Request) -> wire.TargetsAnswer:
        """Publish Image Targets."""
        found = await self.write(
            metadata.publish_targets, self.means, request.actor, request.body
        )
        return wire.TargetsAnswer(
            found.targets, found.snapshot, found.timestamp, found.changed
        )

    async def show_metadata(self, request: Request) -> msgspec.Raw:
        """A published file."""
        role = request.parameters["role"]
        found = metadata.newest(self._read, _repository(request), role)
        if found is None:
            raise NotFoundError(f"no {role} was published yet")
        return msgspec.Raw(found.body)

    # ── containers and releases ──────────────────────────────────────────────────────
    async def store_container(self, request: Request) -> wire.ContainerAnswer:
        """Stream a container to disk, then note it."""
        name, sha256 = request.parameters["name"], _announced_digest(request.scope)
        length = announced_length(request.scope, self.config.limits.container_bytes)
        if length is None:
            raise InvalidInputError("this needs a Content-Length")
        if not releases.check_container(self._read, name, length, sha256):
            body = self._watched(name, body_pieces(request.receive))
            await self.means.blobs.put(sha256, body, length=length, sha256=sha256)
            await self.write(
                releases.add_container,
                self.means,
                request.actor,
                name,
                length,
                sha256,
            )
        return wire.ContainerAnswer(name, length, sha256)

    async def _watched(
        self, name: str, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The body, stopped at its first bytes if they show what must not be shown."""
        head = b""
        async for piece in pieces:
            if len(head) >= openness.LOOK:
                yield piece
                continue
            head += piece
            if len(head) >= openness.LOOK:
                releases.check_openness(self._read, name, head)
                yield head
        if len(head) < openness.LOOK:
            releases.check_openness(self._read, name, head)
            yield head

    async def show_container(self, request: Request) -> wire.ContainerAnswer:
        """What is stored under a name."""
        found = self._read.releases.container(request.parameters["name"])
        if found is None:
            raise NotFoundError("there is no container of that name")
        return wire.ContainerAnswer(found.name, found.length, found.sha256)

    async def publish_release(self, request: Request) -> wire.ReleaseAnswer:
        """Publish a release."""
        artifacts = [_artifact(found) for found in request.body.artifacts]
        found = await self.write(
            releases.publish_release, self.means, request.actor, artifacts
        )
        return wire.release(found)

    async def list_releases(self, _request: Request) -> wire.ReleasesAnswer:
        """Every release."""
        found = releases.all_releases(self._read)
        return wire.ReleasesAnswer([wire.release(release) for release in found])

    async def show_release(self, request: Request) -> wire.ReleaseAnswer:
        """One release."""
        found = releases.find_release(self._read, request.parameters["id"])
        return wire.release(found)

    # ── devices ──────────────────────────────────────────────────────────────────────
    async def enrol(self, request: Request) -> wire.EnrolledAnswer:
        """Enrol a device."""
        body: wire.EnrolBody = request.body
        wanted = identity.NewDevice(
            body.device_id,
            body.csr.encode(),
            body.report_key,
            tuple(identity.NewEcu(e.ecu_id, e.hardware_id) for e in body.ecus),
            body.decryption_key,
        )
        found = await self.write(identity.enrol, self.means, request.actor, wanted)
        return wire.EnrolledAnswer(
            found.device.id, found.certificate.pem, found.certificate.not_after
        )

    async def list_devices(self, request: Request) -> wire.DevicesAnswer:
        """A page of devices."""
        limit = _number(request.query, "limit", devices.PAGE_MAX)
        after = request.query.get("after", "")
        found = devices.all_devices(self._read, after, limit)
        answers = [wire.device(d, ecus, self.seen.get(d.id)) for d, ecus in found]
        more = len(found) == limit
        return wire.DevicesAnswer(answers, found[-1][0].id if more else None)

    async def show_device(self, request: Request) -> wire.DeviceDetailAnswer:
        """One device."""
        found = devices.show_device(self._read, request.parameters["id"])
        return wire.device_detail(found, self.seen.get(found.device.id))

    async def revoke(self, request: Request) -> wire.DeviceDetailAnswer:
        """Revoke a device."""
        device_id = request.parameters["id"]
        await self.write(
            identity.revoke, self.means, request.actor, device_id, request.body.reason
        )
        return await self.show_device(request)

    # ── deployments ──────────────────────────────────────────────────────────────────
    async def create_deployment(self, request: Request) -> wire.DeploymentDetailAnswer:
        """Send a release."""
        body: wire.DeploymentBody = request.body
        if body.all == (body.devices is not None) or body.devices == []:
            raise InvalidInputError(
                "a deployment is for named devices or for all",
                hint="give either devices or all",
            )
        found = await self.write(
            deployments.create,
            self.means,
            request.actor,
            deployments.NewDeployment(
                body.release,
                body.devices,
                body.reason,
                body.bytes_max,
                body.delta_wait_minutes,
            ),
        )
        return wire.deployment_detail(found)

    async def list_deployments(self, _request: Request) -> wire.DeploymentsAnswer:
        """Every deployment."""
        found = deployments.all_deployments(self._read)
        return wire.DeploymentsAnswer([wire.deployment(d, n) for d, n in found])

    async def show_deployment(self, request: Request) -> wire.DeploymentDetailAnswer:
        """One deployment."""
        found = deployments.show_deployment(self._read, request.parameters["id"])
        return wire.deployment_detail(found)

    async def abort_deployment(self, request: Request) -> wire.DeploymentDetailAnswer:
        """Abort a deployment."""
        await self.write(
            deployments.abort,
            self.means,
            request.actor,
            request.parameters["id"],
            request.body.reason,
        )
        return await self.show_deployment(request)

    # ── deltas ───────────────────────────────────────────────────────────────────────
    async def list_deltas(self, request: Request) -> wire.DeltasAnswer:
        """A page of deltas."""
        after = _number(request.query, "after", 0, least=0, most=2**53)
        limit = _number(request.query, "limit", 100)
        found = deltas.all_deltas(self._read, after, limit)
        more = len(found) == limit
        return wire.DeltasAnswer(
            [self._delta(view) for view in found],
            found[-1].delta.number if more else None,
        )

    async def retry_delta(self, request: Request) -> wire.DeltaAnswer:
        """Make a delta after all."""
        return await self._changed(deltas.retry, request)

    async def cancel_delta(self, request: Request) -> wire.DeltaAnswer:
        """Do not make a delta."""
        return await self._changed(deltas.cancel, request)

    async def _changed(
        self, use_case: Callable[..., object], request: Request
    ) -> wire.DeltaAnswer:
        number = _number(request.parameters, "id", 0, most=2**53)
        await self.write(use_case, self.means, request.actor, number)
        return self._delta(deltas.show_delta(self._read, number))

    def _delta(self, found: deltas.DeltaView) -> wire.DeltaAnswer:
        return wire.delta(found, self.progress.get(found.delta.number))

    # ── tokens ───────────────────────────────────────────────────────────────────────
    async def who_am_i(self, request: Request) -> wire.WhoAnswer:
        """Whose token this is."""
        bearer = request.bearer
        return wire.WhoAnswer(
            bearer.actor.id,
            list(bearer.roles),
            sorted(bearer.allowed),
            bearer.expires_at,
        )

    async def list_tokens(self, _request: Request) -> wire.TokensAnswer:
        """Every token."""
        found = accounts.all_tokens(self._read)
        return wire.TokensAnswer([wire.token(token) for token in found])

    async def create_token(self, request: Request) -> wire.NewTokenAnswer:
        """Make a token."""
        body: wire.TokenBody = request.body
        secret, made = await self.write(
            accounts.create_token,
            self.means,
            request.actor,
            body.name,
            body.roles,
            body.days,
        )
        return wire.NewTokenAnswer(secret, wire.token(made))

    async def revoke_token(self, request: Request) -> wire.TokenAnswer:
        """Take a token back."""
        name, reason = request.parameters["name"], request.body.reason
        found = await self.write(
            accounts.revoke_token, self.means, request.actor, name, reason
        )
        return wire.token(found)

    # ── audit ────────────────────────────────────────────────────────────────────────
    async def list_audit(self, request: Request) -> wire.AuditAnswer:
        """Audit leaves."""
        after = _number(request.query, "after", 0, least=0, most=2**53)
        limit = _number(request.query, "limit", 100)
        found = audit.page(self._read, after, limit)
        return wire.AuditAnswer([wire.leaf(leaf) for leaf in found])


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFoundError("there is nothing here")


def _repository(request: Request) -> str:
    found = request.parameters["repository"]
    if found not in {"image", "director"}:
        raise NotFoundError("there is no such repository", hint="image or director")
    return found


def _artifact(found: wire.ArtifactBody) -> releases.NewArtifact:
    return releases.NewArtifact(
        found.path,
        _container(found.full),
        tuple(_container(delta) for delta in found.deltas),
        None if found.sealed is None else _seal(found.sealed),
    )


def _seal(found: dict[str, Any]) -> Seal:
    try:
        return Seal.from_json(found)
    except FormatError as error:
        raise InvalidInputError(f"the seal: {error.message}") from error


def _container(found: dict[str, Any]) -> Container:
    try:
        return Container.from_json(found)
    except FormatError as error:
        raise InvalidInputError(f"the container: {error.message}") from error


def _announced_digest(scope: Scope) -> str:
    found = [v for name, v in scope["headers"] if name == b"repr-digest"]
    match = _DIGEST.match(found[0].decode("latin-1")) if len(found) == 1 else None
    if match is None:
        raise InvalidInputError(
            "this needs the SHA-256 of the body",
            hint="Repr-Digest: sha-256=:BASE64: (RFC 9530)",
        )
    try:
        return base64.b64decode(match[1], validate=True).hex()
    except binascii.Error as error:
        raise InvalidInputError("the Repr-Digest is not base64") from error


def _query(scope: Scope) -> dict[str, str]:
    from urllib.parse import parse_qsl

    pairs = parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=16)
    found = dict(pairs)
    unknown = set(found) - {"after", "limit"}
    if unknown or len(found) != len(pairs):
        raise InvalidInputError("an unknown or repeated query parameter")
    return found


def _number(
    query: Mapping[str, str], name: str, default: int, least: int = 1, most: int = 1000
) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text[:17]) <= most:
        raise InvalidInputError(f"{name} is not a number from {least} to {most}")
    return int(text)
