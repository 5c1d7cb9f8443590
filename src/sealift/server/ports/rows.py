"""The rows that cross the ports: devices, releases, orders, deltas, evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sealift.core.types import Artifact, Container, Patch, Wrap

__all__ = [
    "Caller",
    "Certificate",
    "ContentKey",
    "Delta",
    "Deployment",
    "Device",
    "DirectorRecord",
    "Done",
    "Ecu",
    "Installation",
    "Leaf",
    "Manifest",
    "MetadataFile",
    "Offer",
    "Release",
    "ReleaseItem",
    "StoredContainer",
    "Token",
    "Wanted",
]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a client certificate belongs to, as looked up on every request."""

    device_id: str
    device_state: str
    """``active``, ``quarantined`` or ``revoked``."""
    certificate_revoked: bool
    etag: str | None = None
    """Of the Director Timestamp in force, without quotes."""
    renew_at: int = 0
    """Unix seconds from which the Director must look again; 0: at once."""
    first_use: bool = False
    """Whether no request came under this certificate yet, as far as was noted."""


@dataclass(frozen=True, slots=True)
class Device:
    """One managed device. ``report_key`` is a TUF key object; times are UTC.

    ``counter`` is the highest report counter accepted, ``report_time`` the newest time
    the device vouched for. ``versions`` are the metadata versions it said it trusts, by
    repository and role: the Director's keep ours rising (D11).
    """

    id: str
    state: str
    report_key_id: str
    report_key: Mapping[str, object]
    created_at: datetime
    counter: int = 0
    reported_at: datetime | None = None
    report_time: datetime | None = None
    time_source: str | None = None
    last_seen: datetime | None = None
    versions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    abilities: tuple[str, ...] = ()
    decryption_key: Mapping[str, str] | None = None
    reported_kid: str | None = None


@dataclass(frozen=True, slots=True)
class Ecu:
    """One component of a device and what it was last reported to run."""

    id: str
    device_id: str
    hardware_id: str
    primary: bool
    installed_name: str | None = None
    installed_sha256: str | None = None
    installed_length: int | None = None
    installed_version: str | None = None
    release_counter: int = 0
    attack: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate our CA issued; ``sha256`` is of its DER form, lower hex.

    ``key_sha256`` is of its public key (DER), ``None`` in rows from before it was kept;
    ``used_at`` is when it was first noted in use.
    """

    sha256: str
    device_id: str
    serial: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None
    pem: str
    key_sha256: str | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """One published file of the Image repository, or a Director Root."""

    repository: str
    role: str
    version: int
    body: bytes
    sha256: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class DirectorRecord:
    """The Director's three files for one device, as issued last.

    ``versions`` are those of Targets, Snapshot and Timestamp. ``etag`` is that of
    Timestamp, ``renew_at`` is in Unix seconds.
    """

    device_id: str
    targets: bytes
    snapshot: bytes
    timestamp: bytes
    versions: tuple[int, int, int]
    etag: str
    renew_at: int


@dataclass(frozen=True, slots=True)
class StoredContainer:
    """A payload container in the blob store, immutable under its name."""

    name: str
    length: int
    sha256: str
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class ReleaseItem:
    """One artifact of a release, as the Image repository listed it."""

    artifact: Artifact
    full: Container
    sealed: bool = False
    """Whether it travels encrypted, in every container."""


@dataclass(frozen=True, slots=True)
class Release:
    """A named, sequenced set of artifacts."""

    id: str
    product: str
    version: str
    sequence: int
    items: tuple[ReleaseItem, ...]
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """One release sent to some devices.

    ``bytes_max`` caps the body bytes of each installation, ``delta_wait`` (minutes) is
    how long it waits for deltas that are being made.
    """

    id: str
    release_id: str
    state: str
    """``running``, ``completed`` or ``aborted``."""
    reason: str
    created_at: datetime
    bytes_max: int | None = None
    delta_wait: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What was offered for one installation, or why nothing is.

    ``bytes`` is what it is expected to cost on the wire, or would if it were offered;
    ``base_sha256`` the image a delta starts from. ``held`` is why it is not ordered
    (see ``domain.chooser``), ``detail`` the same for people.
    """

    method: str | None
    bytes: int
    base_sha256: str | None = None
    held: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What one installation really took, as the device reported it.

    ``transferred`` in body bytes, ``repaired`` in segments that a changed base cost.
    """

    method: str | None
    transferred: int | None
    repaired: int | None


@dataclass(frozen=True, slots=True)
class Installation:
    """One component's record in one deployment; ``state`` as in ``domain``."""

    id: str
    deployment_id: str
    device_id: str
    ecu_id: str
    path: str
    sha256: str
    state: str
    code: str | None
    changed_at: datetime
    offer: Offer | None = None
    done: Done | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which components could take a new image: the bases of deltas to it.

    With ``deployment_id`` only those that it gave an installation.
    """

    sha256: str
    hardware_ids: Sequence[str]
    release_counter: int
    deployment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """One pair of images that a delta is wanted between, and what became of it.

    The new image is that of the full container ``full_sha256`` (digest of the file, so
    of one sealing), ``path`` its name. ``state`` is ``wanted``, ``making``, ``ready``,
    ``useless``, ``failed`` or ``cancelled``, ``origin`` ``server`` or ``desk``.
    ``devices`` counts those that ran the base when it was wanted. Lengths are bytes.
    """

    number: int
    base_sha256: str
    full_sha256: str
    new_sha256: str
    path: str
    state: str
    origin: str
    devices: int
    full_length: int
    wanted_at: datetime
    changed_at: datetime
    run_at: datetime
    """Not begun before."""
    container: Container | None = None
    length: int | None = None
    cpu_ms: int | None = None
    reason: str | None = None
    attempts: int = 0
    patch: Patch | None = None
    """Between the same images, for a microcontroller behind the device."""


@dataclass(frozen=True, slots=True)
class ContentKey:
    """The content key of a sealed full container, wrapped to this server's key."""

    sealed_sha256: str
    path: str
    image_sha256: str
    wrap: Wrap
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class Manifest:
    """One report as it came in, accepted or not: evidence."""

    device_id: str
    sha256: str
    counter: int | None
    received_at: datetime
    verdict: str
    """``accepted``, or the code it was refused with."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the audit table."""

    index: int
    id: str
    kind: str
    body: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Token:
    """One credential of the operator API; ``sha256`` (lower hex) is all that is kept.

    ``name`` is unique for ever, ``roles`` are names, ``created_by`` is who made it.
    ``expires_at`` is ``None`` for the server's own first token only.
    """

    name: str
    sha256: str
    roles: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
