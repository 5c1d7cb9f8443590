"""Boot control for a microcontroller: its loader is asked and told over a link."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sealift.agent.ports import BootState
from sealift.core.errors import BootError, SlotError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import Link
    from sealift.core.types import Slot

__all__ = ["LinkBoot"]


class LinkBoot:
    """:class:`~sealift.agent.ports.BootControl` over a :class:`~.ports.Link`.

    A trial is one start: what is not confirmed in it does not start again.

    Raises:
        FailedTransferError: from every verb, when the microcontroller does not answer.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def current(self) -> Slot:
        """The slot that runs, by the word of the microcontroller."""
        return self._link.identify().running

    def next(self) -> Slot:
        """The slot its loader would start next."""
        return self._link.identify().next

    def mark_writing(self, slot: Slot) -> None:
        """Nothing boots ``slot`` from now on (B9).

        Raises:
            BootError: it runs, or the loader refused.
        """
        unit = self._link.identify()
        if slot is unit.running:
            raise BootError(f"slot {slot} runs and cannot be written")
        if unit.next is slot:
            self.set_next(unit.running, 1)

    def set_next(self, slot: Slot, tries: int) -> None:
        """Put ``slot`` on trial for one start, or disarm when it is the confirmed one.

        Raises:
            BootError: the loader refused.
        """
        del tries
        with _translated():
            self._link.test(slot)

    def mark_good(self) -> None:
        """What runs becomes the confirmed one.

        Raises:
            BootError: the loader refused, or only it runs.
        """
        running = self._link.identify().sha256
        if running is None:
            raise BootError("the microcontroller runs nothing but its loader")
        with _translated():
            self._link.confirm(running)

    def state(self) -> BootState:
        """What the loader says; one with nothing to start has nothing on trial."""
        unit = self._link.identify()
        if unit.confirmed or unit.sha256 is None:
            running, other = "good", "trial(1)"
        else:
            running, other = "trial(0)", "good"
        if unit.next is unit.running:
            other = "empty"
        slots = {unit.running: running, unit.running.other: other}
        return BootState("mcu", slots, counts_attempts=False)

    def boot_id(self) -> str:
        """Another text after every start of the microcontroller."""
        return self._link.identify().boot_id


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SlotError as error:
        raise BootError(
            f"the microcontroller's loader refused: {error}", hint=error.hint
        ) from error
