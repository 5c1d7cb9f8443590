"""An EFI system partition and a firmware's variables, over flash that loses power.

The partition is as unkind as a vfat: a directory is records of its own sectors, and
nothing of it lasts before it was flushed. A rename is three of them (the new name with
length 0, the old one gone, the new one's length), in any order and any part, which is
what a recorded log of Linux shows (device-D4). A file is one cluster, so it has no
chain to lose. A variable is set by the firmware itself: it is the old or the new one.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

from sealift.agent.efivars import LOADER
from sealift.core.errors import BootError, SpaceError, StateError
from sealift.sim.flash import PowerCut

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sealift.sim.flash import Flash

__all__ = ["CLUSTER_BYTES", "FlashPartition", "FlashVariables"]

CLUSTER_BYTES: Final = 1 << 16
_CLUSTERS: Final = 8
_RECORDS: Final = 12
_RECORD_BYTES: Final = 96
_FREE: Final = b"\xe5".ljust(_RECORD_BYTES, b"\0")
_DIRECTORY: Final = "esp.names"


class FlashPartition:
    """:class:`~sealift.agent.esp.Partition` in regions of a flash."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash

    def format(self) -> None:
        """Make it new and empty, as the factory does."""
        self._flash.make(_DIRECTORY, _FREE * _RECORDS)
        for at in range(_CLUSTERS):
            self._flash.make(_cluster(at), b"")

    @contextlib.contextmanager
    def using(self, *, write: bool) -> Iterator[None]:
        """It is always there."""
        del write
        yield

    def files(self, directory: str) -> Mapping[str, int]:
        """The files of a directory with their lengths."""
        prefix = f"{directory}/" if directory else ""
        found = {it.name: it.length for it in self._records()}
        return {
            name.removeprefix(prefix): length
            for name, length in found.items()
            if name.rpartition("/")[0] == directory
        }

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file, fewer only where it ends."""
        found = self._record(name)
        length = max(0, min(length, found.length - offset))
        if found.cluster is None:
            return b""
        return self._flash.read(_cluster(found.cluster), offset, length) or b""

    def room(self) -> int:
        """Bytes that are free."""
        return len(self._free_clusters()) * CLUSTER_BYTES

    def create(self, name: str) -> None:
        """An empty file."""
        found = [it.at for it in self._records() if it.name == name]
        self._put(_Record(name, 0, None, found[0] if found else self._free_record()))

    def append(self, name: str, data: bytes) -> None:
        """Data first, then the length in the directory; neither is flushed."""
        found = self._record(name)
        cluster = found.cluster
        if cluster is None:
            free = self._free_clusters()
            if not free:
                raise SpaceError("the EFI system partition is full")
            cluster = free[0]
        if found.length + len(data) > CLUSTER_BYTES:
            raise SpaceError("a simulated file is one cluster")
        with _translated():
            self._flash.write(_cluster(cluster), found.length, data)
        self._put(_Record(name, found.length + len(data), cluster, found.at))

    def flush(self, name: str) -> None:
        """The data, then the directory."""
        found = self._record(name)
        with _translated():
            if found.cluster is not None:
                self._flash.flush(_cluster(found.cluster))
                self._flash.drop_cache(_cluster(found.cluster))
            self._flash.flush(_DIRECTORY)

    def rename(self, old: str, new: str) -> None:
        """Three sectors, and what had the name before is gone with the first."""
        found = self._record(old)
        there = [it.at for it in self._records() if it.name == new]
        at = there[0] if there else self._free_record()
        self._put(_Record(new, 0, None, at))
        self._clear(found.at)
        self._put(_Record(new, found.length, found.cluster, at))

    def remove(self, name: str) -> None:
        """One sector."""
        for found in self._records():
            if found.name == name:
                self._clear(found.at)

    def sync(self) -> None:
        """All that waits."""
        with _translated():
            for at in range(_CLUSTERS):
                self._flash.flush(_cluster(at))
            self._flash.flush(_DIRECTORY)

    def remarks(self) -> Sequence[str]:
        """It is mounted as it should be."""
        return ()

    def _records(self) -> list[_Record]:
        raw = self._flash.read(_DIRECTORY, 0, _RECORDS * _RECORD_BYTES) or b""
        found = []
        for at in range(_RECORDS):
            record = _Record.unpack(raw[at * _RECORD_BYTES :][:_RECORD_BYTES], at)
            if record is not None:
                found.append(record)
        return found

    def _record(self, name: str) -> _Record:
        for found in self._records():
            if found.name == name:
                return found
        raise BootError(f"there is no {name} on the EFI system partition")

    def _free_record(self) -> int:
        used = {it.at for it in self._records()}
        for at in range(_RECORDS):
            if at not in used:
                return at
        raise SpaceError("the directory of the EFI system partition is full")

    def _free_clusters(self) -> list[int]:
        used = {it.cluster for it in self._records()}
        return [at for at in range(_CLUSTERS) if at not in used]

    def _put(self, record: _Record) -> None:
        with _translated():
            self._flash.write(_DIRECTORY, record.at * _RECORD_BYTES, record.pack())

    def _clear(self, at: int) -> None:
        with _translated():
            self._flash.write(_DIRECTORY, at * _RECORD_BYTES, _FREE)


class _Record:
    """A name, its length, the one cluster it has; ``at`` is its sector."""

    def __init__(self, name: str, length: int, cluster: int | None, at: int) -> None:
        self.name = name
        self.length = length
        self.cluster = cluster
        self.at = at

    def pack(self) -> bytes:
        """One sector."""
        text = json.dumps([self.name, self.length, self.cluster]).encode()
        return text.ljust(_RECORD_BYTES, b"\0")

    @classmethod
    def unpack(cls, raw: bytes, at: int) -> _Record | None:
        """``None`` if it is free, or torn: a name nobody can read."""
        try:
            name, length, cluster = json.loads(raw.rstrip(b"\0"))
        except ValueError:
            return None
        return cls(name, length, cluster, at)


class FlashVariables:
    """:class:`~sealift.agent.efivars.Variables`, each one a step that is whole."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash

    def read(self, name: str, vendor: str = LOADER) -> bytes | None:
        """The value."""
        return self._flash.read(_variable(name, vendor), 0, 1 << 12)

    def write(self, name: str, value: bytes) -> None:
        """As one step: cut inside, the old or the new value holds."""
        self._step(name, value)

    def delete(self, name: str) -> None:
        """As one step."""
        self._step(name, None)

    def provide(self, name: str, value: bytes, vendor: str = LOADER) -> None:
        """Put a variable there as firmware or factory do."""
        self._flash.make(_variable(name, vendor), value)

    def wipe(self) -> None:
        """Lose all variables of the loader."""
        for region in [it for it in self._flash.medium if it.startswith("efi.")]:
            if region.endswith(LOADER):
                self._flash.remove(region)

    def _step(self, name: str, value: bytes | None) -> None:
        with _translated():
            inside = self._flash.door.enter()
        if not inside or self._flash.door.steps % 2:
            if value is None:
                self._flash.remove(_variable(name, LOADER))
            else:
                self._flash.make(_variable(name, LOADER), value)
        if inside:
            raise PowerCut
        self._flash.door.leave()


def _cluster(at: int) -> str:
    return f"esp.{at}"


def _variable(name: str, vendor: str) -> str:
    return f"efi.{name}-{vendor}"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StateError as error:
        raise BootError(error.message) from error
