"""What a disk was told, in order, and every state in which a power cut could leave it.

QEMU's ``blklogwrites`` writes a log of each write and flush, in the format of
dm-log-writes. :class:`Log` reads it; :class:`Disk` is the image from before, with
sectors of the log laid over it (nothing is copied); :func:`states` goes through the
log: after each entry, and at each flush with random parts of what had not been flushed,
requests or sectors. A disk keeps a fingerprint for each of its regions, so that a judge need
look only at what it has not seen before.
"""

from __future__ import annotations

import bisect
import enum
import hashlib
import mmap
import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
_MAGIC = 0x6A736677736872
_HEADER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_ZEROS = -1
"""Where a discarded sector's bytes lie: nowhere."""


class LogError(Exception):
    """The log or the disk is not what it was said to be."""


class Flag(enum.Flag):
    """What an entry is besides a write."""

    NONE = 0
    FLUSH = 1
    FUA = 2
    DISCARD = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One request: ``sectors`` from ``at``; its bytes lie at ``data`` in the log."""

    at: int
    sectors: int
    flags: Flag
    data: int


class Log:
    """A log of writes, its entries in order."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, count, sector = _HEADER.unpack_from(self.raw)
        if magic != _MAGIC or version != 1:
            raise LogError(f"{path.name} is no log of writes")
        if sector != SECTOR:
            raise LogError(
                f"the log has sectors of {sector} bytes; say log-sector-size"
            )
        self.entries = list(self._entries(count))

    def _entries(self, count: int) -> Iterator[Entry]:
        place = SECTOR
        for _ in range(count):
            if place + SECTOR > len(self.raw):
                raise LogError("the log ends inside an entry")
            at, sectors, flags, length = _ENTRY.unpack_from(self.raw, place)
            place += SECTOR
            flag = Flag(flags)
            yield Entry(at, sectors, flag, place)
            if Flag.DISCARD not in flag:
                place += max(sectors * SECTOR, -(-length // SECTOR) * SECTOR)

    def content(self, entry: Entry) -> bytes:
        """The bytes an entry wrote."""
        return self.raw[entry.data : entry.data + entry.sectors * SECTOR]

    @property
    def writes(self) -> int:
        """How many entries write something."""
        return sum(1 for entry in self.entries if entry.sectors)

    @property
    def flushes(self) -> int:
        """How many entries are cache flushes."""
        return sum(1 for entry in self.entries if Flag.FLUSH in entry.flags)

    def written_to(self, first: int, sectors: int) -> tuple[int, int]:
        """Writes that begin in a range of sectors, and their bytes."""
        found = [
            entry.sectors
            for entry in self.entries
            if entry.sectors and first <= entry.at < first + sectors
        ]
        return len(found), sum(found) * SECTOR


def pieces(entry: Entry) -> Iterator[tuple[int, int]]:
    """Each sector an entry writes, and where its bytes lie in the log."""
    for index in range(entry.sectors):
        discarded = Flag.DISCARD in entry.flags
        place = _ZEROS if discarded else entry.data + index * SECTOR
        yield entry.at + index, place


class Disk:
    """An image that is not touched, and sectors of a log over it.

    ``regions`` names ranges of sectors (first, number); everything else is the region
    ``""``. Without a log it is the image as it is. Two disks over one base whose region has one fingerprint have the same bytes
    in it.
    """

    def __init__(
        self, base: Path, log: Log | None, regions: Mapping[str, tuple[int, int]]
    ) -> None:
        with base.open("rb") as file:
            self._base = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._log: mmap.mmap | bytes = log.raw if log is not None else b""
        self._over: dict[int, int] = {}
        self._names = [
            name for name, _ in sorted(regions.items(), key=lambda it: it[1])
        ]
        self._firsts = sorted(first for first, _ in regions.values())
        self._ends = [regions[name][0] + regions[name][1] for name in self._names]
        self._prints = dict.fromkeys(["", *regions], 0)
        self._digests: dict[tuple[int, int], int] = {}
        self._undo: list[tuple[int, int | None, str, int]] = []
        self.regions = dict(regions)

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return len(self._base)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes as the disk has them now; fewer only at its end."""
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        over, found = self._over, bytearray()
        clean = first
        for sector in range(first, last + 1):
            place = over.get(sector)
            if place is None:
                continue
            found += self._base[clean * SECTOR : sector * SECTOR]
            found += self._bytes(place)
            clean = sector + 1
        found += self._base[clean * SECTOR : (last + 1) * SECTOR]
        start = offset - first * SECTOR
        return bytes(found[start : start + length])

    def region(self, name: str) -> bytes:
        """All bytes of a region."""
        first, sectors = self.regions[name]
        return self.read(first * SECTOR, sectors * SECTOR)

    def fingerprint(self, name: str) -> int:
        """A number for what differs from the base in a region."""
        return self._prints[name]

    def put(self, sector: int, place: int) -> None:
        """Lay one sector of the log over the disk.

        Raises:
            LogError: it lies outside the disk.
        """
        if (sector + 1) * SECTOR > self.size:
            raise LogError(f"sector {sector} is outside the disk")
        name = self._region(sector)
        old = self._over.get(sector)
        self._undo.append((sector, old, name, self._prints[name]))
        if old is not None:
            self._prints[name] ^= self._digest(sector, old)
        self._over[sector] = place
        self._prints[name] ^= self._digest(sector, place)

    def apply(self, entry: Entry) -> None:
        """Do what an entry did."""
        for sector, place in pieces(entry):
            self.put(sector, place)

    def settle(self) -> None:
        """Forget how to go back: what is there stays."""
        self._undo.clear()

    def mark(self) -> int:
        """A point to come back to."""
        return len(self._undo)

    def back(self, mark: int) -> None:
        """Take away everything laid over the disk since then."""
        while len(self._undo) > mark:
            sector, old, name, fingerprint = self._undo.pop()
            if old is None:
                del self._over[sector]
            else:
                self._over[sector] = old
            self._prints[name] = fingerprint

    def save(self, path: Path) -> None:
        """Write the disk as a file of its own, to boot it for real."""
        with path.open("wb") as file:
            file.write(self._base)
            for sector, place in sorted(self._over.items()):
                file.seek(sector * SECTOR)
                file.write(self._bytes(place))

    def _bytes(self, place: int) -> bytes:
        return bytes(SECTOR) if place == _ZEROS else self._log[place : place + SECTOR]

    def _region(self, sector: int) -> str:
        index = bisect.bisect_right(self._firsts, sector) - 1
        if index >= 0 and sector < self._ends[index]:
            return self._names[index]
        return ""

    def _digest(self, sector: int, place: int) -> int:
        # What equals the base is no difference: two ways to one content are one state.
        key = (sector, place)
        found = self._digests.get(key)
        if found is None:
            data = self._bytes(place)
            found = 0
            if data != self._base[sector * SECTOR : (sector + 1) * SECTOR]:
                mixed = hashlib.blake2b(
                    data, digest_size=12, salt=sector.to_bytes(16, "little")
                )
                found = int.from_bytes(mixed.digest(), "little")
            self._digests[key] = found
        return found


@dataclass(frozen=True, slots=True)
class State:
    """Where in the log a disk stands: ``entries`` are done.

    ``kept`` is ``None`` for a prefix; for a reordering, how many of ``sectors`` that
    were written since the last flush are on the medium. ``marks`` are those that may
    hold: for a prefix the last one, else all since the flush before.
    """

    entries: int
    epoch: int
    kept: int | None = None
    sectors: int = 0
    marks: tuple[bytes, ...] = (b"",)

    @property
    def name(self) -> str:
        """A short name for reports."""
        if self.kept is None:
            return f"after entry {self.entries}"
        return f"epoch {self.epoch}, {self.kept} of {self.sectors} sectors"


def states(
    disk: Disk,
    log: Log,
    *,
    reorderings: int = 40,
    seed: int = 0,
    prefixes: bool = True,
) -> Iterator[State]:
    """Bring ``disk`` into every state of the log, one after the other.

    While a state is handed out the disk is in it. What was flushed is always there, and
    so is a write with FUA that had ended. When the parts of an epoch are so few that all
    of them fit into ``reorderings``, all are tried.

    A region ``marks`` is no part of the disk: whoever makes the log writes there what
    happens beside it, such as a change of the firmware's variables.
    """
    marks = disk.regions.get("marks", (0, 0))
    waiting = _Epoch(0, [b""])
    disk.settle()
    if prefixes:
        yield State(0, 0)
    for done, entry in enumerate(log.entries, 1):
        if marks[0] <= entry.at < sum(marks) and entry.sectors:
            waiting.marks.append(log.content(entry).rstrip(b"\0"))
            if prefixes:
                yield State(done, waiting.number, marks=(waiting.marks[-1],))
            continue
        if Flag.FLUSH in entry.flags and waiting.pieces:
            yield from _shuffled(disk, waiting, done - 1, seed, reorderings)
            waiting = _Epoch(waiting.number + 1, waiting.marks[-1:])
        if entry.sectors:
            waiting.add(entry)
            disk.apply(entry)
            if prefixes:
                yield State(done, waiting.number, marks=(waiting.marks[-1],))
    yield from _shuffled(disk, waiting, len(log.entries), seed, reorderings)


class _Epoch:
    """Writes since the last flush."""

    def __init__(self, number: int, marks: list[bytes]) -> None:
        self.number = number
        self.marks = marks
        self.pieces: list[tuple[int, int]] = []
        self.ends: list[int] = []
        """Where the pieces of each entry end."""
        self.forced: list[int] = []
        """Indexes of pieces that went past the cache."""

    def add(self, entry: Entry) -> None:
        start = len(self.pieces)
        self.pieces += pieces(entry)
        self.ends.append(len(self.pieces))
        if Flag.FUA in entry.flags:
            self.forced += range(start, len(self.pieces))

    def entry(self, index: int) -> int:
        """Which entry a piece belongs to."""
        return bisect.bisect_right(self.ends, index)


def _shuffled(
    disk: Disk, epoch: _Epoch, done: int, seed: int, count: int
) -> Iterator[State]:
    """Random parts of an epoch, or all of them if they are few; then all of it."""
    disk.back(0)
    for kept in _choices(epoch, count, random.Random(f"{seed} {epoch.number}")):
        for index in kept:
            disk.put(*epoch.pieces[index])
        total, marks = len(epoch.pieces), tuple(dict.fromkeys(epoch.marks))
        yield State(done, epoch.number, len(kept), total, marks)
        disk.back(0)
    for piece in epoch.pieces:
        disk.put(*piece)
    disk.settle()


def _choices(epoch: _Epoch, count: int, chance: random.Random) -> Iterator[list[int]]:
    total, forced = len(epoch.pieces), set(epoch.forced)
    free = [index for index in range(total) if index not in forced]
    if not free or not count:
        return
    if len(free) < count.bit_length():
        for mask in range(1 << len(free)):
            some = {it for bit, it in enumerate(free) if mask >> bit & 1}
            yield sorted(some | forced)
        return
    for number in range(count):
        # The cut comes anywhere in the epoch; few, half or most of it arrived. A drive
        # keeps or loses whole requests more often than single sectors of one.
        end = total if chance.random() < 0.5 else chance.randint(1, total)
        share = chance.choice((0.1, 0.5, 0.9))
        whole = number % 2 == 0
        kept = [chance.random() < share for _ in epoch.ends] if whole else []
        yield [
            index
            for index in range(end)
            if index in forced
            or (kept[epoch.entry(index)] if whole else chance.random() < share)
        ]
