"""The operator API's bodies as types: what is taken, what is given.

Requests refuse unknown members; texts and lists are bounded by their types. The OpenAPI
document is made from these.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sealift.core.hpke import Recipient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sealift.server import ports
    from sealift.server.services.deltas import DeltaView
    from sealift.server.services.deployments import DeploymentView
    from sealift.server.services.devices import DeviceView

Name = Annotated[str, Meta(min_length=1, max_length=160)]
Reason = Annotated[str, Meta(max_length=1000)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


# ── taken ────────────────────────────────────────────────────────────────────────────
class EcuBody(Struct, forbid_unknown_fields=True):
    """A component of a device to enrol."""

    ecu_id: Name
    hardware_id: Name


class EnrolBody(Struct, forbid_unknown_fields=True):
    """A device to enrol; the first component is the primary."""

    device_id: Name
    csr: Annotated[str, Meta(min_length=1, max_length=16_384)]
    report_key: dict[str, Any]
    ecus: Annotated[list[EcuBody], Meta(min_length=1, max_length=256)]
    decryption_key: dict[str, Any] | None = None


class ArtifactBody(Struct, forbid_unknown_fields=True):
    """An artifact of a release: its target path and the facts of its containers.

    ``sealed`` has the content key, wrapped to this server's content-key key.
    """

    path: Annotated[str, Meta(min_length=1, max_length=1024)]
    full: dict[str, Any]
    deltas: Annotated[list[dict[str, Any]], Meta(max_length=256)] = []
    sealed: dict[str, Any] | None = None


class ReleaseBody(Struct, forbid_unknown_fields=True):
    """A release to publish."""

    artifacts: Annotated[list[ArtifactBody], Meta(min_length=1, max_length=64)]


class DeploymentBody(Struct, forbid_unknown_fields=True):
    """A release to send; either ``devices`` or ``all``.

    ``bytes_max`` caps each installation's body bytes. Deltas under way are waited for
    ``delta_wait_minutes`` (``None``: as the server's settings say).
    """

    release: Name
    devices: Annotated[list[Name], Meta(max_length=10_000)] | None = None
    all: bool = False
    reason: Reason = ""
    bytes_max: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    delta_wait_minutes: Annotated[int, Meta(ge=0, le=10_080)] | None = None


class TokenBody(Struct, forbid_unknown_fields=True):
    """A token to make; its name is never used again."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    roles: Annotated[list[Name], Meta(min_length=1, max_length=32)]
    days: Annotated[int, Meta(ge=1, le=400)] = 90


class ReasonBody(Struct, forbid_unknown_fields=True):
    """Why."""

    reason: Reason = ""


# ── given ────────────────────────────────────────────────────────────────────────────
class StatusAnswer(Struct):
    """What this server is and holds."""

    version: str
    time: datetime
    poll_seconds: int
    device_url: str
    enrol_url: str
    published: dict[str, dict[str, int]]
    releases: int


class WhoAnswer(Struct):
    """Whose token this is; ``permissions`` are actions, ``expires_at`` may be never."""

    name: str
    roles: list[str]
    permissions: list[str]
    expires_at: datetime | None


class TokenAnswer(Struct):
    """A token, without its secret."""

    name: str
    roles: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class TokensAnswer(Struct):
    """Every token."""

    tokens: list[TokenAnswer]


class NewTokenAnswer(Struct):
    """A token just made; ``secret`` is kept nowhere."""

    secret: str
    token: TokenAnswer


class RootAnswer(Struct):
    """A root is published."""

    repository: str
    version: int


class TargetsAnswer(Struct):
    """Versions of the Image repository now served."""

    targets: int
    snapshot: int
    timestamp: int
    changed: bool


class ContainerAnswer(Struct):
    """A stored container."""

    name: str
    length: int
    sha256: str


class ArtifactAnswer(Struct):
    """An artifact of a release."""

    path: str
    length: int
    sha256: str
    hardware_ids: list[str]
    release_counter: int
    container: dict[str, Any]
    sealed: bool


class ReleaseAnswer(Struct):
    """A release."""

    id: str
    product: str
    version: str
    sequence: int
    published_at: datetime
    artifacts: list[ArtifactAnswer]


class ReleasesAnswer(Struct):
    """Every release, the newest first."""

    releases: list[ReleaseAnswer]


class InstalledAnswer(Struct):
    """What a component was last reported to run; ``None`` before its first report."""

    name: str | None
    sha256: str | None
    length: int | None
    version: str | None
    release_counter: int


class EcuAnswer(Struct):
    """A component of a device."""

    ecu_id: str
    hardware_id: str
    primary: bool
    installed: InstalledAnswer
    attack: str | None


class DecryptionKeyAnswer(Struct):
    """The key sealed images are wrapped to; ``reported`` is the id the device says."""

    kem: str
    kid: str
    reported: str | None


class DeviceAnswer(Struct):
    """A device as lists show it."""

    id: str
    state: str
    created_at: datetime
    last_seen: datetime | None
    reported_at: datetime | None
    time_source: str | None
    counter: int
    ecus: list[EcuAnswer]
    abilities: list[str]
    decryption_key: DecryptionKeyAnswer | None


class DevicesAnswer(Struct):
    """A page of devices; ask again with ``after`` = ``next`` while there is one."""

    devices: list[DeviceAnswer]
    next: str | None


class CertificateAnswer(Struct):
    """A certificate of a device."""

    serial: str
    sha256: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None


class OfferAnswer(Struct):
    """How an installation was offered and its expected bytes, or why it is held."""

    method: str | None
    bytes: int
    base_sha256: str | None
    held: str | None
    detail: str | None


class DoneAnswer(Struct):
    """What an installation took: body bytes, and segments a changed base cost."""

    method: str | None
    transferred: int | None
    repaired: int | None


class InstallationAnswer(Struct):
    """One component's record in one deployment."""

    id: str
    deployment: str
    device: str
    ecu_id: str
    path: str
    sha256: str
    state: str
    code: str | None
    changed_at: datetime
    offer: OfferAnswer | None
    done: DoneAnswer | None


class ReportAnswer(Struct):
    """A report as it came in."""

    sha256: str
    counter: int | None
    received_at: datetime
    verdict: str


class DeviceDetailAnswer(Struct):
    """A device with its history."""

    device: DeviceAnswer
    report_key_id: str
    certificates: list[CertificateAnswer]
    installations: list[InstallationAnswer]
    reports: list[ReportAnswer]


class EnrolledAnswer(Struct):
    """What a device needs back."""

    device: str
    certificate: str
    not_after: datetime


class DeploymentAnswer(Struct):
    """A deployment; ``counts`` says how many installations are in which state."""

    id: str
    release: str
    state: str
    reason: str
    created_at: datetime
    counts: dict[str, int]
    bytes_max: int | None
    delta_wait_minutes: int


class DeploymentsAnswer(Struct):
    """Every deployment, the newest first."""

    deployments: list[DeploymentAnswer]


class BytesAnswer(Struct):
    """Expected and real bytes of the installations whose device told the latter.

    ``repaired`` counts installations that found a changed base.
    """

    installations: int
    expected: int
    transferred: int
    repaired: int


class DeploymentDetailAnswer(Struct):
    """A deployment with its installations."""

    deployment: DeploymentAnswer
    installations: list[InstallationAnswer]
    bytes: BytesAnswer


class DeltaAnswer(Struct):
    """A pair of images a delta is wanted between; lengths in bytes, CPU in ms.

    While it is made there are ``step`` and its ``progress`` in per cent, once it is
    ready ``container``, its name.
    """

    id: int
    state: str
    origin: str
    path: str
    base_sha256: str
    base_path: str | None
    new_sha256: str
    full_sha256: str
    devices: int
    length: int | None
    full_length: int
    container: str | None
    cpu_ms: int | None
    reason: str | None
    attempts: int
    step: str | None
    progress: int | None
    wanted_at: datetime
    changed_at: datetime


class DeltasAnswer(Struct):
    """A page of deltas; ask again with ``after`` = ``next`` while there is one."""

    deltas: list[DeltaAnswer]
    next: int | None


class LeafAnswer(Struct):
    """One audit leaf; ``leaf`` is its canonical JSON as stored."""

    index: int
    leaf_hash: str
    leaf: msgspec.Raw


class AuditAnswer(Struct):
    """Leaves in the order of the log."""

    leaves: list[LeafAnswer]


# ── rows to answers ──────────────────────────────────────────────────────────────────
def release(found: ports.Release) -> ReleaseAnswer:
    """A release as given out."""
    artifacts = [
        ArtifactAnswer(
            path=item.artifact.name,
            length=item.artifact.length,
            sha256=item.artifact.sha256.hex(),
            hardware_ids=list(item.artifact.hardware_ids),
            release_counter=item.artifact.release_counter,
            container=item.full.to_json(),
            sealed=item.sealed,
        )
        for item in found.items
    ]
    return ReleaseAnswer(
        found.id,
        found.product,
        found.version,
        found.sequence,
        found.published_at,
        artifacts,
    )


def device(
    found: ports.Device, ecus: Sequence[ports.Ecu], seen: datetime | None
) -> DeviceAnswer:
    """A device as given out; ``seen`` is fresher than the row, if it is known."""
    return DeviceAnswer(
        id=found.id,
        state=found.state,
        created_at=found.created_at,
        last_seen=seen or found.last_seen,
        reported_at=found.reported_at,
        time_source=found.time_source,
        counter=found.counter,
        ecus=[_ecu(ecu) for ecu in ecus],
        abilities=list(found.abilities),
        decryption_key=_decryption_key(found),
    )


def device_detail(found: DeviceView, seen: datetime | None) -> DeviceDetailAnswer:
    """A device with its history as given out."""
    return DeviceDetailAnswer(
        device=device(found.device, found.ecus, seen),
        report_key_id=found.device.report_key_id,
        certificates=[
            CertificateAnswer(
                c.serial, c.sha256, c.not_before, c.not_after, c.revoked_at
            )
            for c in found.certificates
        ],
        installations=[installation(i) for i in found.installations],
        reports=[
            ReportAnswer(m.sha256, m.counter, m.received_at, m.verdict)
            for m in found.manifests
        ],
    )


def installation(found: ports.Installation) -> InstallationAnswer:
    """An installation as given out."""
    return InstallationAnswer(
        id=found.id,
        deployment=found.deployment_id,
        device=found.device_id,
        ecu_id=found.ecu_id,
        path=found.path,
        sha256=found.sha256,
        state=found.state,
        code=found.code,
        changed_at=found.changed_at,
        offer=None if found.offer is None else OfferAnswer(**asdict(found.offer)),
        done=None if found.done is None else DoneAnswer(**asdict(found.done)),
    )


def deployment(found: ports.Deployment, counts: Mapping[str, int]) -> DeploymentAnswer:
    """A deployment as given out."""
    return DeploymentAnswer(
        id=found.id,
        release=found.release_id,
        state=found.state,
        reason=found.reason,
        created_at=found.created_at,
        counts=dict(counts),
        bytes_max=found.bytes_max,
        delta_wait_minutes=found.delta_wait,
    )


def deployment_detail(found: DeploymentView) -> DeploymentDetailAnswer:
    """A deployment with its installations as given out."""
    return DeploymentDetailAnswer(
        deployment(found.deployment, found.counts),
        [installation(i) for i in found.installations],
        _bytes(found.installations),
    )


def delta(found: DeltaView, progress: tuple[str, int] | None) -> DeltaAnswer:
    """A delta as given out."""
    row = found.delta
    step, percent = progress or (None, None)
    return DeltaAnswer(
        id=row.number,
        state=row.state,
        origin=row.origin,
        path=row.path,
        base_sha256=row.base_sha256,
        base_path=found.base_path,
        new_sha256=row.new_sha256,
        full_sha256=row.full_sha256,
        devices=row.devices,
        length=row.length,
        full_length=row.full_length,
        container=None if row.container is None else row.container.name,
        cpu_ms=row.cpu_ms,
        reason=row.reason,
        attempts=row.attempts,
        step=step,
        progress=percent,
        wanted_at=row.wanted_at,
        changed_at=row.changed_at,
    )


def leaf(found: ports.Leaf) -> LeafAnswer:
    """An audit leaf as given out, its bytes unchanged."""
    return LeafAnswer(found.index, found.leaf_hash.hex(), msgspec.Raw(found.body))


def _ecu(found: ports.Ecu) -> EcuAnswer:
    return EcuAnswer(
        ecu_id=found.id,
        hardware_id=found.hardware_id,
        primary=found.primary,
        installed=InstalledAnswer(
            name=found.installed_name,
            sha256=found.installed_sha256,
            length=found.installed_length,
            version=found.installed_version,
            release_counter=found.release_counter,
        ),
        attack=found.attack,
    )


def _decryption_key(found: ports.Device) -> DecryptionKeyAnswer | None:
    if found.decryption_key is None:
        return None
    kem, public = found.decryption_key["kem"], found.decryption_key["public"]
    key = Recipient(kem, bytes.fromhex(public))
    return DecryptionKeyAnswer(key.kem, key.kid, found.reported_kid)


def _bytes(installations: Sequence[ports.Installation]) -> BytesAnswer:
    told = [
        (found.offer.bytes, found.done.transferred, found.done.repaired)
        for found in installations
        if found.offer and found.done and found.done.transferred is not None
    ]
    return BytesAnswer(
        installations=len(told),
        expected=sum(expected for expected, _, _ in told),
        transferred=sum(transferred or 0 for _, transferred, _ in told),
        repaired=sum(bool(repaired) for _, _, repaired in told),
    )


def token(found: ports.Token) -> TokenAnswer:
    """A token."""
    return TokenAnswer(
        found.name,
        list(found.roles),
        found.created_by,
        found.created_at,
        found.expires_at,
        found.revoked_at,
    )
