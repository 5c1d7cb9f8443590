"""The Image repository: what the vendor's offline keys vouch for, made and published.

Two places use this. The desk *proposes* the next Targets from the one it knows and the
artifacts to add or remove; people sign it (``signing``). The server *publishes* what
came back: it verifies the threshold and the versions, then signs Snapshot and Timestamp
online.

I5: files are written Targets first, then Snapshot, then Timestamp, so that a reader who
follows Timestamp never meets a half state. Containers must be in place before.

Entries are kept in one Targets file; delegated roles (suppliers) come later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from sealift.core.errors import (
    ConflictError,
    ExpiredError,
    MalformedError,
    NotFoundError,
    RollbackError,
    StateError,
)
from sealift.repo.entries import Listed, image_entry, listed
from sealift.repo.repository import (
    SPEC_VERSION,
    MetadataStore,
    file_name,
    newest,
    read,
    sign,
    span,
    standing,
    utc_text,
    verify,
    write_new,
)
from sealift.repo.repository import issued as issued_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Signer

__all__ = [
    "ENTRIES_WARN",
    "ImageLifetimes",
    "ImageSigners",
    "Published",
    "artifacts",
    "check_targets",
    "propose_targets",
    "publish",
    "refresh",
    "renew_at",
]

ENTRIES_WARN = 1000
"""With more images than this a review says so: each costs a device 3 kB of memory."""


@dataclass(frozen=True, slots=True)
class ImageSigners:
    """One online key per role; never one key for both."""

    snapshot: Signer
    timestamp: Signer


@dataclass(frozen=True, slots=True)
class ImageLifetimes:
    """How long the online roles' files are valid from the moment they are made."""

    snapshot: timedelta = timedelta(days=7)
    timestamp: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Published:
    """Versions now served; ``changed`` is false if it all stood there before."""

    targets: int
    snapshot: int
    timestamp: int
    changed: bool


# ── the desk proposes ────────────────────────────────────────────────────────────────
def propose_targets(
    current: Targets | None,
    *,
    add: Iterable[Listed] = (),
    remove: Iterable[str] = (),
    now: datetime,
    lifetime: timedelta = timedelta(days=180),
) -> Targets:
    """The next Targets, unsigned: version + 1, with artifacts added and removed.

    Raises:
        ConflictError: a name is listed already, differently. NotFoundError: a name to
            remove is not listed. LimitError, UnsafeNameError: an artifact no Targets
            file may hold.
    """
    entries = dict(current.targets) if current is not None else {}
    for name in remove:
        if entries.pop(name, None) is None:
            raise NotFoundError(f"{name!r} is not listed, so it cannot be removed")
    for found in add:
        name, entry = found.artifact.name, image_entry(found)
        if entries.setdefault(name, entry) != entry:
            raise ConflictError(
                f"{name!r} is listed already, with other content",
                hint="a released name is never reused; choose the next version",
            )
    _, end = span(now, lifetime)
    version = current.version + 1 if current is not None else 1
    return Targets(version, SPEC_VERSION, end, entries)


def artifacts(targets: Targets) -> dict[str, Listed]:
    """Everything a Targets file lists, by name.

    Raises:
        MalformedError: an entry is not one of ours.
    """
    return {path: listed(path, entry) for path, entry in targets.targets.items()}


# ── the server publishes ─────────────────────────────────────────────────────────────
def check_targets(
    root: Root, raw: bytes, current: Targets | None, *, now: datetime
) -> Metadata[Targets]:
    """The next Targets, if the offline keys signed it and it may follow ``current``.

    Raises:
        SignatureError: below the threshold. RollbackError: not a higher version.
        ExpiredError: it would be refused everywhere. MalformedError, LimitError: its
        form. UnsafeNameError: an entry with a dangerous name. ConflictError: a name
        with other content than before.
    """
    found = read(raw, Targets)
    verify(root, "targets", found)
    if found.signed.delegations is not None:
        raise MalformedError("delegations are not offered yet")
    entries = artifacts(found.signed)
    for entry in entries.values():
        image_entry(entry)  # would we have written this ourselves?
    if now >= found.signed.expires:
        raise ExpiredError(
            f"targets version {found.signed.version} has expired",
            hint="propose and sign it again with a later expiry",
        )
    if current is not None:
        _follows(found.signed, current)
    return found


def publish(
    store: MetadataStore,
    raw: bytes,
    *,
    signers: ImageSigners,
    now: datetime,
    lifetimes: ImageLifetimes = ImageLifetimes(),
) -> Published:
    """Check ``raw`` and serve it: Targets, then a new Snapshot, then a new Timestamp.

    Publishing the served version again changes nothing. The caller sees to it that two
    calls on one store do not overlap.

    Raises:
        as :func:`check_targets`; StateError: the store has no Root, or lost a file.
    """
    root = _root(store)
    version = newest(store, "targets")
    known = _bytes(store, file_name("targets", version)) if version else None
    written = False
    if known != raw:
        current = read(known, Targets).signed if known is not None else None
        version = check_targets(root, raw, current, now=now).signed.version
        written = write_new(store, "targets", version, raw)
    signed = refresh(store, signers=signers, now=now, lifetimes=lifetimes)
    timestamp = read(_bytes(store, "timestamp.json"), Timestamp).signed
    return Published(
        targets=version,
        snapshot=newest(store, "snapshot"),
        timestamp=timestamp.version,
        changed=written or signed,
    )


def refresh(
    store: MetadataStore,
    *,
    signers: ImageSigners,
    now: datetime,
    lifetimes: ImageLifetimes = ImageLifetimes(),
) -> bool:
    """Sign Snapshot and Timestamp anew where needed; whether anything was signed.

    Needed: it does not list the newest file below it (a crash came between the two),
    under half of its life is left (D12), or Root has other keys for the role now.

    Raises:
        StateError: no Root or no Targets was published yet, or the store lost a file.
        SignatureError: the signer's key is not the one Root names.
        KeyUnreadableError: a signer failed.
    """
    online = _Online(store, _root(store), now)
    version = newest(store, "targets")
    targets = _bytes(store, file_name("targets", version))
    listing = {"targets.json": MetaFile.from_data(version, targets, ["sha256"])}
    new_snapshot = online.sign_snapshot(listing, signers.snapshot, lifetimes.snapshot)
    version = newest(store, "snapshot")
    snapshot = _bytes(store, file_name("snapshot", version))
    parent = MetaFile.from_data(version, snapshot, ["sha256"])
    new_timestamp = online.sign_timestamp(
        parent, signers.timestamp, lifetimes.timestamp
    )
    return new_snapshot or new_timestamp


def renew_at(store: MetadataStore) -> datetime | None:
    """The moment from which :func:`refresh` has work; ``None`` before publishing."""
    version, raw = newest(store, "snapshot"), store.read("timestamp.json")
    if not version or raw is None:
        return None
    snapshot = read(_bytes(store, file_name("snapshot", version)), Snapshot)
    return min(_half(snapshot.signed), _half(read(raw, Timestamp).signed))


@dataclass(frozen=True, slots=True)
class _Online:
    """The files of the online roles, each made anew only when it must be."""

    store: MetadataStore
    root: Root
    now: datetime

    def sign_snapshot(
        self, listing: dict[str, MetaFile], signer: Signer, lifetime: timedelta
    ) -> bool:
        version = newest(self.store, "snapshot")
        if version:
            known = read(_bytes(self.store, file_name("snapshot", version)), Snapshot)
            if known.signed.meta == listing and self._good(known):
                return False
        start, end = span(self.now, lifetime)
        fields = {"issued": utc_text(start)}
        made = Snapshot(version + 1, SPEC_VERSION, end, listing, fields)
        raw = self._signed(made, signer)
        write_new(self.store, "snapshot", version + 1, raw)
        return True

    def sign_timestamp(
        self, parent: MetaFile, signer: Signer, lifetime: timedelta
    ) -> bool:
        raw = self.store.read("timestamp.json")
        version = 0
        if raw is not None:
            known = read(raw, Timestamp)
            version = known.signed.version
            if known.signed.snapshot_meta == parent and self._good(known):
                return False
        start, end = span(self.now, lifetime)
        fields = {"issued": utc_text(start)}
        made = Timestamp(version + 1, SPEC_VERSION, end, parent, fields)
        self.store.write("timestamp.json", self._signed(made, signer))
        return True

    def _signed(self, made: Snapshot | Timestamp, signer: Signer) -> bytes:
        raw = sign(made, [signer])
        verify(self.root, made.type, read(raw, type(made)))
        return raw

    def _good(self, metadata: Metadata[Any]) -> bool:
        """Young enough, and signed by the keys Root names today."""
        role, payload = metadata.signed.type, metadata.signed_bytes
        found = standing(self.root, role, payload, metadata.signatures)
        return self.now < _half(metadata.signed) and found.complete


def _follows(found: Targets, current: Targets) -> None:
    if found.version <= current.version:
        raise RollbackError(
            f"targets version {found.version} does not follow {current.version}",
            hint="propose again from the published version",
        )
    for name, entry in found.targets.items():
        if current.targets.get(name, entry) != entry:
            raise ConflictError(f"{name!r} would change what it stands for")


def _root(store: MetadataStore) -> Root:
    version = newest(store, "root")
    if not version:
        raise StateError("there is no Image Root yet", hint="publish the roots first")
    return read(_bytes(store, file_name("root", version)), Root).signed


def _half(signed: Snapshot | Timestamp) -> datetime:
    start = issued_at(signed)
    if start is None:
        raise MalformedError("the file does not say when it was issued")
    return signed.expires - (signed.expires - start) / 2


def _bytes(store: MetadataStore, name: str) -> bytes:
    raw = store.read(name)
    if raw is None:
        raise StateError(f"{name} is missing in the metadata store")
    return raw
