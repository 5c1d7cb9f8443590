"""What one install has cost and learnt so far, in a file that outlives restarts."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.agent.payload.marks import Marks, marks_length
from sealift.agent.ports import Moved
from sealift.core.container import segment_count
from sealift.core.errors import RefusedError

if TYPE_CHECKING:
    from sealift.agent.ports import SlotDevice, Workspace
    from sealift.core.types import Container, Instruction

LEDGER_FILE: Final = "payload.spent"

_LAYOUT: Final = struct.Struct("<32s32sQB")
_METHODS: Final = ("none", "delta", "full")
_NO_DELTA: Final = bytes(32)


class Ledger:
    """Body bytes spent, the method, and which segments a delta could not make.

    Bytes are counted against ``most`` (``None``: no limit). The file proves nothing:
    without it, or with a forged one, an install may cost more bytes or be deferred, and
    its report may be wrong; what reaches the slot is the same. It is not forced to the
    medium at each step, so losing power may forget the last seconds.
    """

    def __init__(self, work: Workspace, order: Instruction, most: int | None) -> None:
        artifact = order.artifact
        self._most = most
        self._key = sha256(artifact.sha256 + (order.deployment or "").encode()).digest()
        self._delta = _NO_DELTA
        self._spent = self._method = 0
        self._count = segment_count(artifact.length, artifact.segment_size)
        self._file: SlotDevice = work.open(
            LEDGER_FILE, _LAYOUT.size + marks_length(self._count)
        )
        self.bad = Marks(self._count)
        """Segments that the delta does not make of this base."""
        self.found = self._load()
        """Whether this install was begun before."""

    def _load(self) -> bool:
        kept = self._file.read(0, self._file.size)
        key, delta, spent, method = _LAYOUT.unpack(kept[: _LAYOUT.size])
        if key != self._key or method >= len(_METHODS):
            return False
        self._delta, self._spent, self._method = delta, spent, method
        self.bad = Marks(self._count, kept[_LAYOUT.size :])
        return True

    @property
    def moved(self) -> Moved:
        """What a report tells of it."""
        return Moved(_METHODS[self._method], self._spent, len(self.bad))

    # ── bytes ────────────────────────────────────────────────────────────────────────
    def require(self, length: int) -> None:
        """Refuse what would need more bytes than are left (product rules, 5.8).

        Raises:
            RefusedError: with the figures, and ``budget`` as reason.
        """
        if self._most is not None and self._spent + length > self._most:
            raise RefusedError(
                f"the install needs {length} more bytes, "
                f"{max(0, self._most - self._spent)} are left of {self._most}",
                hint="allow more bytes for this installation, or wait for a delta",
                reason="budget",
                needed=length,
                spent=self._spent,
                bytes_max=self._most,
            )

    def spend(self, length: int) -> None:
        """These bytes came."""
        self._spent += length
        self._keep()

    # ── method ───────────────────────────────────────────────────────────────────────
    def follow(self, delta: Container) -> bool:
        """From now on it goes by this delta; ``False`` if that was given up before."""
        if self._delta != delta.sha256:
            self._delta, self.bad = delta.sha256, Marks(self._count)
            self._method = 0
            self._keep_all()
        return _METHODS[self._method] != "full"

    def went(self, method: str) -> None:
        """Bytes are about to be written that came this way."""
        if _METHODS[self._method] != method:
            self._method = _METHODS.index(method)
            self._keep()

    def note_bad(self, index: int) -> None:
        """The delta does not make this segment; the full container has to."""
        self.bad.add(index)
        self._keep_all()

    # ── file ─────────────────────────────────────────────────────────────────────────
    def _keep(self) -> None:
        facts = _LAYOUT.pack(self._key, self._delta, self._spent, self._method)
        self._file.write(0, facts)

    def _keep_all(self) -> None:
        self._keep()
        self._file.write(_LAYOUT.size, bytes(self.bad))

    def settle(self) -> None:
        """The install is done: have its ledger on the medium, for the report."""
        self._keep_all()
        self._file.flush()

    def close(self) -> None:
        """Release the file."""
        self._file.close()
