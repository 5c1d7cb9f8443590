"""Content that was compressed or encrypted before the container could compress it.

A stream in which one byte changed has nothing in common with the one before, from there
on: what a delta saves is lost. Costs are those measured on the design page
``payload.md``, sections 7.2 and 8.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.payload.look.findings import (
    LISTED,
    MOSTLY,
    NOTABLE,
    Case,
    Finding,
    Severity,
    amount,
    named,
    percent,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.payload.density import Stream
    from sealift.payload.look.survey import Survey, Volume


def _compressed_filesystem(case: Case) -> Iterator[Finding]:
    for volume in case.image.volumes:
        packed = volume.packed
        if packed is None or packed.codec is None:
            continue
        light = packed.kind == "EROFS" and packed.codec == "lz4"
        yield Finding(
            "filesystem.compressed",
            Severity.WARNING,
            f"{volume.name}: {packed.kind} compressed by {packed.codec}",
            f"every update brings about {'a seventh' if light else 'half'} of the "
            "image; the same files uncompressed 3 to 4 %",
            "if flash allows: ext4 with mke2fs -b 4096, EROFS without -z, or squashfs "
            "with mksquashfs -noI -noD -noF -noX; the container compresses for the way",
        )


@dataclass(frozen=True, slots=True)
class _Use:
    """What compressed content is for, told by its path or its stream; and the cure."""

    name: str
    paths: tuple[str, ...]
    streams: tuple[str, ...]
    cure: str


_USES: Final = (
    _Use(
        "kernel",
        ("vmlinuz", "zImage", "bzImage", "Image.gz", "uImage"),
        ("kernel",),
        "ship the uncompressed kernel (arm64: Image, not Image.gz)",
    ),
    _Use(
        "initramfs",
        ("initrd", "initramfs"),
        (),
        "build it uncompressed (COMPRESS=cat, or an empty INITRAMFS_COMPRESSION)",
    ),
    _Use(
        "modules",
        (".ko.",),
        (),
        "install plain .ko files: CONFIG_MODULE_COMPRESS=n (or _NONE)",
    ),
    _Use(
        "firmware",
        ("/firmware/", ".fv"),
        ("UEFI",),
        "plain blobs where the loader takes them; CONFIG_FW_LOADER_COMPRESS off",
    ),
    _Use(
        "files",
        ("",),
        (),
        "store them uncompressed, or leave them out (documentation, caches, archives)",
    ),
)


_DOCUMENTS: Final = ("/doc/", "/man/")


def _compressed_content(case: Case) -> Iterator[Finding]:
    image = case.image
    for use, found in _by_use(image).items():
        total = sum(found.values())
        told = f", {amount(total)} in all" if total else ""
        heavy = total >= image.length * NOTABLE or use.name == "kernel"
        yield Finding(
            f"compressed.{use.name}",
            Severity.WARNING if heavy else Severity.NOTE,
            f"{use.name}: {len(found)} compressed{told}",
            "each one that changes comes whole: nothing of the old one is found in it",
            use.cure,
            named(found),
        )


def _by_use(image: Survey) -> dict[_Use, Counter[str]]:
    """Compressed files (or offsets) and their bytes, by what they are for."""
    groups: dict[_Use, Counter[str]] = {}
    for stream in image.streams:
        named_stream = _name(image, stream)
        if named_stream is not None:
            name, length = named_stream
            group = groups.setdefault(_use(name, stream), Counter())
            group[name] = max(group[name], length)
    return groups


def _name(image: Survey, stream: Stream) -> tuple[str, int] | None:
    """The file a stream lies in and its bytes, 0 if unknown; its place if in none.

    ``None`` where another finding tells about it: blocks of a compressed file system,
    old content in free blocks.
    """
    volume = _volume(image, stream.offset)
    if volume is not None and volume.packed is not None and volume.packed.codec:
        return None
    place = image.owners.at(stream.offset)
    if place is not None and place.file:
        # Within a file nobody knows how much of it the stream is.
        begins = place.first and stream.offset == place.offset
        return place.name, _length(image, place.name) if begins else 0
    if volume is not None and volume.tree is not None:
        return None
    return f"{stream.kind} at {amount(stream.offset)}", 0


def _volume(image: Survey, offset: int) -> Volume | None:
    inside = (v for v in image.volumes if v.offset <= offset < v.offset + v.length)
    return next(inside, None)


def _length(image: Survey, path: str) -> int:
    found = (v.tree.files.get(path) for v in image.volumes if v.tree is not None)
    return next((entry.size for entry in found if entry is not None), 0)


def _use(name: str, stream: Stream) -> _Use:
    """The first use that fits; the last fits all, and what is only documentation."""
    if any(place in name for place in _DOCUMENTS):
        return _USES[-1]
    return next(
        use
        for use in _USES
        if any(word in stream.kind for word in use.streams)
        or any(word in name for word in use.paths)
    )


def _encrypted(case: Case) -> Iterator[Finding]:
    cure = "ship the plain image and let Sealift encrypt it: a sealed delta stays small"
    for volume in case.image.volumes:
        if volume.luks:
            yield Finding(
                "encrypted",
                Severity.WARNING,
                f"{volume.name}: a LUKS container",
                "encrypted bytes have nothing in common with the build before; every "
                "update is a full one, and it does not compress either",
                cure,
            )
    image = case.image
    known = any(volume.kind != "unknown" for volume in image.volumes)
    if not known and image.dense >= image.length * MOSTLY:
        yield Finding(
            "dense",
            Severity.WARNING,
            f"{percent(image.dense / image.length)} of the image look compressed or "
            "encrypted, and no file system is found",
            "a delta finds next to nothing; expect about a full download each time",
            "if it is compressed, ship it uncompressed; if it is encrypted (wrapped "
            f"firmware), {cure}",
            _dense_regions(image),
        )


def _dense_regions(image: Survey) -> tuple[str, ...]:
    """Runs of segments most of whose samples are dense, longest first."""
    runs: list[list[int]] = []
    for found in image.segments:
        if not found.sampled or found.dense < found.sampled * MOSTLY:
            continue
        if runs and runs[-1][1] == found.offset:
            runs[-1][1] += found.length
        else:
            runs.append([found.offset, found.offset + found.length])
    runs.sort(key=lambda run: run[0] - run[1])
    return tuple(
        f"{amount(stop - start)} at {amount(start)}" for start, stop in runs[:LISTED]
    )


RULES: Final = (_encrypted, _compressed_filesystem, _compressed_content)
