"""The Raspberry Pi's part, from its documentation: a file, and a flag in the chip.

Not compared with hardware. A slot that cannot be started ends in a restart without the
flag, which on a board is the watchdog's work.
"""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING, Final

from sealift.agent.boot.tryboot import TryBoot
from sealift.core.types import Slot
from sealift.sim.loaders.grub import FlashBlock
from sealift.sim.loaders.world import LoaderWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.inplace import Block
    from sealift.sim.flash import Flash

__all__ = ["AUTOBOOT", "MemoryNote", "TryBootWorld"]

AUTOBOOT: Final = (
    b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=2\n"
)
_PARTITIONS: Final = {Slot.A: 2, Slot.B: 3}


class MemoryNote:
    """A file on a tmpfs."""

    def __init__(self) -> None:
        self.held: bytes | None = None

    def read(self) -> bytes | None:
        """What was noted."""
        return self.held

    def write(self, data: bytes | None) -> None:
        """Note it, or forget it."""
        self.held = data


class TryBootWorld(LoaderWorld):
    """Firmware with ``autoboot.txt``; ``flag`` is the one in the chip."""

    kind = "tryboot"
    keeps_conditions = False

    def __init__(self, flash: Flash | None = None) -> None:
        super().__init__(flash)
        self.note = MemoryNote()
        self.flag = False
        self.put(AUTOBOOT)

    def put(self, content: bytes) -> None:
        """Have the file there, as the factory does."""
        self.flash.make("autoboot.txt", content)

    def file(self) -> Block:
        """The file, opened anew."""
        return FlashBlock(self.flash, "autoboot.txt")

    def boot(self) -> TryBoot:
        """The agent's boot control, opened anew."""
        return TryBoot(
            self.file(),
            self.note,
            _PARTITIONS,
            lambda: self.running,
            lambda: f"boot-{self.boots}",
            booted=lambda: _PARTITIONS[self.running],
        )

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """The flag is cleared as it is read; it chooses the section."""
        section, self.flag = "tryboot" if self.flag else "all", False
        slot = self._slot(section)
        return slot if starts(slot) else None

    def home(self) -> Slot:
        """What starts without the flag."""
        return self._slot("all")

    def trials(self, tries: int) -> int:
        """One."""
        del tries
        return 1

    def restarting(self) -> None:
        """The restart program gets the words; the kernel sets the flag."""
        self.flag = "tryboot" in " ".join(self.boot().words())
        self.note.held = None
        super().restarting()

    def power_lost(self) -> None:
        """Flag and tmpfs are gone."""
        self.flag = False
        self.note.held = None
        super().power_lost()

    def stored(self) -> object:
        """The file, the note, and the flag."""
        return self.flash.fingerprint(), self.note.held, self.flag

    def _slot(self, section: str) -> Slot:
        found = configparser.ConfigParser()
        found.read_string((self.file().read(512) or b"").decode())
        number = found.getint(section, "boot_partition")
        return next(slot for slot, held in _PARTITIONS.items() if held == number)
