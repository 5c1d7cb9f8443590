"""What an install may cost on the network."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.errors import RefusedError

if TYPE_CHECKING:
    from sealift.agent.ports import SlotDevice, Workspace
    from sealift.core.types import Instruction

SPENT_FILE: Final = "payload.spent"


class Budget:
    """Body bytes of this install, over restarts, against what is allowed.

    The count is kept in a file without forcing it to the medium at each step: losing
    power may forget what was spent in the last seconds.
    """

    def __init__(self, work: Workspace, order: Instruction, most: int | None) -> None:
        self._most = most
        self._spent = 0
        self._file: SlotDevice | None = None
        self._key = sha256(
            order.full.sha256 + (order.deployment or "").encode()
        ).digest()
        if most is not None:
            self._file = work.open(SPENT_FILE, len(self._key) + 8)
            kept = self._file.read(0, self._file.size)
            if kept.startswith(self._key):
                self._spent = int.from_bytes(kept[len(self._key) :], "little")

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

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._most is not None

    def spend(self, length: int) -> None:
        """These bytes came."""
        self._spent += length
        if self._file is not None:
            self._file.write(0, self._key + self._spent.to_bytes(8, "little"))

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
