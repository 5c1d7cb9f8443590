"""GRUB's part: ``boards/grub/sealift.cfg``, line by line, over two blocks in flash.

A block is two sectors; ``save_env`` writes both, and an entry that cannot be started
ends the trial and restarts the board.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from sealift.agent.boot.grub import GrubBoot, Store, countable, pack, unpack
from sealift.core.errors import BootError, StateError
from sealift.core.types import Slot
from sealift.sim.loaders.world import LoaderWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.inplace import Block
    from sealift.sim.flash import Flash

__all__ = ["FlashBlock", "GrubWorld"]

_SECTOR: Final = 512


class FlashBlock:
    """:class:`~sealift.agent.inplace.Block` in a region of a flash, by sectors."""

    def __init__(self, flash: Flash, region: str) -> None:
        self._flash = flash
        self._region = region

    def read(self, limit: int) -> bytes | None:
        """What is in it."""
        return self._flash.read(self._region, 0, limit)

    def settle(self) -> None:
        """Flush it.

        Raises:
            BootError: the medium refuses.
        """
        try:
            self._flash.flush(self._region)
        except StateError as error:
            raise BootError(error.message) from error

    def write(self, data: bytes) -> None:
        """Sector by sector, then flush.

        Raises:
            BootError: the medium refuses.
        """
        try:
            for at in range(0, len(data), _SECTOR):
                self._flash.write(self._region, at, data[at : at + _SECTOR])
            self._flash.flush(self._region)
        except StateError as error:
            raise BootError(error.message) from error


class GrubWorld(LoaderWorld):
    """GRUB with the script of ``boards/grub``."""

    kind = "grub"
    losses = ("empty", "torn", "gone", "values")

    def __init__(self, flash: Flash | None = None) -> None:
        super().__init__(flash)
        states = {Slot.A: "g", Slot.B: "e"}
        self.put("grubenv", pack(Store(Slot.A, states=states).lines()))
        self.put("grubenv.home", pack({"good": b"a"}))

    def put(self, name: str, content: bytes) -> None:
        """Have a block there, as the factory does."""
        self.flash.make(name, content)

    def block(self, name: str) -> Block:
        """A block, opened anew."""
        return FlashBlock(self.flash, name)

    def boot(self) -> GrubBoot:
        """The agent's boot control, opened anew."""
        return GrubBoot(
            self.block("grubenv"),
            self.block("grubenv.home"),
            lambda: self.running,
            lambda: f"boot-{self.boots}",
        )

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """The script, then the entry, then ``sealift_refused``."""
        found = self._variables("grubenv")
        home = self.home()
        slot, trial = home, found.get("trial", b"").decode("ascii", "replace")
        tries = found.get("tries", b"")
        if found.get("good") != home.encode():
            trial = ""
        if trial in {"a", "b"} and trial != home and tries in set(_counted()):
            # Counted and written first; what cannot be written is not started.
            with contextlib.suppress(BootError):
                self._save(b"%d" % (int(tries) - 1))
                slot = Slot(trial)
        if starts(slot):
            return slot
        if slot is not home:
            with contextlib.suppress(BootError):
                self._save(b"0")
        return None

    def home(self) -> Slot:
        """``good`` of the first block, else of the second, else a."""
        for name in ("grubenv", "grubenv.home"):
            good = self._variables(name).get("good")
            if good in {b"a", b"b"}:
                return Slot(good.decode())
        return Slot.A

    def trials(self, tries: int) -> int:
        """As many as asked for."""
        return tries

    def lose(self, loss: str) -> None:
        """The first block."""
        held = bytes(self.flash.medium["grubenv"])
        if loss == "gone":
            self.flash.remove("grubenv")
        elif loss == "values":
            self.put("grubenv", held.replace(b"good=", b"good=x"))
        else:
            self.put("grubenv", b"" if loss == "empty" else b"\0" * 20 + held[20:])

    def _variables(self, name: str) -> dict[str, bytes]:
        return unpack(self.block(name).read(1 << 16)) or {}

    def _save(self, tries: bytes) -> None:
        """``save_env``: the value in its place, all sectors of the file."""
        block = self.block("grubenv")
        held = block.read(1 << 16) or b""
        if not countable(held):
            raise BootError("environment block too small")
        before = b"tries=" + self._variables("grubenv")["tries"]
        block.write(held.replace(before, b"tries=" + tries, 1))


def _counted() -> tuple[bytes, ...]:
    return tuple(b"%d" % number for number in range(1, 10))
