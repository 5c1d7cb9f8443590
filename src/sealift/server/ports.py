"""What the server needs of the world, as protocols, and the rows that cross them.

A *session* is one transaction over the store's tables; use cases get a writing one from
:meth:`Store.begin` and faces read through :attr:`Store.reader`. Adapters raise only
errors of ``core.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from sealift.core.audit import Event
    from sealift.core.types import Artifact, Container, Patch, Wrap
    from sealift.payload.mcu import Recipe
    from sealift.repo.director import DirectorSigners
    from sealift.repo.image import ImageSigners


# ── rows ─────────────────────────────────────────────────────────────────────────────
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
    """One certificate our CA issued; ``sha256`` is of its DER form, lower hex."""

    sha256: str
    device_id: str
    serial: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None
    pem: str


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


# ── the store ────────────────────────────────────────────────────────────────────────
class Devices(Protocol):
    """Devices, their components and their certificates."""

    def caller(self, certificate_sha256: str) -> Caller | None:
        """Whose certificate this is; one indexed query."""
        ...

    def find(self, device_id: str) -> Device | None:
        """One device."""
        ...

    def all(self, after: str = "", limit: int = 1000) -> Sequence[Device]:
        """Devices in order of their ids, those after ``after``."""
        ...

    def save(self, device: Device) -> None:
        """Insert or replace."""
        ...

    def ecus(self, device_id: str) -> Sequence[Ecu]:
        """The components of a device, the primary first."""
        ...

    def save_ecu(self, ecu: Ecu) -> None:
        """Insert or replace."""
        ...

    def bases(self, wanted: Wanted) -> Sequence[tuple[str, int]]:
        """Image digests active devices run on such components, with how many; most
        first.
        """
        ...

    def certificates(self, device_id: str) -> Sequence[Certificate]:
        """Every certificate issued to a device, the newest first."""
        ...

    def save_certificate(self, certificate: Certificate) -> None:
        """Insert or replace."""
        ...

    def key_in_use(self, report_key_id: str) -> bool:
        """Whether any device, also a revoked one, reports with this key (E-08)."""
        ...


class MetadataFiles(Protocol):
    """Published metadata of both repositories and the Director's files per device."""

    def find(self, repository: str, role: str, version: int) -> MetadataFile | None:
        """One version of one role."""
        ...

    def newest(self, repository: str, role: str) -> MetadataFile | None:
        """The highest version of a role."""
        ...

    def add(self, file: MetadataFile) -> None:
        """Insert; published versions are never replaced."""
        ...

    def director(self, device_id: str) -> DirectorRecord | None:
        """What was issued to a device last."""
        ...

    def save_director(self, record: DirectorRecord, containers: Sequence[str]) -> None:
        """Replace it, and with it the blob names the device may fetch."""
        ...

    def outdate(self, device_id: str | None = None) -> None:
        """Have the Director look again at the next poll; ``None``: at every device."""
        ...

    def outdate_ordered(self) -> None:
        """The same for every device with an open installation."""
        ...

    def outdate_pair(self, base_sha256: str, new_sha256: str) -> None:
        """The same for devices on one image that have not begun another one."""
        ...

    def ordered(self, device_id: str, name: str) -> StoredContainer | None:
        """That container, if the Director's Targets now order it for that device."""
        ...

    def versions(self, repository: str) -> Sequence[tuple[str, int]]:
        """Role and version of every file of a repository."""
        ...


class Releases(Protocol):
    """Containers and releases."""

    def container(self, name: str) -> StoredContainer | None:
        """One stored container."""
        ...

    def add_container(self, container: StoredContainer) -> None:
        """Insert."""
        ...

    def find(self, release_id: str) -> Release | None:
        """One release."""
        ...

    def all(self) -> Sequence[Release]:
        """Every release, the newest first."""
        ...

    def add(self, release: Release) -> None:
        """Insert."""
        ...


class Deployments(Protocol):
    """Deployments and the installations they make."""

    def find(self, deployment_id: str) -> Deployment | None:
        """One deployment."""
        ...

    def all(self) -> Sequence[Deployment]:
        """Every deployment, the newest first."""
        ...

    def save(self, deployment: Deployment) -> None:
        """Insert or replace."""
        ...

    def installations(self, deployment_id: str) -> Sequence[Installation]:
        """Those of a deployment, by device and component."""
        ...

    def installations_on(self, device_id: str) -> Sequence[Installation]:
        """Those of a device, of the newest deployment first."""
        ...

    def open_installations(self, device_id: str) -> Sequence[Installation]:
        """Those of a device that have not ended."""
        ...

    def save_installation(self, installation: Installation) -> None:
        """Insert or replace."""
        ...

    def complete(self, deployment_id: str) -> None:
        """Close a running deployment whose last open installation has ended."""
        ...

    def counts(self, deployment_id: str) -> Mapping[str, int]:
        """Installations per state."""
        ...


class Deltas(Protocol):
    """Deltas wanted and made; times and leases of the work are in the same rows."""

    def find(self, number: int) -> Delta | None:
        """One row."""
        ...

    def between(self, base_sha256: str, full_sha256: str) -> Delta | None:
        """The row of a pair."""
        ...

    def to(self, full_sha256: str) -> Sequence[Delta]:
        """Every row of one new image."""
        ...

    def all(self, after: int = 0, limit: int = 1000) -> Sequence[Delta]:
        """Rows in order of their numbers, those after ``after``."""
        ...

    def add(self, delta: Delta) -> int:
        """Insert under the next number, which is returned; ``number`` is not used."""
        ...

    def save(self, delta: Delta) -> None:
        """Replace what may change; whoever worked on it does not hold it any more."""
        ...

    def claim(self, owner: str, now: datetime, until: datetime) -> Delta | None:
        """Take the due row with most devices, wanted or left behind by its holder."""
        ...

    def renew(self, number: int, owner: str, until: datetime) -> bool:
        """Hold a row longer; ``False`` if it is not the owner's any more."""
        ...

    def give_back(self, number: int, owner: str) -> None:
        """Leave a row as if it had not been taken, if it is still the owner's."""
        ...

    def is_held(self, number: int, owner: str) -> bool:
        """Whether a row is still being made by that owner."""
        ...


class ContentKeys(Protocol):
    """Content keys as they may be stored: wrapped."""

    def find(self, sealed_sha256: str) -> ContentKey | None:
        """That of one sealed full container."""
        ...

    def seals(self, image_sha256: str) -> bool:
        """Whether an image was ever published sealed."""
        ...

    def add(self, key: ContentKey) -> None:
        """Insert."""
        ...


class Manifests(Protocol):
    """Reports as they came in."""

    def add(self, manifest: Manifest) -> bool:
        """Keep as evidence; ``False`` if these bytes of it are kept already."""
        ...

    def accepted(self, device_id: str, limit: int) -> Sequence[str]:
        """Hashes of the accepted reports of a device, the newest first."""
        ...

    def refused_since(self, device_id: str, since: datetime) -> int:
        """How many refused reports of a device were kept since then."""
        ...

    def of(self, device_id: str, limit: int = 50) -> Sequence[Manifest]:
        """The newest reports of a device."""
        ...


class AuditTable(Protocol):
    """The append-only table of leaves."""

    def append(self, event: Event, leaf: bytes, leaf_hash: bytes) -> int:
        """Insert one leaf; its index.

        Raises:
            AuditUnavailableError: the table cannot be written.
        """
        ...

    def size(self) -> int:
        """How many leaves there are."""
        ...

    def page(self, after: int = 0, limit: int = 100) -> Sequence[Leaf]:
        """Leaves with an index above ``after``, in order."""
        ...


class Housekeeping(Protocol):
    """What is neither a device nor a release."""

    def token(self) -> str | None:
        """SHA-256 (lower hex) of the operator token in force."""
        ...

    def set_token(self, sha256: str, at: datetime) -> None:
        """Replace the operator token."""
        ...

    def take_lease(self, job: str, owner: str, now: datetime, until: datetime) -> bool:
        """Take a due job's lease; ``False`` if it is not due or somebody has it."""
        ...

    def finish(self, job: str, owner: str, next_run: datetime) -> None:
        """Give the lease back and say when the job is due again."""
        ...


class Session(Protocol):
    """One transaction's view of every table."""

    @property
    def devices(self) -> Devices:
        """Devices, components, certificates."""
        ...

    @property
    def metadata(self) -> MetadataFiles:
        """Published files and the Director's."""
        ...

    @property
    def releases(self) -> Releases:
        """Containers and releases."""
        ...

    @property
    def deployments(self) -> Deployments:
        """Deployments and installations."""
        ...

    @property
    def deltas(self) -> Deltas:
        """Pairs of images a delta is wanted between, and what became of it."""
        ...

    @property
    def content_keys(self) -> ContentKeys:
        """Content keys of sealed containers, wrapped."""
        ...

    @property
    def manifests(self) -> Manifests:
        """Reports as they came in."""
        ...

    @property
    def audit(self) -> AuditTable:
        """The append-only leaves."""
        ...

    @property
    def housekeeping(self) -> Housekeeping:
        """Token and timetable."""
        ...

    def changes(self) -> int:
        """Rows changed so far in this transaction."""
        ...


class Store(Protocol):
    """The durable state of the server."""

    def begin(self) -> AbstractContextManager[Session]:
        """One writing transaction: committed durably at the end, undone on any error.

        Raises:
            StateError: the store cannot be opened or written; nothing changed.
        """
        ...

    @property
    def reader(self) -> Session:
        """A session that can only read what is committed."""
        ...

    def note_seen(self, seen: Mapping[str, datetime]) -> None:
        """Write a batch of "last seen" times; lossy on a crash, so never evidence."""
        ...

    def note_looked(self, device_id: str, renew_at: int) -> None:
        """The Director looked and has nothing to sign before ``renew_at``."""
        ...

    def close(self) -> None:
        """Release every connection."""
        ...


# ── blobs, authority, chance ─────────────────────────────────────────────────────────
class Blobs(Protocol):
    """Large immutable files by flat names."""

    async def put(
        self, name: str, body: AsyncIterator[bytes], *, length: int, sha256: str
    ) -> None:
        """Store a body whole and durably, or not at all; names are never reused.

        Raises:
            TooLargeError, InvalidInputError: not ``length`` bytes of that digest.
            ConflictError: other bytes lie under that name. SpaceError: no room.
        """
        ...

    def read(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Bytes ``[start, stop)`` in pieces.

        Raises:
            NotFoundError: no such blob, or it is shorter.
        """
        ...


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh certificate and what we keep of it."""

    pem: str
    sha256: str
    serial: str
    not_before: datetime
    not_after: datetime


class Authority(Protocol):
    """The certificate authority devices belong to."""

    def issue(self, device_id: str, csr_pem: bytes, now: datetime) -> Issued:
        """A client certificate for the key in the request; names in it are ignored.

        Raises:
            InvalidInputError: malformed, not self-signed, or a key of a wrong kind.
        """
        ...


class Clock(Protocol):
    """Time as the server has it."""

    def now(self) -> datetime:
        """UTC, whole seconds."""
        ...


class Chance(Protocol):
    """Unpredictable bytes."""

    def token_bytes(self, count: int) -> bytes:
        """``count`` bytes nobody can guess."""
        ...


class ContentOpener(Protocol):
    """The server's content-key key: what the desk wraps content keys to."""

    kem: str
    kid: str

    def open(self, wrap: Wrap, path: str, sealed_sha256: bytes) -> bytes:
        """A content key, for the moment it is needed; it is never written anywhere.

        ``path`` is the TUF target path, ``sealed_sha256`` that of the sealed file.

        Raises:
            DecryptError: wrapped to another key, for another file, or changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Side:
    """One image of a pair: its full container and, if that is sealed, what opens it."""

    artifact: Artifact
    full: Container
    content_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Task:
    """A delta to make. ``name`` is what its container is called.

    It is sealed with the content key of the new image, if that has one.
    """

    number: int
    name: str
    base: Side
    new: Side
    recipe: Recipe | None = None
    """By which to make a patch for a microcontroller, too."""


@dataclass(frozen=True, slots=True)
class Made:
    """A finished delta: its facts, the file it is in, CPU milliseconds it took."""

    container: Container
    file: Path
    cpu_ms: int
    patch: tuple[Patch, Path] | None = None
    """The patch that was wanted as well, if one came of it that is worth having."""


class DeltaMaker(Protocol):
    """Makes deltas, elsewhere: whatever happens there does not harm this process."""

    def make(
        self,
        task: Task,
        *,
        progress: Callable[[str, int], None],
        cancelled: Callable[[], bool],
    ) -> Made:
        """Make one, checked by the decoder devices have; blocks until that is done.

        ``progress(step, per cent)`` is called now and then. Once ``cancelled()`` the
        work is given up within a second. The file of the result is the caller's.

        Raises:
            DeltaError: it could not be made. PayloadError, FormatError: a container is
            not what it should be. SpaceError: no room.
        """
        ...


@dataclass(frozen=True, slots=True)
class PayloadPolicy:
    """How images travel, as the settings say.

    ``bases`` is how many deltas are made to one new image, ``wait_minutes`` how long a
    deployment waits for them if it does not say. ``must_seal`` are hardware ids whose
    images never travel in the open.
    """

    deltas: bool = False
    sealed_deltas: bool = False
    bases: int = 32
    wait_minutes: int = 0
    must_seal: frozenset[str] = frozenset()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """What types of microcontrollers, by hardware id, can decode."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every use case has at hand; made once by the composition root.

    ``director`` and ``image`` are the online keys: nothing signed with them makes a
    device accept what the vendor's offline keys did not sign.
    """

    store: Store
    blobs: Blobs
    authority: Authority
    clock: Clock
    chance: Chance
    director: DirectorSigners
    image: ImageSigners
    content: ContentOpener
    payload: PayloadPolicy = PayloadPolicy()
    ecus_max: int = 256
    demo: bool = False
    """Whether throw-away keys are accepted; never in production."""
