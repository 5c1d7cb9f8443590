"""The partitions of a disk by their names, read from its GPT."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

SECTOR = 512


class PartitionError(Exception):
    """There is no partition table, or none as wanted."""


def partitions(read: Callable[[int, int], bytes]) -> Mapping[str, tuple[int, int]]:
    """First sector and number of sectors of each partition that has a name.

    Raises:
        PartitionError: no GPT.
    """
    header = read(SECTOR, SECTOR)
    if header[:8] != b"EFI PART":
        raise PartitionError("the disk has no GPT")
    at, count, size = struct.unpack_from("<QII", header, 72)
    table = read(at * SECTOR, count * size)
    found: dict[str, tuple[int, int]] = {}
    for index in range(count):
        entry = table[index * size : (index + 1) * size]
        first, last = struct.unpack_from("<QQ", entry, 32)
        name = entry[56:128].decode("utf-16-le").rstrip("\0")
        if name and any(entry[:16]):
            found[name] = (first, last - first + 1)
    return found


def of_file(path: Path) -> Mapping[str, tuple[int, int]]:
    """The partitions of an image file.

    Raises:
        PartitionError: no GPT.
    """
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return partitions(read)
