"""Putting files onto an EFI system partition so that a cut costs a try, never a file.

A file is written beside, in ``EFI/sealift``, in pieces; flushed, read back from the
medium, and compared; only then it gets its name where the loader looks (device-D6). It
gets another name by being copied to it, and removed under the old one once the new one
is safe: a rename would lose both in a cut (device-D4).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from sealift.core.errors import SlotError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sealift.agent.esp import Partition

__all__ = ["OURS", "PIECE_BYTES", "TEMPORARY", "clean", "digest_of", "put", "retitle"]

OURS: Final = "EFI/sealift"
"""Where files lie that no loader starts."""
TEMPORARY: Final = f"{OURS}/new.tmp"
PIECE_BYTES: Final = 256 * 1024
"""How much of a file is in memory at a time."""

_RECOVERED: Final = re.compile(r"fsck[0-9]{4}\.rec")


def put(
    esp: Partition,
    name: str,
    pieces: Iterable[bytes],
    sha256: bytes,
    look: Callable[[str], None] = lambda _name: None,
) -> None:
    """Write a file and give it ``name``, if what the medium holds has the digest.

    ``look`` may look at the file before that, and raise.

    Raises:
        SlotError: something else was read back; ``name`` is as it was. SpaceError,
        BootError: the partition is full or refuses.
    """
    esp.create(TEMPORARY)
    for piece in pieces:
        esp.append(TEMPORARY, piece)
    esp.flush(TEMPORARY)
    try:
        if digest_of(esp, TEMPORARY) != sha256:
            raise SlotError(
                f"the boot file read back for {name} is not the signed one",
                hint="the slot or the EFI system partition lost or changed bytes",
            )
        look(TEMPORARY)
    except BaseException:
        esp.remove(TEMPORARY)
        raise
    esp.rename(TEMPORARY, name)
    esp.flush(name)  # until then a vfat has the name with length 0
    esp.sync()


def retitle(esp: Partition, old: str, new: str) -> None:
    """Copy ``old`` to ``new``, then remove ``old``: one of them is always whole.

    Repeated after a cut it completes.

    Raises:
        SlotError: the copy reads back differently; ``old`` is untouched. SpaceError,
        BootError: the partition is full or refuses.
    """
    sha256 = digest_of(esp, old)
    if new.rpartition("/")[2] not in esp.files(new.rpartition("/")[0]) or (
        digest_of(esp, new) != sha256
    ):
        put(esp, new, _pieces(esp, old), sha256)
    else:
        esp.flush(new)
        esp.sync()
    esp.remove(old)
    esp.sync()


def clean(esp: Partition, directory: str) -> None:
    """Remove what cuts leave: our temporary, empty files in ``directory``, and what
    ``fsck.fat`` made of lost clusters (device-D11). Nothing of it is in use.

    Raises:
        BootError: the partition refuses.
    """
    found = [
        *(name for name in esp.files("") if _RECOVERED.fullmatch(name.lower())),
        *(f"{OURS}/{name}" for name in esp.files(OURS) if name.endswith(".tmp")),
        *(
            f"{directory}/{name}"
            for name, size in esp.files(directory).items()
            if not size and name.startswith("sealift-")
        ),
    ]
    for name in found:
        esp.remove(name)
    if found:
        esp.sync()


def digest_of(esp: Partition, name: str) -> bytes:
    """SHA-256 of a file, a piece at a time."""
    digest = hashlib.sha256()
    for piece in _pieces(esp, name):
        digest.update(piece)
    return digest.digest()


def _pieces(esp: Partition, name: str) -> Iterator[bytes]:
    offset = 0
    while piece := esp.read(name, offset, PIECE_BYTES):
        yield piece
        offset += len(piece)
