"""The Director: one device's Targets, Snapshot and Timestamp, signed online.

Pure functions over values; signers and ``now`` come in, files go out. Nothing is kept
here and nothing is shared, so calls may run at the same time for as many devices as one
likes. What the caller keeps per device is one :class:`Issued`; write it back only if it
is another object than before, in the transaction that read it.

```
step = next_step(issued, orders, reported=..., now=now)       # decides, signs nothing
issued = issue(device_id, orders, issued, reported=..., signers=..., now=now)
```

* X1: ``device_id`` and ``issued`` stand in all three files.
* D11: a new version is above our own record and above what the device reported, the
  latter followed by at most 2^20 at once, so that a lying device cannot burn the range.
* A sealed order carries the content key wrapped for this device, for these Targets and
  for nothing else. The wrap is made when they are signed and is never itself a reason
  to sign; another key of the device is.
* D12: a Timestamp with under half of its life left is signed anew, also without news;
  Targets and Snapshot with under a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import MetaFile, Snapshot, Targets, Timestamp

from sealift.core.encryption import TENANT, wrap, wrap_info
from sealift.core.errors import LimitError, MalformedError
from sealift.core.hpke import new_private
from sealift.core.metadata import DIRECTOR
from sealift.core.types import Wrap
from sealift.repo.entries import (
    Order,
    Sealing,
    blank_wraps,
    check_text,
    director_entries,
)
from sealift.repo.repository import SPEC_VERSION, RoleFile, read, sign, span, utc_text
from sealift.repo.repository import issued as issued_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Signer
    from tuf.api.metadata import TargetFile

__all__ = [
    "JUMP_MAX",
    "DirectorSigners",
    "Issued",
    "Lifetimes",
    "Order",
    "Sealing",
    "Step",
    "Versions",
    "issue",
    "next_step",
    "next_version",
]

JUMP_MAX = 2**20
"""How far one new version may follow the versions a device reports (D11)."""
VERSION_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class DirectorSigners:
    """One online key per role; never one key for two of them."""

    targets: Signer
    snapshot: Signer
    timestamp: Signer


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long the files of a device are valid from the moment they are made."""

    targets: timedelta = timedelta(days=1)
    snapshot: timedelta = timedelta(days=1)
    timestamp: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Versions:
    """Metadata versions, as recorded by us or as a device reports them; 0: none."""

    targets: int = 0
    snapshot: int = 0
    timestamp: int = 0

    def above(self, other: Versions) -> bool:
        """Any of them is higher than in ``other``."""
        return (
            self.targets > other.targets
            or self.snapshot > other.snapshot
            or self.timestamp > other.timestamp
        )


class Step(StrEnum):
    """What has to be signed now."""

    KEEP = "keep"
    TIMESTAMP = "timestamp"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Issued:
    """The three files a device is served now; immutable, safe to share.

    ``renew_at`` is the moment from which :func:`next_step` is more than KEEP though
    nothing else changed: keep it beside the record, and a poll costs one comparison.
    """

    device_id: str
    targets: bytes
    snapshot: bytes
    timestamp: bytes
    versions: Versions
    timestamp_renew_at: datetime
    content_renew_at: datetime

    @property
    def renew_at(self) -> datetime:
        """The earlier of the two moments."""
        return min(self.timestamp_renew_at, self.content_renew_at)

    @classmethod
    def parse(cls, targets: bytes, snapshot: bytes, timestamp: bytes) -> Issued:
        """Read back three files this module made; signatures are not looked at.

        Raises:
            MalformedError, LimitError: they are not such files, or not of one device.
        """
        signed = (
            read(targets, Targets, limits=DIRECTOR).signed,
            read(snapshot, Snapshot, limits=DIRECTOR).signed,
            read(timestamp, Timestamp, limits=DIRECTOR).signed,
        )
        owners = {file.unrecognized_fields.get("device_id") for file in signed}
        owner = owners.pop()
        if owners or not isinstance(owner, str):
            raise MalformedError("the three files are not of one device")
        return cls(
            device_id=owner,
            targets=targets,
            snapshot=snapshot,
            timestamp=timestamp,
            versions=Versions(*(file.version for file in signed)),
            timestamp_renew_at=_renew_at(signed[2], 2),
            content_renew_at=min(_renew_at(file, 4) for file in signed[:2]),
        )


def next_version(own: int, reported: int) -> int:
    """The version after ``own`` that the device will also take as newer (D11).

    Raises:
        LimitError: the range of versions is used up.
    """
    followed = min(max(own, reported), own + JUMP_MAX)
    if followed >= VERSION_MAX:
        raise LimitError("no metadata version is left for this device")
    return followed + 1


def next_step(
    previous: Issued | None,
    orders: Iterable[Order],
    *,
    reported: Versions = Versions(),
    now: datetime,
) -> Step:
    """Decide what must be signed for a device; signs nothing.

    ALL without a record, with other orders, when Targets or Snapshot grow old, or when
    the device knows higher versions than we do (a database was restored). No content
    key is asked for.

    Raises:
        MalformedError, LimitError, UnsafeNameError: orders no metadata may hold.
    """
    entries = director_entries(orders)
    if previous is None or reported.above(previous.versions):
        return Step.ALL
    known = read(previous.targets, Targets, limits=DIRECTOR).signed
    if blank_wraps(known.targets) != entries or now >= previous.content_renew_at:
        return Step.ALL
    return Step.TIMESTAMP if now >= previous.timestamp_renew_at else Step.KEEP


def issue(
    device_id: str,
    orders: Iterable[Order],
    previous: Issued | None,
    *,
    signers: DirectorSigners,
    now: datetime,
    reported: Versions = Versions(),
    lifetimes: Lifetimes = Lifetimes(),
) -> Issued:
    """The files this device shall be served now; ``previous`` itself if they still do.

    ``orders`` is the whole list for the device: an ECU that is not in it is not ordered
    anything. ``reported`` are the versions in its last valid manifest.

    Raises:
        MalformedError, LimitError, UnsafeNameError: orders no metadata may hold, or
            ``previous`` is of another device. KeyUnreadableError: a signer failed.
            Whatever ``content_key`` of a sealed order raises.
    """
    check_text(device_id)
    if previous is not None and previous.device_id != device_id:
        raise MalformedError(f"the record is not of {device_id!r}")
    wanted = tuple(orders)
    match next_step(previous, wanted, reported=reported, now=now):
        case Step.KEEP if previous is not None:
            return previous
        case Step.TIMESTAMP if previous is not None:
            return _timestamp_only(previous, signers, now, lifetimes)
        case _:
            own = previous.versions if previous is not None else Versions()
            versions = Versions(
                next_version(own.targets, reported.targets),
                next_version(own.snapshot, reported.snapshot),
                next_version(own.timestamp, reported.timestamp),
            )
            made = _Maker(device_id, now, lifetimes)
            wraps = _wraps(device_id, wanted, versions.targets)
            return made.all(director_entries(wanted, wraps), versions, signers)


def _wraps(device_id: str, orders: Iterable[Order], version: int) -> dict[str, Wrap]:
    """The content keys of all sealed orders, by ECU id, for these Targets only."""
    return {
        order.ecu_id: _wrap(order.sealing, device_id, order, version)
        for order in orders
        if order.sealing is not None
    }


def _wrap(sealing: Sealing, device_id: str, order: Order, version: int) -> Wrap:
    kem, public = sealing.recipient.kem, sealing.recipient.public
    path, sealed_sha256 = order.artifact.name, order.full.sha256
    info = wrap_info(TENANT, device_id, order.ecu_id, path, sealed_sha256, version)
    ephemeral = new_private(kem, sealing.draw)
    data = wrap(kem, public, sealing.content_key(), info, ephemeral)
    return Wrap(kem, sealing.recipient.kid, data)


def _timestamp_only(
    previous: Issued, signers: DirectorSigners, now: datetime, lifetimes: Lifetimes
) -> Issued:
    known = previous.versions
    version = next_version(known.timestamp, 0)
    made = _Maker(previous.device_id, now, lifetimes)
    timestamp = made.timestamp(
        version, known.snapshot, previous.snapshot, signers.timestamp
    )
    return Issued.parse(previous.targets, previous.snapshot, timestamp)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the files of one device at one moment."""

    device_id: str
    now: datetime
    lifetimes: Lifetimes

    def all(
        self,
        entries: dict[str, TargetFile],
        versions: Versions,
        signers: DirectorSigners,
    ) -> Issued:
        common = self._common(versions.targets, self.lifetimes.targets)
        targets = sign(Targets(targets=entries, **common), [signers.targets])
        meta = {"targets.json": _meta(versions.targets, targets)}
        common = self._common(versions.snapshot, self.lifetimes.snapshot)
        snapshot = sign(Snapshot(meta=meta, **common), [signers.snapshot])
        timestamp = self.timestamp(
            versions.timestamp, versions.snapshot, snapshot, signers.timestamp
        )
        return Issued.parse(targets, snapshot, timestamp)

    def timestamp(
        self, version: int, snapshot_version: int, snapshot: bytes, signer: Signer
    ) -> bytes:
        common = self._common(version, self.lifetimes.timestamp)
        meta = _meta(snapshot_version, snapshot)
        return sign(Timestamp(snapshot_meta=meta, **common), [signer])

    def _common(self, version: int, lifetime: timedelta) -> dict[str, Any]:
        start, end = span(self.now, lifetime)
        return {
            "version": version,
            "spec_version": SPEC_VERSION,
            "expires": end,
            "unrecognized_fields": {
                "device_id": self.device_id,
                "issued": utc_text(start),
            },
        }


def _meta(version: int, raw: bytes) -> MetaFile:
    return MetaFile.from_data(version, raw, ["sha256"])


def _renew_at(signed: RoleFile, part: int) -> datetime:
    """The moment from which less than 1/``part`` of the file's life is left."""
    start = issued_at(signed)
    if start is None:
        raise MalformedError("the file does not say when it was issued")
    return signed.expires - (signed.expires - start) / part
