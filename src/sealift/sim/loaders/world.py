"""What every simulated loader answers to, and what all of them share.

A world is a loader's decision at power-on, written down from its documentation, beside
the boot control the agent ships for it; both go by the same store, whose every durable
write passes the door of ``sim.flash``. So one contract test and one power-cut test
serve every loader.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from sealift.core.errors import BootError
from sealift.core.types import Slot
from sealift.sim.flash import Door, Flash

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import BootControl, BootFiles
    from sealift.core.types import Artifact

__all__ = ["MOST_RESETS", "LoaderWorld"]

MOST_RESETS = 24
"""Resets in a row after which a loader is held to go round for ever."""


def _always(_slot: Slot) -> bool:
    return True


class LoaderWorld(ABC):
    """One board's loader over one flash; ``running`` is what the kernel knows.

    Build it on a new flash as the factory leaves the board: slot a confirmed, slot b
    empty. What it keeps between calls beside the flash must be what a board keeps.
    """

    kind: ClassVar[str]
    """The ``[boot] kind`` it stands for."""
    keeps_conditions: ClassVar[bool] = True
    """Whether ``writing`` and ``bad`` have a place in its store.

    ``False``: a slot that cannot start is told as ``empty`` or ``bad``.
    """
    losses: ClassVar[tuple[str, ...]] = ()
    """Ways in which its store can be lost, for :meth:`lose` (B8)."""
    remembers_home: ClassVar[bool] = True
    """Whether the confirmed slot starts when the store is lost (B8).

    ``False``: it starts slot a, and slot b only if that is refused; the table of
    ``docs/integrating.md`` says so.
    """

    standing: ClassVar[tuple[str, ...]] = ()
    """How the remarks begin that ``state`` makes of a board as it should be."""

    def __init__(self, flash: Flash | None = None) -> None:
        self.flash = Flash(Door()) if flash is None else flash
        self.running = Slot.A
        self.boots = 0

    @abstractmethod
    def boot(self) -> BootControl:
        """The agent's boot control, opened anew as by a new process."""

    def files(self) -> BootFiles | None:
        """Where this loader wants its boot files, if that is outside the slots."""
        return None

    @abstractmethod
    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """One power-on: decide, use up an attempt durably, hand over.

        ``starts`` says whether what lies in a slot can be started; a loader that
        verifies finds out. ``None``: it did not hand over, the board resets.

        Raises:
            StateError: its store could not be used in this moment; the board resets.
            BootError: it stops for ever: a brick.
        """

    @abstractmethod
    def home(self) -> Slot:
        """What starts when nobody is on trial, by the loader's own store."""

    @abstractmethod
    def trials(self, tries: int) -> int:
        """How many starts a trial gets that was armed with ``tries``."""

    def outlives(self) -> int:
        """How many cuts cannot keep a good image from being confirmed."""
        return self.trials(3) - 1

    def start(self, starts: Callable[[Slot], bool] = _always) -> Slot:
        """Switch it on, and let it reset until it hands over.

        Raises:
            BootError: it stops, or goes round for ever: a brick.
        """
        for _ in range(MOST_RESETS):
            slot = self.decide(starts)
            if slot is not None:
                self.running = slot
                self.boots += 1
                return slot
        raise BootError("the loader finds nothing to start")

    def install(self, slot: Slot) -> None:  # noqa: B027 -- most need nothing
        """What an installer does in ``slot`` between ``mark_writing`` and ``set_next``.

        For the contract test only, which has no images: have there what the loader
        needs to start the slot, such as its file on an EFI partition.
        """

    def restarting(self) -> None:
        """The agent has the board restarted in good order: caches are written back."""
        self.flash.sync()

    def power_lost(self) -> None:
        """The power went, or the watchdog bit: what is not on the flash is gone."""
        self.flash.lose_power()

    @classmethod
    def boot_file(cls, version: str) -> bytes | None:
        """What an image of this version has to carry for this loader to start it.

        ``None``: nothing the loader looks at while it decides.
        """
        del version
        return None

    def deliver(  # noqa: B027 -- most need nothing
        self, slot: Slot, content: bytes, image: Artifact
    ) -> None:
        """What the factory puts beside the slot for the image it was made with."""

    def stored(self) -> object:
        """All that the loader keeps, to be compared with what it was."""
        return self.flash.fingerprint()

    def lose(self, loss: str) -> None:
        """Lose the loader's store in one of the ways of ``losses``."""
        raise NotImplementedError(loss)
