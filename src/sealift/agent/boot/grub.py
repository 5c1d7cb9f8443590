"""Boot control for GRUB: an environment block that its script counts in.

``grubenv`` has exactly 1024 bytes, a signature line, lines ``name=value``, and ``#`` to
the end. GRUB changes it by writing its sectors, so we do too: in place, never truncated
(device-D26; ``grub-editenv`` truncates, and a cut leaves an empty file). Ours are the
first five lines, so they lie in the first sector::

    good=a              the confirmed slot
    trial=b             the slot on trial, or "-"
    tries=2             starts the trial has left, 0 … 9; counted down before a start
    a_state=g           per slot: e(mpty), w(riting), t(rial), g(ood), b(ad)
    b_state=t

Each value is one character, so a change is a few bytes that stay where they are: of
old and new bytes in any mixture the script still reads a block, and home starts. A
second block ``grubenv.home`` holds ``good`` once more; it is written when a slot is
confirmed and at no other time, and it is what the script believes if the first block
is lost (B8). ``boards/grub/sealift.cfg`` is that script.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sealift.agent.ports import BootState
from sealift.core.errors import BootError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.inplace import Block

__all__ = [
    "BLOCK_BYTES",
    "SIGNATURE",
    "GrubBoot",
    "Store",
    "countable",
    "pack",
    "unpack",
]

BLOCK_BYTES: Final = 1024
SIGNATURE: Final = b"# GRUB Environment Block\n"
_MOST_BYTES: Final = 64 * 1024
_MOST_TRIES: Final = 9
_OURS: Final = ("good", "trial", "tries", "a_state", "b_state")
_WORDS: Final = {"e": "empty", "w": "writing", "t": "trial", "g": "good", "b": "bad"}


def unpack(raw: bytes | None) -> dict[str, bytes] | None:
    """The variables of a block as GRUB reads them; ``None`` if it reads none.

    A later line of the same name wins. Values stay escaped.
    """
    if raw is None or not raw.startswith(SIGNATURE):
        return None
    lines = raw[len(SIGNATURE) :].replace(b"\\\n", b"\\\0").split(b"\n")
    found: dict[str, bytes] = {}
    for line in lines[:-1]:  # what has no line end is no line
        if line.startswith(b"#"):
            continue
        name, equals, value = line.partition(b"=")
        if not equals:
            break
        found[name.decode("ascii", "replace")] = value.replace(b"\\\0", b"\\\n")
    return found


def countable(raw: bytes) -> bool:
    """Whether GRUB can change a value: there is nothing but ``#`` behind the lines."""
    return raw.rstrip(b"#").endswith(b"\n")


def pack(variables: Mapping[str, bytes]) -> bytes:
    """A block of exactly 1024 bytes; ours come first, others as long as they fit."""
    block = SIGNATURE
    for name in sorted(variables, key=lambda it: (it not in _OURS, _place(it))):
        line = name.encode() + b"=" + variables[name] + b"\n"
        if len(block) + len(line) <= BLOCK_BYTES:
            block += line
    return block.ljust(BLOCK_BYTES, b"#")


def _place(name: str) -> int:
    return _OURS.index(name) if name in _OURS else 0


@dataclass(frozen=True, slots=True)
class Store:
    """What the script goes by, and what we note for people."""

    good: Slot
    trial: Slot | None = None
    tries: int = 0
    states: Mapping[Slot, str] = field(default_factory=dict)

    @property
    def next(self) -> Slot:
        """The slot the script would start."""
        return self.trial if self.trial is not None and self.tries else self.good

    def marked(self, slot: Slot, state: str) -> Store:
        """The same with ``slot`` in another condition."""
        return dataclasses.replace(self, states={**self.states, slot: state})

    def disarmed(self) -> Store:
        """The same with nobody on trial; who was, has failed."""
        if self.trial is None:
            return self
        return dataclasses.replace(self.marked(self.trial, "b"), trial=None, tries=0)

    def lines(self) -> dict[str, bytes]:
        """Our variables."""
        return {
            "good": self.good.encode(),
            "trial": b"-" if self.trial is None else self.trial.encode(),
            "tries": b"%d" % self.tries,
            "a_state": self.states[Slot.A].encode(),
            "b_state": self.states[Slot.B].encode(),
        }

    @classmethod
    def of(cls, found: Mapping[str, bytes]) -> Store | None:
        """What the lines say; ``None`` if the script would not believe ``good``."""
        good = _slot(found.get("good"))
        if good is None:
            return None
        trial = _slot(found.get("trial"))
        tries = found.get("tries", b"")
        counted = len(tries) == 1 and tries in b"123456789"
        states = {slot: _state(found, slot, good) for slot in Slot}
        if trial is None or trial is good:
            return cls(good, states=states)
        return cls(good, trial, int(tries) if counted else 0, states)


def _slot(value: bytes | None) -> Slot | None:
    return {b"a": Slot.A, b"b": Slot.B}.get(value or b"")


def _state(found: Mapping[str, bytes], slot: Slot, good: Slot) -> str:
    value = found.get(f"{slot}_state", b"").decode("ascii", "replace")
    if slot is good:
        return "g"
    return value if value in _WORDS else "e"


class GrubBoot:
    """:class:`~sealift.agent.ports.BootControl` over two blocks of GRUB.

    Raises:
        BootError: from every verb but ``current``, when a block can be neither read nor
        written.
    """

    def __init__(
        self,
        env: Block,
        home: Block,
        mounted: Callable[[], Slot],
        started: Callable[[], str],
    ) -> None:
        self._env = env
        self._home = home
        self._mounted = mounted
        self._started = started

    def current(self) -> Slot:
        """The slot whose root is mounted (device-D2)."""
        return self._mounted()

    def boot_id(self) -> str:
        """Another text after every start of the machine."""
        return self._started()

    def next(self) -> Slot:
        """The slot the script would start."""
        return self._read()[0].next

    def mark_writing(self, slot: Slot) -> None:
        """Nothing boots ``slot`` from now on (B9).

        Raises:
            BootError: it runs, or it is the confirmed one, or the block is refused.
        """
        store, _ = self._read()
        if slot in {self.current(), store.good}:
            raise BootError(f"slot {slot} is in use and cannot be written")
        if store.trial is slot:
            store = store.disarmed()
        self._write(store.marked(slot, "w"))

    def set_next(self, slot: Slot, tries: int) -> None:
        """Put ``slot`` on trial, or disarm when it is the confirmed one. One write.

        Raises:
            BootError: the block is refused.
        """
        store, _ = self._read()
        if slot is store.good:
            self._write(store.disarmed())
            return
        tries = min(max(tries, 1), _MOST_TRIES)
        store = dataclasses.replace(store.disarmed(), trial=slot, tries=tries)
        self._write(store.marked(slot, "t"))

    def mark_good(self) -> None:
        """What runs becomes ``good``, then in the second block as well (B7).

        Raises:
            BootError: a block is refused; what booted before still boots.
        """
        current = self.current()
        store, _ = self._read()
        if store.trial is not None and store.trial is not current:
            store = store.disarmed()
        confirmed = dataclasses.replace(store, good=current, trial=None, tries=0)
        self._write(confirmed.marked(current, "g"))
        self._replace(self._home, {"good": current.encode()})

    def state(self) -> BootState:
        """What the blocks say, in words."""
        store, lost = self._read()
        slots = {slot: _WORDS[store.states[slot]] for slot in Slot}
        for slot in Slot:
            if slots[slot] == "trial":
                slots[slot] = "bad"
        if store.trial is not None:
            slots[store.trial] = f"trial({store.tries})"
        remarks = [lost] if lost else []
        if self._confirmed() is not store.good:
            remarks.append("grubenv.home does not name the confirmed slot")
        return BootState("grub", slots, counts_attempts=True, remarks=tuple(remarks))

    def _read(self) -> tuple[Store, str]:
        """The store, and what is to be said of it if it was lost (B8)."""
        raw = self._env.read(_MOST_BYTES)
        found = unpack(raw)
        store = None if found is None else Store.of(found)
        if store is not None and raw is not None:
            if not countable(raw):
                uncounted = dataclasses.replace(store, tries=0)
                return uncounted, "GRUB cannot count in grubenv: its end is damaged"
            odd = len(raw) != BLOCK_BYTES
            return store, f"grubenv has {len(raw)} bytes" if odd else ""
        home = self._confirmed() or Slot.A
        what = "is not there" if raw is None else "is damaged"
        states = {home: "g", home.other: "b"}
        return Store(home, states=states), f"grubenv {what}; slot {home} boots"

    def _confirmed(self) -> Slot | None:
        """The confirmed slot by the second block."""
        found = unpack(self._home.read(_MOST_BYTES))
        return None if found is None else _slot(found.get("good"))

    def _write(self, store: Store) -> None:
        self._replace(self._env, store.lines())

    def _replace(self, block: Block, ours: Mapping[str, bytes]) -> None:
        """Change our lines, keep the others; what is so already is not written.

        It is made durable, before it is believed: who wrote it may have been killed.
        """
        block.settle()
        before = block.read(_MOST_BYTES)
        others = unpack(before) or {}
        after = pack({**others, **ours})
        if before != after:
            block.write(after)
