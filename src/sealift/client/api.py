"""The operator API as Python: a method per operation.

```
with connect(Profile(url, ca, token)) as session:
    operator = Operator(session)
    operator.upload_container(container, path)
```

Publishing what is published already, with the same bytes, is no error anywhere here, so
an interrupted sequence can be run again from its start.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

from sealift.client.answers import (
    Delta,
    Deployment,
    DeploymentDetail,
    Device,
    DeviceDetail,
    Enrolled,
    Leaf,
    NewToken,
    Release,
    Root,
    Status,
    StoredContainer,
    Targets,
    Token,
    Who,
    checked,
)
from sealift.client.session import Profile, connect, parsed
from sealift.core.errors import ConflictError, InvalidConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.client.session import Session
    from sealift.core.types import Container, Seal

    Report = Callable[[str, int, int], None]

__all__ = ["Operator", "Profile", "Publication", "connect"]

PIECE = 256 * 1024
PREFIX = "/api/v1"


class _Releases(TypedDict):
    releases: list[Release]


class _Devices(TypedDict):
    devices: list[Device]
    next: str | None


class _Deltas(TypedDict):
    deltas: list[Delta]
    next: int | None


class _Deployments(TypedDict):
    deployments: list[Deployment]


class _Tokens(TypedDict):
    tokens: list[Token]


class _Leaves(TypedDict):
    leaves: list[Leaf]


@dataclass(frozen=True, slots=True)
class Publication:
    """How one artifact of a release travels.

    ``deltas`` were made at the desk. If the containers are sealed, ``seal`` has the
    content key, wrapped to the server's content-key key (``public/content-key.json``).
    """

    full: Container
    deltas: tuple[Container, ...] = ()
    seal: Seal | None = None

    def to_json(self, path: str) -> dict[str, object]:
        """As it is published under a target path."""
        found: dict[str, object] = {"path": path, "full": self.full.to_json()}
        if self.deltas:
            found["deltas"] = [delta.to_json() for delta in self.deltas]
        if self.seal is not None:
            found["sealed"] = self.seal.to_json()
        return found


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator at one server.

    Every method raises what the server refuses with (``core.errors``, by code) and
    ``FailedTransferError`` when there is no usable answer.
    """

    session: Session

    def status(self) -> Status:
        """What the server holds."""
        return checked(Status, self._get("/status"))

    # ── publishing ───────────────────────────────────────────────────────────────────
    def publish_root(self, repository: str, raw: bytes) -> Root:
        """Publish the next root of ``image`` or ``director``, byte for byte."""
        path = f"{PREFIX}/metadata/{repository}/root"
        return checked(Root, self._post_raw(path, raw))

    def publish_roots(self, repository: str, chain: Sequence[bytes]) -> Root:
        """Publish every root of a chain the server does not have; the newest."""
        published = [self.publish_root(repository, raw) for raw in chain]
        if not published:
            raise InvalidConfigError(f"there is no {repository} root to publish")
        return published[-1]

    def publish_targets(self, raw: bytes) -> Targets:
        """Publish signed Image Targets, byte for byte."""
        return checked(Targets, self._post_raw(f"{PREFIX}/metadata/image/targets", raw))

    def metadata(self, repository: str, role: str) -> bytes | None:
        """The newest published file of a role, ``None`` if there is none."""
        try:
            return self.session.raw("GET", f"{PREFIX}/metadata/{repository}/{role}")
        except NotFoundError:
            return None

    def upload_container(
        self,
        container: Container,
        path: Path,
        report: Report = lambda *_: None,
    ) -> StoredContainer:
        """Upload a container file unless the server has it.

        ``report(name, done, total)`` is called as bytes leave.

        Raises:
            ConflictError: other bytes are stored under its name. InvalidConfigError:
                the file cannot be read.
        """
        place = f"{PREFIX}/containers/{quote(container.name, safe='')}"
        known = self._known(place)
        wanted = (container.length, container.sha256.hex())
        if known is not None:
            if (known["length"], known["sha256"]) != wanted:
                raise ConflictError(
                    f"{container.name} is stored with other bytes",
                    hint="published bytes are immutable; choose the next version",
                )
            report(container.name, container.length, container.length)
            return known
        digest = base64.b64encode(container.sha256).decode()
        raw = self.session.raw(
            "PUT",
            place,
            content=lambda: _pieces(path, container, report),
            headers={
                "content-length": str(container.length),
                "repr-digest": f"sha-256=:{digest}:",
            },
        )
        return checked(StoredContainer, parsed(raw))

    def publish_release(self, artifacts: Mapping[str, Publication]) -> Release:
        """Publish a release: target paths with the containers they travel in."""
        body = {"artifacts": [found.to_json(path) for path, found in artifacts.items()]}
        return checked(Release, self._post("/releases", body))

    def releases(self) -> Sequence[Release]:
        """Every release, the newest first."""
        return checked(_Releases, self._get("/releases"))["releases"]

    def release(self, release_id: str) -> Release:
        """One release."""
        return checked(Release, self._get(f"/releases/{quote(release_id, safe='')}"))

    # ── devices ──────────────────────────────────────────────────────────────────────
    def enrol(
        self,
        device_id: str,
        *,
        csr: str,
        report_key: Mapping[str, object],
        ecus: Mapping[str, str],
        decryption_key: Mapping[str, object] | None = None,
    ) -> Enrolled:
        """Enrol a device; ``ecus`` maps ids to hardware ids, the primary first.

        ``decryption_key`` is ``{"kem", "public"}``; a device without one is never sent
        a sealed image.
        """
        body: dict[str, object] = {
            "device_id": device_id,
            "csr": csr,
            "report_key": dict(report_key),
            "ecus": [{"ecu_id": e, "hardware_id": h} for e, h in ecus.items()],
        }
        if decryption_key is not None:
            body["decryption_key"] = dict(decryption_key)
        return checked(Enrolled, self._post("/devices", body))

    def devices(self) -> Iterator[Device]:
        """Every device in order of their ids, page by page."""
        after: str | None = ""
        while after is not None:
            page = checked(_Devices, self._get("/devices", after=after))
            yield from page["devices"]
            after = page["next"]

    def device(self, device_id: str) -> DeviceDetail:
        """One device with its history."""
        found = self._get(f"/devices/{quote(device_id, safe='')}")
        return checked(DeviceDetail, found)

    def revoke(self, device_id: str, reason: str = "") -> DeviceDetail:
        """Revoke a device and its certificates; its history stays."""
        place = f"/devices/{quote(device_id, safe='')}/revoke"
        return checked(DeviceDetail, self._post(place, {"reason": reason}))

    # ── deployments ──────────────────────────────────────────────────────────────────
    def create_deployment(
        self,
        release_id: str,
        devices: Sequence[str] | None,
        reason: str = "",
        *,
        bytes_max: int | None = None,
        delta_wait_minutes: int | None = None,
    ) -> DeploymentDetail:
        """Send a release to named devices, or with ``None`` to every active one.

        ``bytes_max`` caps the body bytes of each installation; what costs more is held
        and says so. Deltas under way are waited for ``delta_wait_minutes``, if ``None``
        as long as the server's settings say.
        """
        body: dict[str, object] = {"release": release_id, "reason": reason}
        body |= {"all": True} if devices is None else {"devices": list(devices)}
        policy = {"bytes_max": bytes_max, "delta_wait_minutes": delta_wait_minutes}
        body |= {name: value for name, value in policy.items() if value is not None}
        return checked(DeploymentDetail, self._post("/deployments", body))

    def deployments(self) -> Sequence[Deployment]:
        """Every deployment, the newest first."""
        return checked(_Deployments, self._get("/deployments"))["deployments"]

    def deployment(self, deployment_id: str) -> DeploymentDetail:
        """One deployment with its installations."""
        found = self._get(f"/deployments/{quote(deployment_id, safe='')}")
        return checked(DeploymentDetail, found)

    def abort_deployment(
        self, deployment_id: str, reason: str = ""
    ) -> DeploymentDetail:
        """Take back what no device has switched to yet."""
        place = f"/deployments/{quote(deployment_id, safe='')}/abort"
        return checked(DeploymentDetail, self._post(place, {"reason": reason}))

    # ── deltas ───────────────────────────────────────────────────────────────────────
    def deltas(self) -> Iterator[Delta]:
        """Every delta wanted or made, the oldest first, page by page."""
        after: int | None = 0
        while after is not None:
            page = checked(_Deltas, self._get("/deltas", after=after))
            yield from page["deltas"]
            after = page["next"]

    def retry_delta(self, number: int) -> Delta:
        """Make a delta that failed, was useless or was cancelled after all."""
        return checked(Delta, self._post(f"/deltas/{number}/retry", {}))

    def cancel_delta(self, number: int) -> Delta:
        """Do not make a delta, or stop making it; what is ready stays."""
        return checked(Delta, self._post(f"/deltas/{number}/cancel", {}))

    # ── tokens ───────────────────────────────────────────────────────────────────────
    def who_am_i(self) -> Who:
        """Whose token this session shows, and what it allows."""
        return checked(Who, self._get("/whoami"))

    def tokens(self) -> Sequence[Token]:
        """Every token there ever was, without its secret, the newest first."""
        return checked(_Tokens, self._get("/tokens"))["tokens"]

    def create_token(self, name: str, roles: Sequence[str], days: int) -> NewToken:
        """Make a token that lasts so many days; its secret is shown this once."""
        body = {"name": name, "roles": list(roles), "days": days}
        return checked(NewToken, self._post("/tokens", body))

    def revoke_token(self, name: str, reason: str = "") -> Token:
        """Take a token back: the next request with it is refused."""
        place = f"/tokens/{quote(name, safe='')}/revoke"
        return checked(Token, self._post(place, {"reason": reason}))

    # ── audit ────────────────────────────────────────────────────────────────────────
    def audit(self, after: int = 0, limit: int = 100) -> Sequence[Leaf]:
        """Audit leaves with an index above ``after``, in the order of the log."""
        return checked(_Leaves, self._get("/audit", after=after, limit=limit))["leaves"]

    def _get(self, place: str, **query: str | int) -> Any:
        return self.session.json("GET", PREFIX + place, query=query)

    def _post(self, place: str, body: object) -> Any:
        return self.session.json("POST", PREFIX + place, body=body)

    def _post_raw(self, path: str, raw: bytes) -> Any:
        return parsed(self.session.raw("POST", path, content=raw))

    def _known(self, place: str) -> StoredContainer | None:
        try:
            return checked(StoredContainer, self.session.json("GET", place))
        except NotFoundError:
            return None


def _pieces(path: Path, container: Container, report: Report) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            done = 0
            while piece := stream.read(PIECE):
                yield piece
                done += len(piece)
                report(container.name, done, container.length)
    except OSError as error:
        raise InvalidConfigError(f"{path} cannot be read: {error.strerror}") from error
