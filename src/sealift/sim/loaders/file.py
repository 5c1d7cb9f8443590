"""The reference loader over flash, with and without an attempt counter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.agent.boot.file import (
    STORE_BYTES,
    FileBoot,
    LoaderStore,
    Started,
    choose,
)
from sealift.agent.record import Record
from sealift.sim.flash import FlashCells
from sealift.sim.loaders.world import LoaderWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.core.types import Slot
    from sealift.sim.flash import Flash

__all__ = ["CountingWorld", "FileWorld", "OneShotWorld"]


class FileWorld(LoaderWorld):
    """Two records; an attempt is counted in the first of them."""

    kind = "file"
    losses = ("torn", "empty", "gone")

    def __init__(self, flash: Flash | None = None, *, counts: bool) -> None:
        super().__init__(flash)
        self.counts = counts

    def store(self) -> LoaderStore:
        """The loader's store, opened anew."""
        boot = Record(FlashCells(self.flash, "boot"), limit=STORE_BYTES)
        home = Record(FlashCells(self.flash, "home"), limit=STORE_BYTES)
        return LoaderStore(boot, home)

    def boot(self) -> FileBoot:
        """The agent's boot control, opened anew."""
        return FileBoot(self.store(), self.started, counts=self.counts)

    def started(self) -> Started:
        """What the loader said when it handed over."""
        return Started(self.running, f"boot-{self.boots}")

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """Count first, then look at the image."""
        store = self.store()
        before = store.read()
        slot, after = choose(before, counts=self.counts)
        if after != before:
            store.write(after)
        return slot if starts(slot) else None

    def home(self) -> Slot:
        """The default."""
        return self.store().read().default

    def trials(self, tries: int) -> int:
        """As many as asked for, where it counts."""
        return tries if self.counts else 1

    def lose(self, loss: str) -> None:
        """Both copies of the loader's own record; the second record stays."""
        for region in ("boot.0", "boot.1"):
            held = bytes(self.flash.medium.get(region, b"old"))
            self.flash.remove(region)
            if loss != "gone":
                self.flash.make(region, held[:80] if loss == "torn" else b"")


class CountingWorld(FileWorld):
    """It counts attempts."""

    def __init__(self, flash: Flash | None = None) -> None:
        super().__init__(flash, counts=True)


class OneShotWorld(FileWorld):
    """It cannot count: an armed slot gets one start."""

    def __init__(self, flash: Flash | None = None) -> None:
        super().__init__(flash, counts=False)
