"""Content that was compressed or encrypted before the container could compress it.

A stream in which one byte changed has nothing in common with the one before, from there
on: what a delta saves is lost. Costs are those measured on the design page
``payload.md``, sections 7.2 and 8.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from sealift.payload.findings import (
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
    from sealift.payload.survey import Survey


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


_KINDS: Final = (
    # what: code, words in a path, kinds of streams, the cure
    (
        "kernel",
        ("vmlinuz", "zImage", "bzImage", "Image.gz", "uImage"),
        ("kernel",),
        "ship the uncompressed kernel (arm64: Image, not Image.gz)",
    ),
    (
        "initramfs",
        ("initrd", "initramfs"),
        (),
        "build it uncompressed (COMPRESS=cat, or an empty INITRAMFS_COMPRESSION)",
    ),
    (
        "modules",
        (".ko.",),
        (),
        "install plain .ko files: CONFIG_MODULE_COMPRESS=n (or _NONE)",
    ),
    (
        "firmware",
        ("/firmware/", ".fv"),
        ("UEFI",),
        "where the loader allows, plain blobs; CONFIG_FW_LOADER_COMPRESS off",
    ),
)
_OTHER_CURE: Final = (
    "store them uncompressed, or leave them out (documentation, caches, archives)"
)


def _compressed_content(case: Case) -> Iterator[Finding]:
    image = case.image
    for kind, found in _by_kind(image).items():
        total = sum(found.values())
        cure = next((row[3] for row in _KINDS if row[0] == kind), _OTHER_CURE)
        share = total / image.length
        told = f"{len(found)} compressed" + (
            f", {amount(total)} in all" if total else ""
        )
        heavy = share >= NOTABLE or kind == "kernel"
        yield Finding(
            f"compressed.{kind}",
            Severity.WARNING if heavy else Severity.NOTE,
            f"{kind}: {len(found)} compressed{told}",
            "each one that changes comes whole: nothing of the old one is found in it",
            cure,
            named(found),
        )


def _by_kind(image: Survey) -> dict[str, Counter[str]]:
    """Compressed files (or offsets) and their bytes, by what they are for."""
    packed = [v for v in image.volumes if v.packed is not None and v.packed.codec]
    groups: dict[str, Counter[str]] = {}
    for stream in image.streams:
        if any(v.offset <= stream.offset < v.offset + v.length for v in packed):
            continue
        place = image.owners.at(stream.offset)
        if place is None or not place.file:
            if any(v.tree is not None for v in image.volumes):
                continue  # free blocks and the like: a finding of their own
            name, length = f"{stream.kind} at {amount(stream.offset)}", 0
        else:
            name = place.name
            # Within a file nobody knows how much of it the stream is.
            begins = place.first and stream.offset == place.offset
            length = _length(image, name) if begins else 0
        group = groups.setdefault(_kind(name, stream), Counter())
        group[name] = max(group[name], length)
    return groups


def _length(image: Survey, path: str) -> int:
    found = (v.tree.files.get(path) for v in image.volumes if v.tree is not None)
    return next((entry.size for entry in found if entry is not None), 0)


def _kind(name: str, stream: Stream) -> str:
    for kind, words, streams, _ in _KINDS:
        if any(word in stream.kind for word in streams):
            return kind
        if any(word in name for word in words):
            return kind
    return "files"


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
