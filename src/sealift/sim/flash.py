"""Durable memory that can lose power: every write goes through one door that counts.

Between a write and its flush the data is in a volatile cache, which a power cut empties
as the weather wants: everything lost, everything kept, or an arbitrary part, in any
order and torn. The ports of ``agent.ports`` are implemented over it, so that the real
agent runs on it. Points of a cut are numbers: step ``k`` counts writes and flushes that
have something to do; ``k`` cuts before it, ``k.25`` inside (torn), ``k.5`` after it,
and ``k.75`` kills the agent after it while the power stays on. ``k.125`` cuts nothing:
the medium refuses that one step, as a failing or full disk does.
"""

from __future__ import annotations

import contextlib
import random
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.core.errors import SlotError, SpaceError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sealift.core.types import Slot

BEFORE, REFUSED, INSIDE, AFTER, KILLED = 0.0, 0.125, 0.25, 0.5, 0.75


class PowerCut(BaseException):
    """The power is gone. Not an ``Exception``: no handler of the agent may see it."""


class Killed(BaseException):
    """The process is gone; caches, clock and boot are not."""


class Weather(StrEnum):
    """What a power cut does to what was written but not flushed."""

    LOST = "lost"
    KEPT = "kept"
    MIXED = "mixed"


class Door:
    """Counts durable steps, and cuts at the points it was given."""

    def __init__(self, cuts: Iterable[float] = ()) -> None:
        self.cuts = frozenset(cuts)
        self.steps = 0

    def enter(self) -> bool:
        """Begin a step; ``True`` if the power will go inside it.

        Raises:
            StateError: the medium refuses this step.
        """
        self.steps += 1
        if self.steps in self.cuts:
            raise PowerCut
        if self.steps + REFUSED in self.cuts:
            raise StateError(f"the medium refuses step {self.steps}")
        return self.steps + INSIDE in self.cuts

    def leave(self) -> None:
        """End the step."""
        if self.steps + AFTER in self.cuts:
            raise PowerCut
        if self.steps + KILLED in self.cuts:
            raise Killed


class Flash:
    """Named regions of bytes behind a volatile cache.

    ``spoiled`` are the numbers of slot writes that a bad medium keeps wrongly: the
    cache shows what was written, the medium holds one bit less.
    """

    def __init__(
        self,
        door: Door,
        weather: Weather = Weather.MIXED,
        *,
        seed: int = 0,
        spoiled: Iterable[int] = (),
    ) -> None:
        self.door = door
        self.medium: dict[str, bytearray] = {}
        self._weather = weather
        self._seed = seed
        self._spoiled = frozenset(spoiled)
        self._slot_writes = 0
        self._seen: dict[str, bytearray] = {}
        self._pending: list[tuple[str, int, bytes]] = []

    def make(self, region: str, content: bytes) -> None:
        """Put a region there as the factory does: whole and durable."""
        self.medium[region] = bytearray(content)
        self._seen[region] = bytearray(content)

    def remove(self, region: str) -> None:
        """Take a region away, if it is there; not a step of its own."""
        self._pending = [it for it in self._pending if it[0] != region]
        self.medium.pop(region, None)
        self._seen.pop(region, None)

    def read(self, region: str, offset: int, length: int) -> bytes | None:
        """What a process sees: the cache, then the medium."""
        found = self._seen.get(region)
        return None if found is None else bytes(found[offset : offset + length])

    def size(self, region: str) -> int:
        """Bytes of a region."""
        return len(self._seen[region])

    def write(self, region: str, offset: int, data: bytes) -> None:
        """Write into the cache; durable only after :meth:`flush`."""
        kept = self._kept(region, data)
        if self.door.enter():
            half = len(kept) // 2
            first = self.door.steps % 2 == 0
            piece, at = (kept[:half], offset) if first else (kept[half:], offset + half)
            _put(self.medium, region, at, piece)
            raise PowerCut
        _put(self._seen, region, offset, data)
        self._pending.append((region, offset, kept))
        self.door.leave()

    def flush(self, region: str) -> None:
        """Make a region's writes durable; a step only if there are any."""
        waiting = [it for it in self._pending if it[0] == region]
        if not waiting:
            return
        if self.door.enter():
            self._scatter(waiting, Weather.MIXED)
            self._pending = [it for it in self._pending if it[0] != region]
            raise PowerCut
        for it in waiting:
            _put(self.medium, *it)
        self._pending = [it for it in self._pending if it[0] != region]
        self.door.leave()

    def drop_cache(self, region: str) -> None:
        """Forget what the medium holds by now; what waits stays in the cache."""
        self._seen[region] = bytearray(self.medium.get(region, b""))
        for it in self._pending:
            if it[0] == region:
                _put(self._seen, *it)

    def lose_power(self) -> None:
        """Empty the cache as the weather wants."""
        self._scatter(self._pending, self._weather)
        self._pending = []
        self._seen = {name: bytearray(it) for name, it in self.medium.items()}

    def sync(self) -> None:
        """Write everything back, as a restart in good order does. No step, no cut."""
        self._scatter(self._pending, Weather.KEPT)
        self._pending = []
        self._seen = {name: bytearray(it) for name, it in self.medium.items()}

    def fingerprint(self) -> int:
        """A number for what the medium holds."""
        return hash(tuple((name, bytes(it)) for name, it in self.medium.items()))

    def _kept(self, region: str, data: bytes) -> bytes:
        if not region.startswith("slot."):
            return data
        self._slot_writes += 1
        if self._slot_writes not in self._spoiled:
            return data
        return data[:-1] + bytes([data[-1] ^ 1])

    def _scatter(self, waiting: list[tuple[str, int, bytes]], weather: Weather) -> None:
        if weather is Weather.LOST:
            return
        if weather is Weather.MIXED:
            chance = random.Random(self._seed * 1_000_003 + self.door.steps)
            waiting = chance.sample(waiting, k=chance.randint(0, len(waiting)))
            if waiting:
                region, offset, data = waiting[-1]
                data = data[: chance.randint(0, len(data))]
                waiting[-1] = (region, offset, data)
        for it in waiting:
            _put(self.medium, *it)


class FlashCells:
    """:class:`~sealift.agent.ports.Cells` in two regions of a flash."""

    def __init__(self, flash: Flash, name: str) -> None:
        self._flash = flash
        self._regions = (f"{name}.0", f"{name}.1")

    def read(self, cell: int, limit: int) -> bytes | None:
        """At most ``limit`` bytes, or ``None``."""
        return self._flash.read(self._regions[cell], 0, limit)

    def write(self, cell: int, data: bytes) -> None:
        """In place, into the cache."""
        self._flash.write(self._regions[cell], 0, data)

    def flush(self, cell: int) -> None:
        """Onto the medium."""
        self._flash.flush(self._regions[cell])


class FlashSlot:
    """:class:`~sealift.agent.ports.SlotDevice` in one region of a flash."""

    def __init__(self, flash: Flash, region: str, *, writable: bool) -> None:
        self._flash = flash
        self._region = region
        self._writable = writable

    @property
    def size(self) -> int:
        """Bytes the slot can hold."""
        return self._flash.size(self._region)

    def read(self, offset: int, length: int) -> bytes:
        """Through the cache."""
        return self._flash.read(self._region, offset, length) or b""

    def write(self, offset: int, data: bytes) -> None:
        """Into the cache.

        Raises:
            SlotError: opened for reading, or refused. SpaceError: past the end.
        """
        if not self._writable:
            raise SlotError(f"{self._region} is open for reading only")
        if offset + len(data) > self.size:
            raise SpaceError(f"{self._region} ends at {self.size} bytes")
        with _for_slots():
            self._flash.write(self._region, offset, data)

    def flush(self) -> None:
        """Onto the medium.

        Raises:
            SlotError: it refused.
        """
        with _for_slots():
            self._flash.flush(self._region)

    def drop_cache(self) -> None:
        """The next reads see the medium."""
        self._flash.drop_cache(self._region)

    def close(self) -> None:
        """Nothing is held."""


class FlashSlots:
    """:class:`~sealift.agent.ports.Slots` in the regions ``NAME.a`` and ``NAME.b``."""

    def __init__(self, flash: Flash, name: str = "slot") -> None:
        self._flash = flash
        self._name = name

    def open(self, slot: Slot, *, writable: bool) -> FlashSlot:
        """Open one slot.

        Raises:
            SlotError: this device has no such slot.
        """
        region = f"{self._name}.{slot}"
        if region not in self._flash.medium:
            raise SlotError(f"there is no slot {slot}")
        return FlashSlot(self._flash, region, writable=writable)


class FlashCounter:
    """:class:`~sealift.agent.ports.Counter` that passes the door for every rise."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._value = 0

    def value(self) -> int:
        """The lowest counter still accepted."""
        return self._value

    def advance(self, counter: int) -> None:
        """Raise it, as one step; never lower it."""
        if counter <= self._value:
            return
        if self._door.enter():
            self._value = counter if self._door.steps % 2 else self._value
            raise PowerCut
        self._value = counter
        self._door.leave()


class FlashStorage:
    """:class:`~sealift.agent.ports.Storage` whose commits pass the door as one step.

    How a real store keeps its promise of atomicity is its own test's matter; here a cut
    inside a commit leaves all of it or nothing.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._records: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none."""
        return self._records.get(_checked(name))

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and delete several records in one step.

        Raises:
            StateError: a name that is no flat name; nothing changed.
        """
        changed = {
            _checked(name): data
            for name, data in changes.items()
            if self._records.get(_checked(name)) != data
        }
        if not changed:
            return
        if self._door.enter():
            if self._door.steps % 2:
                self._apply(changed)
            raise PowerCut
        self._apply(changed)
        self._door.leave()

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names in use that begin with ``prefix``, sorted."""
        return sorted(name for name in self._records if name.startswith(prefix))

    def _apply(self, changes: Mapping[str, bytes | None]) -> None:
        for name, data in changes.items():
            if data is None:
                self._records.pop(name, None)
            else:
                self._records[name] = bytes(data)


@contextlib.contextmanager
def _for_slots() -> Iterator[None]:
    try:
        yield
    except StateError as error:
        raise SlotError(error.message) from error


_FLAT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._%-")


def _checked(name: str) -> str:
    if not name or not set(name) <= _FLAT or name in {".", ".."}:
        raise StateError(f"{name[:80]!r} is no name of a record")
    return name


def _put(memory: dict[str, bytearray], region: str, offset: int, data: bytes) -> None:
    found = memory.setdefault(region, bytearray())
    if len(found) < offset:
        found.extend(bytes(offset - len(found)))
    found[offset : offset + len(data)] = data
