"""The durable state of the server, as protocols.

A *session* is one transaction over the store's tables; use cases get a writing one from
:meth:`Store.begin` and faces read through :attr:`Store.reader`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sealift.core.audit import Event
    from sealift.server.ports.rows import (
        Caller,
        Certificate,
        ContentKey,
        Delta,
        Deployment,
        Device,
        DirectorRecord,
        Ecu,
        Installation,
        Leaf,
        Manifest,
        MetadataFile,
        Release,
        StoredContainer,
        Token,
        Wanted,
    )

__all__ = [
    "AuditTable",
    "ContentKeys",
    "Deltas",
    "Deployments",
    "Devices",
    "Housekeeping",
    "Manifests",
    "MetadataFiles",
    "Releases",
    "Session",
    "Store",
    "Tokens",
]


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

    def holder(self, key_sha256: str) -> str | None:
        """The device that had a certificate for this TLS key, if any did (E-08)."""
        ...

    def superseded(self, used_before: datetime) -> Sequence[str]:
        """Devices with a certificate in force that is older than one in use since."""
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

    def take_lease(self, job: str, owner: str, now: datetime, until: datetime) -> bool:
        """Take a due job's lease; ``False`` if it is not due or somebody has it."""
        ...

    def finish(self, job: str, owner: str, next_run: datetime) -> None:
        """Give the lease back and say when the job is due again."""
        ...


class Tokens(Protocol):
    """Credentials of the operator API."""

    def shown(self, sha256: str) -> Token | None:
        """The token with that digest; one indexed query."""
        ...

    def find(self, name: str) -> Token | None:
        """One token."""
        ...

    def all(self) -> Sequence[Token]:
        """Every token there ever was, the newest first."""
        ...

    def save(self, token: Token) -> None:
        """Insert or replace."""
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
    def tokens(self) -> Tokens:
        """Credentials of the operator API."""
        ...

    @property
    def housekeeping(self) -> Housekeeping:
        """The timetable."""
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

    def note_used(self, used: Mapping[str, datetime]) -> None:
        """Write when certificates (by SHA-256) were first used; lossy, too."""
        ...

    def note_looked(self, device_id: str, renew_at: int) -> None:
        """The Director looked and has nothing to sign before ``renew_at``."""
        ...

    def close(self) -> None:
        """Release every connection."""
        ...
