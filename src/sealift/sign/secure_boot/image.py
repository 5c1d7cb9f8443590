"""``secure-boot image``: root, tree and boot file as one image, and the facts about it.

The boot file lies behind the root in the same slot, so one signature and one digest
cover both, and neither can be exchanged alone. U-Boot reads it there, at an offset it
knows; for other loaders the agent puts a copy where they look.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sealift.core import bootable, verity
from sealift.core.bootable import ReadAt, tree_offset
from sealift.core.canonical import parse_object
from sealift.core.errors import (
    DeviceError,
    FormatError,
    InvalidConfigError,
    RefusedError,
)
from sealift.core.fdt import read_fit
from sealift.core.pe import read_pe
from sealift.core.types import Bootable, BootKind
from sealift.repo.files import digest_of, read_as, translated, write_atomic
from sealift.sign.secure_boot.tools import draft_of, reader
from sealift.sign.secure_boot.verity import read_root

if TYPE_CHECKING:
    from typing import BinaryIO

    Report = Callable[[str, int, int], None]

__all__ = [
    "FACTS",
    "boot_file_is_signed",
    "check",
    "join",
    "judge",
    "kind_of",
    "read_facts",
]

FACTS: Final = ".boot.json"
"""What the facts of ``IMG`` are called behind its name."""
_FACTS_MAX: Final = 4096
_COPY: Final = 1 << 20


def join(
    root: Path,
    boot: Path,
    out: Path,
    *,
    offset: int | None = None,
    progress: Report = lambda *_: None,
) -> Bootable:
    """Write ``root ‖ tree ‖ padding ‖ boot file`` and its facts, after checking all.

    ``root`` is what ``verity`` made. ``offset`` is where a loader looks for the boot
    file; without, it follows the tree.

    Raises:
        InvalidConfigError, SpaceError: a file cannot be read or written, or is not what
            it should be. RefusedError: the boot file is not for this root, is not
            signed where it has to be, or does not fit.
    """
    found = read_root(root, progress)
    tree = verity.tree_blocks(found.data_blocks) * verity.BLOCK
    end = tree_offset(found.data_blocks) + tree
    place = end if offset is None else offset
    if place % verity.BLOCK or place < end:
        raise RefusedError(
            f"the boot file cannot lie at {place}",
            hint=f"a multiple of {verity.BLOCK}, not below {end}, where the tree ends",
        )
    with draft_of(out) as scratch:
        made = scratch / "out"
        try:
            with made.open("wb") as into:
                _append(into, root, end)
                into.truncate(place)
                into.seek(place)
                _append(into, boot, None)
                into.truncate(-(-into.tell() // verity.BLOCK) * verity.BLOCK)
        except OSError as error:
            raise translated(out, error, "written") from error
        facts = Bootable(
            kind=kind_of(boot),
            offset=place,
            length=boot.stat().st_size,
            sha256=digest_of(boot),
            root_hash=found.root_hash,
            salt=found.salt,
            data_blocks=found.data_blocks,
        )
        check(made, facts, progress)
    raw = json.dumps(facts.to_json(), indent=2).encode() + b"\n"
    write_atomic(out.with_name(out.name + FACTS), raw, mode=0o644)
    return facts


def check(image: Path, facts: Bootable, progress: Report = lambda *_: None) -> None:
    """:func:`judge` for a file.

    Raises:
        RefusedError: as it. InvalidConfigError: the file cannot be read.
    """
    try:
        with image.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            judge(facts, reader(stream), length, image.name, progress)
    except OSError as error:
        raise translated(image, error, "read") from error


def judge(
    facts: Bootable,
    read: ReadAt,
    length: int,
    name: str,
    progress: Report = lambda *_: None,
) -> None:
    """See from the bytes that the image of that name is what its facts say.

    Raises:
        RefusedError: it is not, or boot file and root do not belong together.
    """

    def told(offset: int, size: int) -> bytes:
        progress("checking", min(offset + size, length), length)
        return read(offset, size)

    try:
        bootable.check(facts, told, length)
    except DeviceError as error:
        raise RefusedError(f"{name}: {error.message}", hint=error.hint) from error
    progress("checking", length, length)


def read_facts(path: Path) -> Bootable:
    """The facts in a file that :func:`join` wrote.

    Raises:
        InvalidConfigError: it cannot be read. FormatError: it does not have the form.
    """
    return read_as(
        path,
        _FACTS_MAX,
        lambda raw: Bootable.from_json(parse_object(raw, _FACTS_MAX)),
    )


def boot_file_is_signed(facts: Bootable, read: ReadAt) -> bool:
    """Whether the boot file in an image has a signature of its own bytes; not whose.

    Raises:
        FormatError: it is no boot file.
    """

    def inside(offset: int, length: int) -> bytes:
        length = max(0, min(length, facts.length - offset))
        return read(facts.offset + offset, length)

    if facts.kind is BootKind.UKI:
        found = read_pe(inside, facts.length)
        digest = found.digest(inside)
        return any(digest in inside(*where) for where in found.signatures)
    fit = read_fit(inside, facts.length)
    return all(
        any(signature.signed for signature in one.signatures)
        for one in fit.configurations.values()
    )


def kind_of(boot: Path) -> BootKind:
    """What a boot file is.

    Raises:
        InvalidConfigError: neither kind, or it cannot be read.
    """
    try:
        with boot.open("rb") as stream:
            length, read = os.fstat(stream.fileno()).st_size, reader(stream)
            head = read(0, 4)
            try:
                if head[:2] == b"MZ":
                    read_pe(read, length)
                    return BootKind.UKI
                read_fit(read, length)
            except FormatError as error:
                raise InvalidConfigError(
                    f"{boot} is neither a UKI nor a FIT image: {error.message}",
                    hint="sealift release secure-boot uki, or fit, makes one",
                ) from error
    except OSError as error:
        raise translated(boot, error, "read") from error
    return BootKind.FIT


def _append(into: BinaryIO, source: Path, length: int | None) -> None:
    """Copy a file, or so much of its beginning."""
    try:
        with source.open("rb") as stream:
            if length is None:
                shutil.copyfileobj(stream, into, _COPY)
                return
            while length:
                piece = stream.read(min(_COPY, length))
                if not piece:
                    raise InvalidConfigError(f"{source} ends before its hash tree does")
                into.write(piece)
                length -= len(piece)
    except OSError as error:
        raise translated(source, error, "read") from error
