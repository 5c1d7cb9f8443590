"""Look at one image as a delta would: what it is, what is dense, what is left over.

One pass over all bytes for their density and for compressed streams, then the
structures of each file system. Facts only; what they mean is in ``advice``. Images are
hostile input: everything is bounded, and what contradicts itself becomes a ``trouble``
of that volume instead of the end of the survey.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sealift.core.container import IMAGE_MAX
from sealift.core.errors import FormatError, LengthError, LimitError
from sealift.core.payload import all_zero
from sealift.core.types import SEGMENT_SIZE
from sealift.payload import density
from sealift.payload.look import superblocks
from sealift.payload.look.ext4 import SUPERBLOCK_AT, Ext4
from sealift.payload.look.owners import Owners, Place
from sealift.payload.look.superblocks import VERITY_SIZE, Packed, Partition, Verity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.core.container import ReadAt
    from sealift.payload.density import Density, Stream
    from sealift.payload.look.ext4 import File, Superblock

    Progress = Callable[[str, int, int], None]

STREAMS_MAX: Final = 100_000
"""Compressed streams remembered at most; the rest are not named."""
FSTAB_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """What two builds of one file may differ in. Times are Unix seconds."""

    size: int
    times: tuple[int, int]
    inode: int


@dataclass(frozen=True, slots=True)
class Tree:
    """What an ext4 file system holds. ``files`` is empty where it could not be read.

    ``free`` and ``stale`` are bytes: blocks that belong to nothing, and those of them
    that are not zero. ``root_options`` are those of ``/`` in its ``/etc/fstab``.
    """

    superblock: Superblock
    free: int
    stale: int
    files: dict[str, Entry]
    journal: int
    root_options: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Volume:
    """One file system, partition, or the whole image where it is nothing known."""

    name: str
    offset: int
    length: int
    packed: Packed | None = None
    tree: Tree | None = None
    luks: bool = False
    verity: Verity | None = None
    trouble: str | None = None
    """Why it could not be read to the end."""

    @property
    def kind(self) -> str:
        """What it is, in one word."""
        if self.packed is not None:
            return self.packed.kind
        if self.tree is not None:
            return "ext4"
        return "LUKS" if self.luks else "unknown"

    @property
    def claimed(self) -> int:
        """Bytes the file system says it has; 0 if there is none."""
        if self.tree is not None:
            return self.tree.superblock.length
        return self.packed.length if self.packed is not None else 0

    @property
    def identity(self) -> dict[str, str]:
        """What a build chooses afresh unless told not to, as texts, by name."""
        found = self.packed or (self.tree.superblock if self.tree else None)
        return found.identity if found is not None else {}


@dataclass(frozen=True, slots=True)
class Survey:
    """All that is known of one image."""

    length: int
    volumes: tuple[Volume, ...]
    segments: tuple[Density, ...]
    streams: tuple[Stream, ...]
    owners: Owners

    @property
    def zero(self) -> int:
        """Bytes in segments that hold nothing else but zero."""
        return sum(found.length for found in self.segments if found.zero)

    @property
    def dense(self) -> int:
        """Bytes that look compressed or encrypted, by sample."""
        return sum(
            found.length * found.dense // found.sampled
            for found in self.segments
            if found.sampled
        )


def survey(
    read_at: ReadAt, length: int, progress: Progress = lambda *_: None
) -> Survey:
    """Look at an image of ``length`` bytes; ``progress(step, done, total)`` in bytes.

    Raises:
        LimitError: no image has this length. LengthError: it is shorter than that.
    """
    if not 1 <= length <= IMAGE_MAX:
        raise LimitError("the image is empty or larger than 64 GiB", length=length)
    segments: list[Density] = []
    streams: list[Stream] = []
    for offset in range(0, length, SEGMENT_SIZE):
        data = _exactly(read_at, offset, min(SEGMENT_SIZE, length - offset))
        segments.append(density.measure(offset, data))
        if not segments[-1].zero and len(streams) < STREAMS_MAX:
            streams += density.streams(offset, data)
        progress("surveying", offset + len(data), length)
    places: list[Place] = []
    volumes = tuple(_volumes(read_at, length, places))
    return Survey(length, volumes, tuple(segments), tuple(streams), Owners(places))


def _exactly(read_at: ReadAt, offset: int, length: int) -> bytes:
    data = read_at(offset, length)
    if len(data) != length:
        raise LengthError("the image became shorter while it was read")
    return data


# ── volumes ──────────────────────────────────────────────────────────────────────────
def _volumes(read_at: ReadAt, length: int, places: list[Place]) -> Iterator[Volume]:
    """The image itself if it is a file system, else its partitions, else just bytes."""
    whole = _volume(read_at, Partition("image", 0, length), places)
    found = () if whole.kind != "unknown" else superblocks.partitions(read_at, length)
    if not found:
        yield whole
    for partition in found:
        yield _volume(read_at, partition, places)


def _volume(read_at: ReadAt, place: Partition, places: list[Place]) -> Volume:
    def shifted(offset: int, length: int) -> bytes:
        room = max(0, place.length - offset)
        return read_at(place.offset + offset, min(length, room))

    found = Volume(place.name, place.offset, place.length)
    try:
        return _recognised(found, shifted, places)
    except FormatError as error:
        return replace(found, trouble=error.message)


def _recognised(found: Volume, read_at: ReadAt, places: list[Place]) -> Volume:
    first = read_at(0, SUPERBLOCK_AT + 1024)
    second = first[SUPERBLOCK_AT:]
    packed = superblocks.squashfs(first) or superblocks.erofs(second)
    if packed is not None:
        verity = _verity(read_at, packed.length)
        return replace(found, packed=packed, verity=verity)
    if superblocks.is_luks(first):
        return replace(found, luks=True)
    if second[0x38:0x3A] == b"\x53\xef":
        return _read_ext4(found, read_at, places)
    return replace(found, verity=_verity(read_at, 0))


def _verity(read_at: ReadAt, length: int) -> Verity | None:
    """The hash tree behind a file system, or alone in its partition (length 0)."""
    behind = -(-length // 4096) * 4096
    return superblocks.verity(read_at(behind, VERITY_SIZE))


def _read_ext4(found: Volume, read_at: ReadAt, places: list[Place]) -> Volume:
    system = Ext4(read_at)
    trouble = None
    free = stale = 0
    files: dict[str, Entry] = {}
    options = None
    try:
        free, stale = _leftovers(system, read_at)
        options = _read_files(system, found.offset, files, places)
    except FormatError as error:
        trouble = error.message
    journal = _journal(system, found.offset, places)
    tree = Tree(system.superblock, free, stale, files, journal, options)
    verity = _verity(read_at, system.superblock.length)
    return replace(found, tree=tree, verity=verity, trouble=trouble)


def _leftovers(system: Ext4, read_at: ReadAt) -> tuple[int, int]:
    """Bytes that are free, and bytes of free blocks that are not zero."""
    free = stale = 0
    block = system.superblock.block_size
    for start, length in system.free_runs():
        free += length
        for offset in range(start, start + length, SEGMENT_SIZE):
            data = read_at(offset, min(SEGMENT_SIZE, start + length - offset))
            if not all_zero(data):
                pieces = (data[at : at + block] for at in range(0, len(data), block))
                stale += sum(len(piece) for piece in pieces if not all_zero(piece))
    return free, stale


def _read_files(
    system: Ext4, shift: int, files: dict[str, Entry], places: list[Place]
) -> tuple[str, ...] | None:
    """Fill ``files`` and ``places``; the options of ``/`` in the file system table."""
    places += [
        Place(shift + offset, length, f"({name})", file=False)
        for name, offset, length in system.tables()
    ]
    options = None
    for file in system.files():
        inode = file.inode
        files[file.path] = Entry(inode.size, inode.times, inode.number)
        places += _claims(file, shift)
        if file.path == "/etc/fstab":
            options = _root_options(system.read(file, FSTAB_MAX))
    return options


def _claims(file: File, shift: int) -> Iterator[Place]:
    for number, (offset, length) in enumerate(file.runs):
        plain = not file.inode.is_directory
        name = file.path if plain else "(directories)"
        yield Place(shift + offset, length, name, first=number == 0, file=plain)


def _journal(system: Ext4, shift: int, places: list[Place]) -> int:
    try:
        found = system.journal()
    except FormatError:
        return 0
    if found is None:
        return 0
    places += [
        Place(shift + at, size, found.path, file=False) for at, size in found.runs
    ]
    return sum(length for _, length in found.runs)


def _root_options(raw: bytes) -> tuple[str, ...] | None:
    for line in raw.decode("utf-8", "replace").splitlines():
        words = line.split("#")[0].split()
        if len(words) >= 4 and words[1] == "/":
            return tuple(words[3].split(","))
    return None
