"""FAT12, FAT16 and FAT32 as they lie on a disk, read strictly.

The judge of a power cut must read a file system in the middle of a change, and say what
is wrong with it; mounting it would repair or hide that. Names are compared as a
firmware does: without regard to case. Nothing is written.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Read = Callable[[int, int], bytes]

_ENTRY = 32
_DELETED, _END = 0xE5, 0x00
_LABEL, _DIRECTORY, _LONG = 0x08, 0x10, 0x0F
_LOWER_STEM, _LOWER_SUFFIX = 0x08, 0x10
_DEEPEST = 16


class FatError(Exception):
    """This is no FAT, or a chain of it cannot be followed."""


@dataclass(frozen=True, slots=True)
class Node:
    """A file or directory by its whole path, ``EFI/Linux/x.efi``."""

    path: str
    size: int
    first: int
    """Its first cluster, 0 if it has none."""
    directory: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(slots=True)
class Survey:
    """Everything in a file system, and what is wrong with it."""

    nodes: list[Node] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lost: int = 0
    """Clusters that are in use and belong to nothing."""


class Fat:
    """One file system, read through ``read(offset, length)``."""

    def __init__(self, read: Read) -> None:
        self._read = read
        boot = read(0, 512)
        if len(boot) < 512 or boot[510:512] != b"\x55\xaa":
            raise FatError("no boot sector")
        (
            sector,
            self._per_cluster,
            reserved,
            copies,
            root_entries,
            small,
            _,
            per_fat,
        ) = struct.unpack_from("<HBHBHHBH", boot, 11)
        (large,) = struct.unpack_from("<I", boot, 32)
        (per_fat_32, _, _, root_cluster) = struct.unpack_from("<IHHI", boot, 36)
        if sector not in {512, 1024, 2048, 4096} or not self._per_cluster or not copies:
            raise FatError("not a FAT file system")
        per_fat = per_fat or per_fat_32
        self.cluster_bytes = sector * self._per_cluster
        self._fats = [(reserved + index * per_fat) * sector for index in range(copies)]
        self._fat_bytes = per_fat * sector
        root = (reserved + copies * per_fat) * sector
        self._root = (root, root_entries * _ENTRY)
        self._data = root + -(-root_entries * _ENTRY // sector) * sector
        total = small or large
        self.clusters = (total * sector - self._data) // self.cluster_bytes
        self.bits = 12 if self.clusters < 4085 else 16 if self.clusters < 65525 else 32
        if self.clusters < 1 or (self.bits == 32) != (root_entries == 0):
            raise FatError("its sizes do not fit together")
        self._root_cluster = root_cluster if self.bits == 32 else 0

    @functools.cached_property
    def table(self) -> list[int]:
        """The next cluster of each cluster, of the first copy."""
        raw = self._read(self._fats[0], self._fat_bytes)
        count = min(self.clusters + 2, len(raw) * 8 // self.bits)
        if self.bits == 12:
            whole = int.from_bytes(raw, "little")
            return (
                [
                    int.from_bytes(raw[at * 3 // 2 : at * 3 // 2 + 2], "little")
                    >> (4 if at % 2 else 0)
                    & 0xFFF
                    for at in range(count)
                ]
                if whole
                else [0] * count
            )
        kind, mask = ("H", 0xFFFF) if self.bits == 16 else ("I", 0x0FFFFFFF)
        cells = struct.unpack_from(f"<{count}{kind}", raw)
        return [cell & mask for cell in cells]

    def chain(self, first: int) -> list[int]:
        """The clusters of a file.

        Raises:
            FatError: it leaves the file system, meets a free or bad cluster, or a loop.
        """
        found, fault = self._follow(first)
        if fault:
            raise FatError(fault)
        return found

    def _follow(self, first: int) -> tuple[list[int], str]:
        """The clusters from ``first`` as far as they go, and why not to an end."""
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self.bits]
        found: list[int] = []
        seen = set[int]()
        cluster = first
        while True:
            if not 2 <= cluster < self.clusters + 2:
                return found, f"cluster {cluster} is outside the file system"
            if cluster in seen:
                return found, f"the chain from {first} is a loop"
            found.append(cluster)
            seen.add(cluster)
            cluster = self.table[cluster]
            if cluster >= end:
                return found, ""

    def content(self, node: Node) -> bytes:
        """The bytes of a file.

        Raises:
            FatError: its chain is broken or does not fit its size.
        """
        if not node.first:
            if node.size:
                raise FatError(f"{node.path} has {node.size} bytes and no cluster")
            return b""
        chain = self.chain(node.first)
        if len(chain) * self.cluster_bytes < node.size:
            raise FatError(f"{node.path}: {node.size} bytes in {len(chain)} clusters")
        return self._clusters(chain)[: node.size]

    def find(self, path: str) -> Node | None:
        """The node of this path, ``None`` if there is none; as firmware looks for it."""
        above: Node | None = None
        for part in path.split("/"):
            if above is not None and not above.directory:
                return None
            found = [
                node
                for node, _ in self._listing(above)
                if node.name.lower() == part.lower()
            ]
            if not found:
                return None
            above = found[0]
        return above

    def inside(self, path: str) -> list[Node]:
        """What is in a directory; nothing if there is no such directory."""
        node = self.find(path) if path else None
        if path and (node is None or not node.directory):
            return []
        return [found for found, _ in self._listing(node)]

    def survey(self) -> Survey:
        """Everything there is, and what is wrong with it."""
        found = Survey()
        owner: dict[int, str] = {}
        if self._root_cluster:
            self._claim(found, owner, Node("/", 0, self._root_cluster, directory=True))
        self._walk(None, found, owner, 0)
        used = {
            cluster
            for cluster in range(2, len(self.table))
            if self.table[cluster] and not self._bad(self.table[cluster])
        }
        found.lost = len(used - owner.keys())
        if found.lost:
            found.faults.append(f"{found.lost} clusters are in use by nothing")
        first = self._read(self._fats[0], self._fat_bytes)
        if any(self._read(it, self._fat_bytes) != first for it in self._fats[1:]):
            found.faults.append("the copies of the table differ")
        return found

    def _walk(
        self, above: Node | None, found: Survey, owner: dict[int, str], depth: int
    ) -> None:
        if depth > _DEEPEST:
            found.faults.append("directories are nested too deep")
            return
        names = set[str]()
        for node, fault in self._listing(above):
            found.nodes.append(node)
            if fault:
                found.faults.append(f"{node.path}: {fault}")
            if node.name.lower() in names:
                found.faults.append(f"{node.path} is there twice")
            names.add(node.name.lower())
            fresh = node.first not in owner
            self._claim(found, owner, node)
            if node.directory and fresh:
                self._walk(node, found, owner, depth + 1)

    def _claim(self, found: Survey, owner: dict[int, str], node: Node) -> None:
        """Note whose the clusters of a node are, and what is wrong with them."""
        if not node.first:
            if node.size or node.directory:
                found.faults.append(f"{node.path} has no cluster")
            return
        chain, fault = self._follow(node.first)
        if fault:
            found.faults.append(f"{node.path}: {fault}")
        need = -(-node.size // self.cluster_bytes)
        if not fault and not node.directory and len(chain) != need:
            found.faults.append(
                f"{node.path}: {node.size} bytes in {len(chain)} clusters"
            )
        for cluster in chain:
            if cluster in owner:
                found.faults.append(f"{node.path} and {owner[cluster]} share a cluster")
                return
            owner[cluster] = node.path

    def _listing(self, above: Node | None) -> Iterator[tuple[Node, str]]:
        """What is in a directory, each with what is wrong with its entry, or ``""``.

        Where the chain of a directory breaks, firmware has read what came before.
        """
        path = f"{above.path}/" if above else ""
        if above is not None:
            raw = self._clusters(self._follow(above.first)[0])
        elif self._root_cluster:
            raw = self._clusters(self._follow(self._root_cluster)[0])
        else:
            raw = self._read(*self._root)
        parts: list[bytes] = []
        for at in range(0, len(raw), _ENTRY):
            entry = raw[at : at + _ENTRY]
            if entry[0] == _END:
                return
            if entry[0] == _DELETED:
                parts = []
                continue
            if entry[11] & 0x3F == _LONG:
                parts.append(entry)
                continue
            long, fault = _long(parts, entry)
            parts = []
            if entry[11] & _LABEL or entry[:2] in {b". ", b".."}:
                continue
            (high,) = struct.unpack_from("<H", entry, 20)
            low, size = struct.unpack_from("<HI", entry, 26)
            first = low | (high << 16 if self.bits == 32 else 0)
            directory = bool(entry[11] & _DIRECTORY)
            name = long or _short(entry)
            yield Node(path + name, size, first, directory), fault

    def _clusters(self, chain: list[int]) -> bytes:
        found = bytearray()
        start = 0
        for index in range(1, len(chain) + 1):
            if index == len(chain) or chain[index] != chain[index - 1] + 1:
                count = index - start
                at = self._data + (chain[start] - 2) * self.cluster_bytes
                found += self._read(at, count * self.cluster_bytes)
                start = index
        return bytes(found)

    def _bad(self, cell: int) -> bool:
        return cell == {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}[self.bits]


def _short(entry: bytes) -> str:
    raw = (b"\xe5" if entry[0] == 0x05 else entry[:1]) + entry[1:11]
    stem = raw[:8].decode("cp437").rstrip()
    suffix = raw[8:].decode("cp437").rstrip()
    if entry[12] & _LOWER_STEM:
        stem = stem.lower()
    if entry[12] & _LOWER_SUFFIX:
        suffix = suffix.lower()
    return f"{stem}.{suffix}" if suffix else stem


def _long(parts: list[bytes], entry: bytes) -> tuple[str, str]:
    """The long name that belongs to a short entry, and what is wrong with it.

    One that does not belong is no name: everybody then goes by the short one.
    """
    if not parts:
        return "", ""
    total = len(parts)
    wanted = [total | 0x40, *range(total - 1, 0, -1)]
    if [part[0] for part in parts] != wanted:
        return "", "its long name is not whole"
    checksum = 0
    for byte in entry[:11]:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    if any(part[13] != checksum for part in parts):
        return "", "its long name belongs to another"
    raw = b"".join(part[1:11] + part[14:26] + part[28:32] for part in parts[::-1])
    name = raw.decode("utf-16-le", "replace")
    return name.split("\0")[0], ""
