"""Boot control for the reference loader, whose store is two small records in files.

``DIR/boot.0`` and ``DIR/boot.1`` hold the loader's record, ``DIR/home.0`` and
``DIR/home.1`` the confirmed slot once more, each in the frame of ``agent.record``. The
payload is ASCII lines ``name=value`` in this order, so that a shell script reads it::

    default=a           the confirmed slot
    trial=b             the slot on trial, or "-"
    tries=2             starts the trial has left, 0 … 9; counted down before a start
    a=good              per slot: empty, writing, trial, good, bad
    b=trial

    confirmed=a         (the payload of home.*, written by mark_good only)

At each start the loader writes ``DIR/running``: ``slot=b`` and ``boot_id=TEXT``, two
lines. It is what a board learns of its mounted root otherwise (device-D2): this file
stands for the kernel's own word, and is written by the loader before it hands over.

:func:`choose` is the loader's decision, pure. ``sealift.sim.board`` runs it as a
program, ``sealift.sim.device`` in memory; a board's script has to do the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sealift.agent.files import read_all
from sealift.agent.ports import BootState
from sealift.agent.record import FileCells, LostError, Record
from sealift.core.errors import BootError, DeviceError, MalformedError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "STORE_BYTES",
    "FileBoot",
    "LoaderStore",
    "Started",
    "Store",
    "choose",
    "open_boot",
    "open_store",
    "read_running",
    "running_text",
]

MOST_TRIES = 9
STORE_BYTES = 256
_RUNNING_BYTES = 512
_STORE = re.compile(
    r"default=(?P<default>[ab])\ntrial=(?P<trial>[ab-])\ntries=(?P<tries>[0-9])\n"
    r"a=(?P<a>empty|writing|trial|good|bad)\n"
    r"b=(?P<b>empty|writing|trial|good|bad)\n"
)
_HOME = re.compile(r"confirmed=([ab])\n")
_RUNNING = re.compile(r"slot=([ab])\nboot_id=([0-9A-Za-z-]{1,64})\n")

Condition = Literal["empty", "writing", "trial", "good", "bad"]
_CONDITIONS: tuple[Condition, ...] = get_args(Condition)


@dataclass(frozen=True, slots=True)
class Store:
    """What the loader goes by."""

    default: Slot = Slot.A
    trial: Slot | None = None
    tries: int = 0
    a: Condition = "good"
    b: Condition = "empty"

    @property
    def next(self) -> Slot:
        """The slot the loader would start."""
        return self.trial if self.trial is not None and self.tries else self.default

    def marked(self, slot: Slot, condition: Condition) -> Store:
        """The same with ``slot`` in another condition."""
        if slot is Slot.A:
            return dataclasses.replace(self, a=condition)
        return dataclasses.replace(self, b=condition)

    def disarmed(self) -> Store:
        """The same with nobody on trial; who was, has failed."""
        if self.trial is None:
            return self
        failed = self.marked(self.trial, "bad")
        return dataclasses.replace(failed, trial=None, tries=0)

    def to_text(self) -> str:
        """The payload of the record."""
        return (
            f"default={self.default}\ntrial={self.trial or '-'}\ntries={self.tries}\n"
            f"a={self.a}\nb={self.b}\n"
        )

    @classmethod
    def from_text(cls, text: str) -> Store:
        """Read what :meth:`to_text` wrote.

        Raises:
            MalformedError: any other text.
        """
        found = _STORE.fullmatch(text)
        if found is None:
            raise MalformedError("the loader's record has a wrong form")
        trial = found["trial"]
        return cls(
            default=Slot(found["default"]),
            trial=None if trial == "-" else Slot(trial),
            tries=int(found["tries"]),
            a=_condition(found["a"]),
            b=_condition(found["b"]),
        )


def _condition(text: str) -> Condition:
    return _CONDITIONS[_CONDITIONS.index(text)]


def choose(store: Store, *, counts: bool = True) -> tuple[Slot, Store]:
    """The loader's decision: what to start, and the store to write *before* that.

    An attempt is used up before the kernel gets control, and only on trial (B4); once
    they are used up the confirmed slot starts (B5). A loader that cannot count
    (``counts`` is false) forgets the trial as it starts it.
    """
    if store.trial is None or not store.tries:
        return store.default, store
    left = store.tries - 1 if counts else 0
    return store.trial, dataclasses.replace(store, tries=left)


class LoaderStore:
    """The loader's record with the confirmed slot beside it, for loader and agent."""

    def __init__(self, boot: Record, home: Record) -> None:
        self._boot = boot
        self._home = home
        self.remarks: tuple[str, ...] = ()

    def read(self) -> Store:
        """The store; if it is lost, one that boots the confirmed slot (B8).

        Raises:
            StateError: it cannot be read now.
        """
        self.remarks = ()
        try:
            raw = self._boot.read()
            if raw is not None:
                return Store.from_text(_ascii(raw))
            lost = None
        except (LostError, MalformedError) as error:
            lost = error.message
        home = self.confirmed()
        if lost is None and home is None:
            return Store()  # as the factory left it
        return self._rescued(home or Slot.A, lost or "the loader's record is gone")

    def _rescued(self, home: Slot, lost: str) -> Store:
        self.remarks = (f"{lost}; slot {home} boots, it was confirmed last",)
        return Store(default=home).marked(home, "good").marked(home.other, "bad")

    def confirmed(self) -> Slot | None:
        """The slot confirmed last, as the second record knows it, if it does."""
        try:
            found = _HOME.fullmatch(_ascii(self._home.read() or b""))
        except (LostError, MalformedError):
            return None
        return Slot(found[1]) if found else None

    def write(self, store: Store) -> None:
        """Replace the loader's record; durable when this returns.

        Raises:
            StateError, SpaceError: the store before still stands.
        """
        self._boot.write(store.to_text().encode())

    def write_confirmed(self, slot: Slot) -> None:
        """Replace the second record; durable when this returns.

        Raises:
            StateError, SpaceError: the one before still stands.
        """
        self._home.write(f"confirmed={slot}\n".encode())


@dataclass(frozen=True, slots=True)
class Started:
    """What the loader said when it handed over."""

    slot: Slot
    boot_id: str


class FileBoot:
    """:class:`~sealift.agent.ports.BootControl` over a loader's store.

    ``started`` tells what runs; it is asked at every call. ``counts`` is whether the
    loader counts attempts; one that cannot gives a single start, whatever is asked.

    Raises:
        BootError: from every verb, when the store can be neither read nor written.
    """

    def __init__(
        self, store: LoaderStore, started: Callable[[], Started], *, counts: bool = True
    ) -> None:
        self._store = store
        self._started = started
        self._counts = counts

    def current(self) -> Slot:
        """The slot that runs, by the word of whoever mounted it."""
        return self._started().slot

    def next(self) -> Slot:
        """The slot the loader would start next."""
        return self._read().next

    def mark_writing(self, slot: Slot) -> None:
        """Nothing boots ``slot`` from now on (B9).

        Raises:
            BootError: it runs, or it is the confirmed one, or the store refused.
        """
        store = self._read()
        if slot in {self.current(), store.default}:
            raise BootError(f"slot {slot} is in use and cannot be written")
        if store.trial is slot:
            store = store.disarmed()
        self._write(store.marked(slot, "writing"))

    def set_next(self, slot: Slot, tries: int) -> None:
        """Put ``slot`` on trial, or disarm when it is the confirmed one. One write.

        Raises:
            BootError: the store refused.
        """
        store = self._read()
        if slot is store.default:
            self._write(store.disarmed())
            return
        tries = min(max(tries, 1), MOST_TRIES) if self._counts else 1
        store = dataclasses.replace(store.disarmed(), trial=slot, tries=tries)
        self._write(store.marked(slot, "trial"))

    def mark_good(self) -> None:
        """The running slot becomes the default, then the confirmed one (B7).

        Two writes; a repeat after a cut between them does the second (B2).

        Raises:
            BootError: the store refused.
        """
        current = self.current()
        store = self._read()
        if store.trial is not None and store.trial is not current:
            store = store.disarmed()
        confirmed = dataclasses.replace(store, default=current, trial=None, tries=0)
        self._write(confirmed.marked(current, "good"))
        with _translated():
            self._store.write_confirmed(current)

    def state(self) -> BootState:
        """What the loader's store says, in words."""
        store = self._read()
        remarks = self._store.remarks
        slots: dict[Slot, str] = {Slot.A: store.a, Slot.B: store.b}
        if store.trial is not None:
            slots[store.trial] = f"trial({store.tries})"
        return BootState("file", slots, counts_attempts=self._counts, remarks=remarks)

    def boot_id(self) -> str:
        """Another text after every start of the board."""
        return self._started().boot_id

    def _read(self) -> Store:
        with _translated():
            return self._store.read()

    def _write(self, store: Store) -> None:
        with _translated():
            self._store.write(store)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Full, broken or not ours alone: for who asks the loader it is one thing."""
    try:
        yield
    except DeviceError as error:
        raise BootError(
            f"the loader's store refused: {error}", hint=error.hint
        ) from error


# ── files ────────────────────────────────────────────────────────────────────────────
def open_store(directory: str) -> LoaderStore:
    """The loader's store in ``directory``, for agent and loader alike."""
    return LoaderStore(
        Record(FileCells(directory, "boot"), limit=STORE_BYTES, what="loader's record"),
        Record(FileCells(directory, "home"), limit=STORE_BYTES, what="confirmed slot"),
    )


def open_boot(directory: str, *, counts: bool = True) -> FileBoot:
    """The agent's boot control over the store in ``directory``."""
    return FileBoot(
        open_store(directory), lambda: read_running(directory), counts=counts
    )


def running_text(started: Started) -> bytes:
    """The bytes of the file ``running``."""
    return f"slot={started.slot}\nboot_id={started.boot_id}\n".encode()


def read_running(directory: str) -> Started:
    """What the loader wrote at the last start.

    Raises:
        BootError: it is missing, unreadable or of a wrong form.
    """
    path = os.path.join(directory, "running")
    hint = "the loader writes it at each start; was the board started by its loader?"
    # O_NONBLOCK: a fifo in its place must not hang us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
        try:
            raw = read_all(descriptor, _RUNNING_BYTES)
        finally:
            os.close(descriptor)
        found = _RUNNING.fullmatch(_ascii(raw))
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}", hint=hint) from error
    except MalformedError as error:
        raise BootError(f"{path} has a wrong form", hint=hint) from error
    if found is None:
        raise BootError(f"{path} has a wrong form", hint=hint)
    return Started(Slot(found[1]), found[2])


def _ascii(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("bytes outside ASCII") from error
