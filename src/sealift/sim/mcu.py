"""A microcontroller in memory: flash that can lose power, and a loader that resumes.

:class:`SimMcu` is both ends of a :class:`~sealift.agent.ports.Link`: the wire never
fails by itself, but each cut of the microcontroller's power ends the verb under way
without an answer, and the loader starts anew from what the flash holds. It is a model
to copy for a real loader: what is on record when, and which step may be done twice.

* An image is written segment by segment, and is on record once its digest is right.
* A patch in place first moves the old image up, last segment first, then makes the new
  one, first segment first. After each segment the step is recorded. A step that is
  repeated reads nothing that it has written: the shift is at least one segment, and
  ``core.mcu`` admits no patch that reads below the segment it makes.
* What is on trial starts once; if it was not confirmed, the confirmed image starts, and
  if there is none whole, the loader stays by itself: it is the recovery image.

A patch waits in memory until it is there whole; a real loader decodes it as it comes.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sealift.agent.ports import Unit
from sealift.agent.record import Record
from sealift.core import mcu
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    PatchError,
    PayloadError,
    SlotError,
)
from sealift.core.types import PatchKind, Slot
from sealift.sim.flash import Flash, FlashCells, PowerCut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import Parcel
    from sealift.core.types import Patch

RECORD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Board:
    """What kind of microcontroller it is. Sizes in bytes."""

    one_slot: bool = False
    memory_size: int = 64 * 1024
    """Flash of each slot."""
    segment_size: int = 4096
    block: int = 1024
    kinds: frozenset[PatchKind] = frozenset(PatchKind)


@dataclass
class Loader:
    """What the loader has on record."""

    confirmed: Slot = Slot.A
    images: dict[Slot, tuple[int, str]] = field(default_factory=dict)
    """Length and digest of what lies whole."""
    trial: Slot | None = None
    started: bool = False
    """Whether the trial has had its one start."""
    coming: str | None = None
    """Digest of the file under way."""
    step: int = 0
    """Segments of it that are done."""

    def to_json(self) -> bytes:
        """The record."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Loader:
        """Read what :meth:`to_json` wrote."""
        found: dict[str, Any] = json.loads(raw)
        found["confirmed"] = Slot(found["confirmed"])
        found["trial"] = Slot(found["trial"]) if found["trial"] else None
        found["images"] = {Slot(it): (n, d) for it, (n, d) in found["images"].items()}
        return cls(**found)


class SimMcu:
    """:class:`~sealift.agent.ports.Link` to a simulated microcontroller.

    ``flash`` is its own; the points of its cuts are those of its door.
    """

    def __init__(self, flash: Flash, board: Board | None = None) -> None:
        self.flash = flash
        self.board = board or Board()
        self.starts = 0
        self.written = 0
        """Bytes that came over the link."""
        self._record = Record(FlashCells(flash, "loader"), limit=RECORD_BYTES)
        self._loader = Loader()
        self._parcel: Parcel | None = None
        self._ram = b""
        self._at = 0
        self._running: Slot | None = None
        self._restarts()

    def manufacture(self, image: bytes) -> None:
        """Put an image into slot a as the factory does, confirmed, and start it."""
        erased = image.ljust(self.board.memory_size, b"\xff")
        self.flash.make(self._region(Slot.A), erased)
        if not self.board.one_slot:
            self.flash.make(self._region(Slot.B), b"\xff" * self.board.memory_size)
        digest = sha256(image).hexdigest()
        self._keep(Loader(images={Slot.A: (len(image), digest)}))
        self._restarts()

    def image(self) -> bytes | None:
        """What runs, byte for byte; ``None`` if only the loader does."""
        if self._running is None:
            return None
        length, _ = self._loader.images[self._running]
        return self._read(self._running, 0, length)

    # ── the link ─────────────────────────────────────────────────────────────────────
    def identify(self) -> Unit:
        """What runs and what lies there."""
        with self._powered():
            loader, running = self._loader, self._running
            length, digest = loader.images.get(running or Slot.A, (0, ""))
            waiting = [it for slot, it in loader.images.items() if slot is not running]
            return Unit(
                running=running or loader.confirmed,
                sha256=bytes.fromhex(digest) if running else None,
                length=length if running else 0,
                confirmed=running is loader.confirmed,
                next=self._next(),
                boot_id=f"mcu-{self.starts}",
                one_slot=self.board.one_slot,
                waiting=bytes.fromhex(waiting[0][1]) if waiting else None,
                coming=bytes.fromhex(loader.coming) if loader.coming else None,
                kinds=self.board.kinds,
                block=self.board.block,
            )

    def begin(self, parcel: Parcel) -> int:
        """Announce what comes; where to begin."""
        with self._powered():
            if parcel.image_length > self.board.memory_size:
                raise SlotError("the image is larger than the slot")
            if parcel.slot is self._running:
                raise SlotError("the slot runs")
            if self._loader.coming != parcel.sha256.hex():
                self._announce(parcel)
            self._parcel, self._ram = parcel, b""
            self._at = 0 if parcel.patch else self._programmed(parcel)
            return self._at

    def write(self, offset: int, data: bytes) -> None:
        """The next bytes."""
        with self._powered():
            parcel = self._begun()
            if offset != self._at or len(data) > self.board.block:
                raise SlotError("not the next block")
            self.written += len(data)
            self._ram += data
            self._at += len(data)
            if parcel.patch is None:
                self._program_segments(parcel)

    def finish(self) -> None:
        """Apply a patch; verify the image, and put it on record."""
        with self._powered():
            parcel = self._begun()
            if self._at != parcel.length:
                raise SlotError("there is more to come")
            try:
                if parcel.patch is not None:
                    self._apply(parcel, parcel.patch)
                self._verify(parcel)
            except (PayloadError, FormatError) as error:
                self._change(coming=None, step=0)
                raise PatchError(f"the loader: {error}") from error
            finally:
                self._parcel = None

    def test(self, slot: Slot) -> None:
        """Start ``slot`` next, once; the confirmed one's takes that back."""
        with self._powered():
            if slot is self._loader.confirmed:
                self._change(trial=None, started=False)
            elif slot not in self._loader.images:
                raise SlotError(f"slot {slot} holds nothing whole")
            elif self._running is not slot:
                self._change(trial=slot, started=False)

    def confirm(self, image_sha256: bytes) -> None:
        """What runs is good, if it is this image."""
        with self._powered():
            running = self._loader.images.get(self._running or Slot.A, (0, ""))
            if self._running is None or running[1] != image_sha256.hex():
                raise SlotError("something else runs")
            self._change(confirmed=self._running, trial=None, started=False)

    def restart(self) -> None:
        """Start anew."""
        with self._powered():
            self._restarts()

    # ── the loader ───────────────────────────────────────────────────────────────────
    @contextlib.contextmanager
    def _powered(self) -> Iterator[None]:
        """A verb; if the power goes, there is no answer, and the loader starts."""
        try:
            yield
        except PowerCut:
            self.flash.lose_power()
            self._restarts()
            raise FailedTransferError("the microcontroller does not answer") from None

    def _restarts(self) -> None:
        """Start what is to start; another cut starts it again."""
        while True:
            with contextlib.suppress(PowerCut):
                return self._start()
            self.flash.lose_power()

    def _start(self) -> None:
        self.starts += 1
        self._parcel, self._running = None, None
        raw = self._record.read()
        self._loader = Loader() if raw is None else Loader.from_json(raw)
        slot = self._next()
        if slot is self._loader.trial:
            self._change(started=True)
        elif self._loader.trial is not None:
            self._change(trial=None, started=False)
        self._running = slot if slot in self._loader.images else None

    def _next(self) -> Slot:
        loader = self._loader
        if loader.trial in loader.images and not loader.started:
            return loader.trial or loader.confirmed
        return loader.confirmed

    def _announce(self, parcel: Parcel) -> None:
        loader, patch = self._loader, parcel.patch
        running = loader.images.get(self._running or Slot.A, (0, ""))
        if patch is None:
            kept = {} if self.board.one_slot else self._without(parcel.slot)
        else:
            kept = loader.images if self.board.one_slot else self._without(parcel.slot)
            if patch.kind not in self.board.kinds or not self._running:
                raise PatchError("the loader cannot apply this patch")
            if running[1] != patch.base_sha256.hex():
                raise PatchError("the patch is for another image")
        self._change(images=kept, coming=parcel.sha256.hex(), step=0)
        if self.board.one_slot and patch is None:
            self._running = None

    def _without(self, slot: Slot) -> dict[Slot, tuple[int, str]]:
        return {
            it: image for it, image in self._loader.images.items() if it is not slot
        }

    def _begun(self) -> Parcel:
        if self._parcel is None:
            raise FailedTransferError("the loader started anew: begin again")
        return self._parcel

    def _programmed(self, parcel: Parcel) -> int:
        """How much of an image is there; the last segment may be short."""
        return min(self._loader.step * self.board.segment_size, parcel.length)

    def _program_segments(self, parcel: Parcel) -> None:
        """Program what is whole in memory."""
        size = self.board.segment_size
        while len(self._ram) >= size or (self._ram and self._at == parcel.length):
            piece, self._ram = self._ram[:size], self._ram[size:]
            self._program(parcel.slot, self._loader.step * size, piece)
            self._change(step=self._loader.step + 1)

    def _verify(self, parcel: Parcel) -> None:
        image = self._read(parcel.slot, 0, parcel.image_length)
        if sha256(image).digest() != parcel.image_sha256:
            raise PatchError("what lies there is not the image")
        kept = {} if self.board.one_slot else self._without(parcel.slot)
        kept[parcel.slot] = parcel.image_length, parcel.image_sha256.hex()
        self._change(images=kept, coming=None, step=0)

    # ── patches ──────────────────────────────────────────────────────────────────────
    def _apply(self, parcel: Parcel, patch: Patch) -> None:
        if patch.kind is PatchKind.IN_PLACE:
            self._apply_in_place(parcel, patch)
            return
        for at, piece in self._made(parcel, patch, 0):
            self._program(parcel.slot, at, piece)

    def _apply_in_place(self, parcel: Parcel, patch: Patch) -> None:
        """Move up, then make; steps that are on record are not done again."""
        mcu.check(patch, parcel.image_length)
        if patch.memory_size > self.board.memory_size:
            raise PatchError("the patch wants more flash than there is")
        self._change(images={})
        self._running = None
        size, shift = patch.segment_size, patch.shift_size
        moved = min(patch.base_length, patch.memory_size - shift)
        moves = -(-moved // size)
        for step in range(self._loader.step, moves):
            at = (moves - 1 - step) * size
            piece = self._read(parcel.slot, at, min(size, moved - at))
            self._program(parcel.slot, at + shift, piece)
            self._change(step=step + 1)
        for at, piece in self._made(parcel, patch, shift):
            if moves + at // size >= self._loader.step:
                self._program(parcel.slot, at, piece)
                self._change(step=moves + at // size + 1)

    def _made(
        self, parcel: Parcel, patch: Patch, shift: int
    ) -> Iterator[tuple[int, bytes]]:
        """Segments of the new image with their offsets."""
        base = self._running or parcel.slot
        size = patch.segment_size or self.board.segment_size
        made, at = b"", 0
        for piece in mcu.decode(
            [self._ram],
            patch,
            parcel.image_length,
            lambda offset, length: self._read(base, offset + shift, length),
        ):
            made += piece
            while len(made) >= size:
                yield at, made[:size]
                made, at = made[size:], at + size
        if made:
            yield at, made

    # ── flash ────────────────────────────────────────────────────────────────────────
    def _region(self, slot: Slot) -> str:
        return "mcu" if self.board.one_slot else f"mcu.{slot}"

    def _read(self, slot: Slot, offset: int, length: int) -> bytes:
        return self.flash.read(self._region(slot), offset, length) or b""

    def _program(self, slot: Slot, offset: int, data: bytes) -> None:
        """Erase and write, durable: a cut leaves it erased, or torn."""
        region = self._region(slot)
        for content in (b"\xff" * len(data), data):
            self.flash.write(region, offset, content)
            self.flash.flush(region)

    def _change(self, **facts: Any) -> None:
        self._keep(Loader(**{**vars(self._loader), **facts}))

    def _keep(self, loader: Loader) -> None:
        self._record.write(loader.to_json())
        self._loader = loader
