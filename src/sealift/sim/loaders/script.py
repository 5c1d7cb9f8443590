"""A loader behind the integrator's program: the program's part, and the loader's.

The program is that of ``boards/script``, in Python and over flash: one file of five
lines, replaced as a whole. A file system with a journal does that in one step; here the
journal is two cells of ``agent.record``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.agent.boot.file import STORE_BYTES, Store, choose
from sealift.agent.boot.script import ScriptBoot
from sealift.agent.record import Record
from sealift.core.errors import BootError, DeviceError, MalformedError
from sealift.core.types import Slot
from sealift.sim.flash import FlashCells
from sealift.sim.loaders.world import LoaderWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import BootControl

__all__ = ["ScriptProgram", "ScriptWorld"]


class ScriptProgram:
    """:class:`~sealift.agent.boot.script.Program` as the example answers."""

    def __init__(self, record: Record, running: Callable[[], Slot]) -> None:
        self._record = record
        self._running = running

    def ask(self, *words: str) -> str:
        """One call of the program: load, think, save at most once.

        Raises:
            BootError: its file is not whole, or it refuses.
        """
        try:
            return self._answer(*words)
        except (DeviceError, MalformedError) as error:
            raise BootError(f"the boot program: {error.message}") from error

    def _answer(self, verb: str, *rest: str) -> str:
        store = read_file(self._record)
        if verb == "current":
            return f"{self._running()}\n"
        if verb == "next":
            return f"{store.next}\n"
        if verb == "state":
            return self._state(store)
        self._save(self._changed(store, verb, *rest))
        return ""

    def _changed(self, store: Store, verb: str, *rest: str) -> Store:
        if verb == "mark-good":
            return self._good(store, self._running())
        slot = Slot(rest[0])
        if verb == "mark-writing":
            if slot in {store.default, self._running()}:
                raise BootError(f"slot {slot} is in use")
            freed = store.disarmed() if store.trial is slot else store
            return freed.marked(slot, "writing")
        return self._armed(store.disarmed(), slot, int(rest[1]))

    def _armed(self, store: Store, slot: Slot, tries: int) -> Store:
        if slot is store.default:
            return store
        return _with(store, store.default, slot, tries).marked(slot, "trial")

    def _good(self, store: Store, running: Slot) -> Store:
        freed = store if store.trial is running else store.disarmed()
        return _with(freed, running, None, 0).marked(running, "good")

    def _save(self, store: Store) -> None:
        self._record.write(store.to_text().encode())

    def _state(self, store: Store) -> str:
        told = {Slot.A: str(store.a), Slot.B: str(store.b)}
        if store.trial is not None:
            told[store.trial] = f"trial({store.tries})"
        return (
            f"loader=example\ncounts=yes\nconfirmed={store.default}\n"
            f"a={told[Slot.A]}\nb={told[Slot.B]}\n"
        )


def read_file(record: Record) -> Store:
    """What the loader's file says; one that never was written is the factory's.

    Raises:
        MalformedError, StateError: it is not whole.
    """
    raw = record.read()
    return Store() if raw is None else Store.from_text(raw.decode("ascii"))


def _with(store: Store, default: Slot, trial: Slot | None, tries: int) -> Store:
    return Store(default, trial, tries, store.a, store.b)


class ScriptWorld(LoaderWorld):
    """The example's loader: it counts, in its one file."""

    kind = "script"

    def record(self) -> Record:
        """The file, opened anew."""
        return Record(FlashCells(self.flash, "boot"), limit=STORE_BYTES)

    def boot(self) -> BootControl:
        """The agent's boot control, opened anew."""
        program = ScriptProgram(self.record(), lambda: self.running)
        return ScriptBoot(program, lambda: f"boot-{self.boots}")

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """As the reference loader, over one file."""
        record = self.record()
        before = read_file(record)
        slot, after = choose(before)
        if after != before:
            record.write(after.to_text().encode())
        return slot if starts(slot) else None

    def home(self) -> Slot:
        """The default."""
        return read_file(self.record()).default

    def trials(self, tries: int) -> int:
        """As many as asked for."""
        return tries
