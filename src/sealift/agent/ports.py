"""Everything physical the agent touches, as protocols. Adapters implement them.

One contract test per port runs against every implementation, the simulated ones
included. Methods raise errors of ``core.errors`` only; adapters translate the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Flag, auto
from typing import TYPE_CHECKING, Protocol

from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sealift.core.types import Artifact, Instruction, Patch, PatchKind


# ── clock ────────────────────────────────────────────────────────────────────────────
class Clock(Protocol):
    """Time as the device has it; nothing below the composition root reads another."""

    def now(self) -> datetime:
        """The system clock, UTC, believed by nobody (see ``agent.trust``)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run back within one boot."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def boot_id(self) -> str:
        """A text that is another one after every start of the machine."""
        ...


# ── storage ──────────────────────────────────────────────────────────────────────────
class Readable(Protocol):
    """Records as somebody sees them who may not change them."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none.

        Raises:
            StateError: it is damaged or cannot be read.
        """
        ...


class Storage(Readable, Protocol):
    """Small durable records under flat names (``[a-z0-9._%-]``, no ``/``)."""

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and delete (``None``) several records in one atomic, durable step.

        Records that would not change are not written. After a power cut either all
        changes hold or none does.

        Raises:
            SpaceError: no room; nothing changed.
            StateError: the store cannot be written; nothing changed.
        """
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names in use that begin with ``prefix``, sorted."""
        ...


class Cells(Protocol):
    """A few small numbered pieces of raw durable memory, for ``agent.record``.

    No promise but this: a write may tear or be lost until ``flush`` returned, and
    touches no other cell.
    """

    def read(self, cell: int, limit: int) -> bytes | None:
        """At most ``limit`` bytes from the start of a cell, ``None`` if never written.

        Raises:
            StateError: the medium cannot be read.
        """
        ...

    def write(self, cell: int, data: bytes) -> None:
        """Put ``data`` at the start of a cell; what lies behind it may stay.

        Raises:
            SpaceError: no room. StateError: the medium cannot be written. The cell may
            be torn in both cases.
        """
        ...

    def flush(self, cell: int) -> None:
        """Return when everything written to the cell is durable.

        Raises:
            StateError: the medium cannot promise it.
        """
        ...


class Counter(Protocol):
    """A hardware counter against rollback: TPM, RPMB, fuses. It never goes down."""

    def value(self) -> int:
        """The lowest release counter the hardware still accepts.

        Raises:
            StateError: the counter cannot be read.
        """
        ...

    def advance(self, counter: int) -> None:
        """Raise it to ``counter``; nothing happens if it is there or above.

        Raises:
            StateError: the counter cannot be raised.
        """
        ...


# ── boot control ─────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class BootState:
    """What the loader says of itself, for reports and ``doctor``."""

    loader: str
    slots: Mapping[Slot, str]
    """Per slot: ``empty``, ``writing``, ``trial(n)``, ``good``, ``bad``."""
    counts_attempts: bool
    remarks: Sequence[str] = ()
    missing: Sequence[str] = ()
    """What the loader lacks for its duties: ``config-check`` fails with any of it."""
    version: str = ""
    """The loader's own word for its version, if it leaves one (device-D12)."""


class BootControl(Protocol):
    """Six verbs to a boot loader; guarantees B1…B10 of the device rules hold.

    Every verb may be repeated after a cut and then finishes (B2); a verb that would
    change nothing writes nothing.
    """

    def current(self) -> Slot:
        """The slot whose root is mounted now; never asked of the loader."""
        ...

    def next(self) -> Slot:
        """The slot the loader would start next."""
        ...

    def mark_writing(self, slot: Slot) -> None:
        """No bootable entry points at ``slot`` any more (B9): it may now be written.

        Raises:
            BootError: ``slot`` runs now, is the confirmed one, or the store is broken.
        """
        ...

    def set_next(self, slot: Slot, tries: int) -> None:
        """From now on ``slot`` is on trial; with the confirmed slot this disarms.

        ``tries`` is how many starts it gets; a loader that cannot count gives one.

        Raises:
            BootError: the loader's store refused; what booted before still boots.
        """
        ...

    def mark_good(self) -> None:
        """The current slot becomes the confirmed one. Durable when it returns.

        Raises:
            BootError: the loader's store refused; what booted before still boots.
        """
        ...

    def state(self) -> BootState:
        """What the loader and its store look like."""
        ...


class Loader(BootControl, Protocol):
    """A boot control that also tells one start of its machine from another."""

    def boot_id(self) -> str:
        """Another text after every start of the machine."""
        ...


class BootFiles(Protocol):
    """Where a loader keeps the files it starts, outside the slots: an EFI partition.

    A loader that starts what lies in the slot itself has none. Every verb may be
    repeated after a cut.
    """

    def accept(self, image: Artifact) -> None:
        """Whether a boot file of this image could be placed; nothing is touched.

        Raises:
            BootError: the image has none, or one of another kind. SpaceError: no room.
        """
        ...

    def place(self, slot: Slot, image: Artifact, source: SlotDevice) -> None:
        """Have the boot file of ``image``, which lies in ``source``, in its place.

        Durable and compared with its signed digest, as it is read back from the medium,
        before its name appears where the loader looks (device-D6).

        Raises:
            SlotError: what was read back is not the boot file. SpaceError: no room.
            BootError: the place cannot be written.
        """
        ...

    def check(self, slot: Slot, image: Artifact) -> None:
        """The boot file of ``slot`` is there and is still that of ``image``.

        Raises:
            SlotError: it is not. BootError: the place cannot be read.
        """
        ...


# ── slots ────────────────────────────────────────────────────────────────────────────
class SlotDevice(Protocol):
    """One slot opened once: every read and write goes through the same descriptor."""

    @property
    def size(self) -> int:
        """Bytes the slot can hold."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``, fewer only at the end of the slot."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``.

        Raises:
            SlotError: the write failed. SpaceError: it would pass the end of the slot.
        """
        ...

    def flush(self) -> None:
        """Return when everything written is durable (``fdatasync``)."""
        ...

    def drop_cache(self) -> None:
        """Ask that the next reads come from the medium, not from the page cache."""
        ...

    def close(self) -> None:
        """Release the descriptor."""
        ...


class Slots(Protocol):
    """The two slots of one component, by the device's own configuration only (D-08)."""

    def open(self, slot: Slot, *, writable: bool) -> SlotDevice:
        """Open one slot.

        Raises:
            SlotError: it is missing, of a wrong kind, or not ours to write.
        """
        ...


class Workspace(Protocol):
    """Scratch files for what is too large to remember, under flat names.

    They may survive a restart, and prove nothing then: whoever opens one checks what is
    in it. Losing them costs time, never correctness.
    """

    def open(self, name: str, length: int) -> SlotDevice:
        """A file of exactly ``length`` bytes, made if it is missing.

        Raises:
            SpaceError: no room. SlotError: it cannot be used.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a file; there may be none.

        Raises:
            SlotError: it cannot be deleted.
        """
        ...


# ── installer ────────────────────────────────────────────────────────────────────────
class Feature(Flag):
    """What an installer can do beyond the five verbs."""

    NONE = 0
    RESUME = auto()
    """It can write at an offset and read back, so an interrupted stage goes on."""
    DELTA = auto()
    """It can read the base image."""
    ROLLBACK = auto()
    """The old version stays whole until confirm."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How an install got its image.

    ``method`` is ``none``, ``delta`` or ``full``; ``received`` counts body bytes over
    all restarts; ``repaired`` is how many segments came from the full container because
    the delta did not make them of what runs.
    """

    method: str
    received: int
    repaired: int


class Fill(Protocol):
    """Bring the ordered image into ``into``; ``base`` is the running slot, if readable.

    Made by ``agent.payload``: fetch, open, patch, verify, write, segment by segment.
    When it returns, every segment was verified and flushed.
    """

    def __call__(self, into: SlotDevice, base: SlotDevice | None, /) -> None:
        """Fill ``into``; done again after a cut, it goes on where it was.

        Raises:
            PayloadError, TransportError, SlotError, SpaceError: as its maker says.
        """
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """Where the component runs now."""

    running: Slot
    boot_id: str


@dataclass(frozen=True, slots=True)
class Armed:
    """The loader will try the other slot at the next start of this boot's successor."""

    boot_id: str


@dataclass(frozen=True, slots=True)
class Running:
    """The component already runs ``slot`` (the arm was done before a cut)."""

    slot: Slot


class Installer(Protocol):
    """Five verbs for whatever can be updated. Each verb can be repeated after a cut."""

    @property
    def features(self) -> Feature:
        """What it can do beyond the five verbs."""
        ...

    def stage(self, order: Instruction, slot: Slot, fill: Fill) -> None:
        """Have the ordered image, verified and re-read (W8), in ``slot``.

        Raises:
            SpaceError: the image is larger than the slot; nothing was erased (D-09).
            SlotError: ``slot`` runs now, or what was read back is not what was written.
            PayloadError, TransportError: from ``fill``.
        """
        ...

    def arm(self, order: Instruction, slot: Slot) -> Armed | Running:
        """Tell the loader to try ``slot`` next, after one more look at it (D-01).

        Raises:
            SlotError: the slot does not hold the image. BootError: the loader refused.
        """
        ...

    def probe(self) -> Probe:
        """Ask which slot is running."""
        ...

    def confirm(self, order: Instruction, slot: Slot) -> None:
        """Mark ``slot`` good, from inside itself.

        Raises:
            BootError: another slot is running, or the loader refused.
        """
        ...

    def revert(self, home: Slot) -> bool:
        """Disarm; ``True`` when ``home`` runs already, ``False``: restart first."""
        ...


# ── a microcontroller behind this device ─────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Unit:
    """What a microcontroller says of itself; a lie costs nobody but it.

    A slot is a name its loader keeps with each image: of a bank where there are two,
    of nothing else where there is one. ``sha256`` and ``length`` are those of the image
    that runs as ``running``; with ``None`` and 0 only its loader runs, nothing whole
    was there to start, and ``running`` is what was confirmed last.
    """

    running: Slot
    sha256: bytes | None
    length: int
    confirmed: bool
    """Whether what runs was confirmed; an image that was not starts once."""
    next: Slot
    """What starts next."""
    boot_id: str
    """Another text after every start of the microcontroller."""
    one_slot: bool
    """Whether a new image takes the place of the running one as it comes."""
    waiting: bytes | None
    """SHA-256 of an image that lies whole, verified by the loader, and does not run."""
    coming: bytes | None
    """SHA-256 of the file whose transfer was begun and not finished."""
    kinds: frozenset[PatchKind]
    """The patches its loader can apply."""
    block: int
    """Most bytes of one write, 1 or more."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is about to be sent: an image as it is, or a patch that makes it.

    ``length`` and ``sha256`` are those of the bytes that are sent.
    """

    slot: Slot
    length: int
    sha256: bytes
    image_length: int
    image_sha256: bytes
    patch: Patch | None = None


class Link(Protocol):
    """The way to a microcontroller and its loader. Every verb may be repeated.

    Every verb raises, beside what it says, ``FailedTransferError``: no answer; what was
    asked may have happened. ``SlotError``: the loader refuses.
    """

    def identify(self) -> Unit:
        """Ask what it runs and what it has."""
        ...

    def begin(self, parcel: Parcel) -> int:
        """Announce what comes; the offset of the first byte that is wanted.

        The same parcel again goes on where that is possible. With one slot, the old
        image may be gone from now on. Nothing of a parcel's slot starts until ``test``.

        Raises:
            PatchError: the loader cannot apply this patch, or to what it has.
        """
        ...

    def write(self, offset: int, data: bytes) -> None:
        """The next bytes of the parcel, at most a block, in order.

        Raises:
            PatchError: this cannot be applied.
        """
        ...

    def finish(self) -> None:
        """All of it came: the image lies whole and has its digest when this returns.

        Raises:
            PatchError: what came does not make the image; it has to come anew.
        """
        ...

    def test(self, slot: Slot) -> None:
        """From now on the image of ``slot`` starts next, once; the confirmed one's slot
        takes that back. Does not start anything.
        """
        ...

    def confirm(self, image_sha256: bytes) -> None:
        """What runs is good: it starts from now on. Durable when this returns.

        If another image runs, the loader refuses: one that started anew meanwhile went
        back, and is not to be told that this was right.
        """
        ...

    def restart(self) -> None:
        """Start anew."""
        ...


# ── transport ────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, read whole. ``status`` is 200, 304 or 404 (403 counts as 404)."""

    status: int
    body: bytes = b""
    etag: str | None = None
    poll_seconds: int | None = None
    """The interval the server asks for, in seconds; ``None`` if it said nothing."""


class Transport(Protocol):
    """The way to the server. ``path`` is relative to the configured base URL, e.g.
    ``director/metadata/timestamp.json``; names in it are percent-encoded already.
    """

    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        """Fetch a small file whole.

        Raises:
            LimitError: more than ``limit`` bytes. FailedTransferError,
            SlowTransferError, AuthRequiredError, RevokedError: as named.
        """
        ...

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        """Bytes ``[start, stop)`` of a file of ``length`` bytes, in pieces ≤ 64 KiB.

        Yields exactly ``stop - start`` bytes or raises. Closing the iterator early
        drops the connection. A server that answers 200 to the range is read from zero,
        and the bytes before ``start`` are dropped, at most ``drop_max`` of them.

        Raises:
            FailedTransferError, SlowTransferError: as named. NotFoundError: 404, 410.
            LengthError: the server tells another total length than ``length``.
        """
        ...

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        """POST ``body``; the answer, at most ``limit`` bytes.

        Raises:
            RequestError: the server refuses the content (the code is the server's).
            TransportError: try again later.
        """
        ...


# ── keys, health, progress ───────────────────────────────────────────────────────────
class DeviceKey(Protocol):
    """The key that signs this device's reports."""

    @property
    def key_id(self) -> str:
        """Lower hex SHA-256 of the canonical public key object."""
        ...

    def public(self) -> Mapping[str, object]:
        """The public key as a TUF key object."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign ``data``."""
        ...


class DecryptionKey(Protocol):
    """What content keys are wrapped to; in a file, or in hardware that keeps it.

    ``kem`` is ``x25519`` or ``p256``, ``public`` the public key as HPKE writes it.
    """

    @property
    def kem(self) -> str:
        """The KEM."""
        ...

    @property
    def public(self) -> bytes:
        """The public key."""
        ...

    def dh(self, enc: bytes) -> bytes:
        """The Diffie-Hellman secret with a point; for P-256 its x coordinate.

        Raises:
            DecryptError: it is no usable point.
        """
        ...


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one health check said; ``detail`` is data, capped at 1000 characters."""

    name: str
    ok: bool
    detail: str = ""


class Health(Protocol):
    """The checks that earn a confirm."""

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        """Run every check within its deadline; a hang counts as a failure."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a long step is; the face prints it, nobody decides by it."""

    report: Callable[[str, int, int], None] = field(default=lambda *_: None)
    """``report(step, done, total)``, both in bytes."""
