"""Whether the boot file and the root of an image are those of one release.

An image that boots verified is

    data ‖ verity superblock ‖ hash tree ‖ padding ‖ boot file

and says three times which root it means: in the signed metadata (``types.Bootable``),
by the bytes of its data, and in the command line inside the boot file, which the
loader's own signature covers. :func:`check` requires that all three agree:

1. The parts lie in the image one behind the other.
2. The boot file is, byte for byte, the one the metadata names.
3. Its command line names the signed root, salt and number of blocks, each exactly once;
   in a FIT the command line of every configuration does, for which one a loader takes
   by itself no signature says (C-11).
4. The superblock says the same.
5. The tree over the data is the tree that is there, and its root the signed one.

What was signed but does not belong together is ``device.boot``; bytes that changed are
``device.slot``. Signatures on the boot file are the loader's matter, and the desk's.
Everything is read once, a little at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from sealift.core import verity
from sealift.core.errors import BootError, FormatError, SlotError
from sealift.core.fdt import Fdt, Fit, Value, boot_arguments, read_fit
from sealift.core.pe import read_pe
from sealift.core.types import Bootable, BootKind

COMMAND_LINE_MAX: Final = 4096
"""Bytes of the longest command line; x86 kernels take half of that."""
FACTS: Final = ("roothash", "sealift.salt", "sealift.blocks")
"""The words of a command line by which an initramfs finds the root."""

ReadAt = Callable[[int, int], bytes]
"""``read(offset, length)`` gives those bytes, fewer only where the image ends."""

_PIECE: Final = 1 << 17


def words(root_hash: bytes, salt: bytes, data_blocks: int) -> tuple[str, ...]:
    """What a command line says of its root, word by word."""
    values = (root_hash.hex(), salt.hex(), str(data_blocks))
    return tuple(f"{name}={value}" for name, value in zip(FACTS, values, strict=True))


def check(bootable: Bootable, read: ReadAt, length: int) -> None:
    """See that the image of ``length`` bytes at ``read`` is what ``bootable`` says.

    Raises:
        BootError: boot file, root and metadata are not those of one release.
        SlotError: bytes of the image are not what they were.
    """
    inside = _Image(read)
    _check_layout(bootable, length)
    _check_boot_file(bootable, inside)
    for line in command_lines(bootable.kind, _part(bootable, inside), bootable.length):
        check_line(line, bootable)
    check_root(bootable, inside)


def check_line(line: str, bootable: Bootable) -> None:
    """The command line names the signed root, and nothing else could be taken for it.

    Raises:
        BootError: it does not, or in a way that could be read otherwise.
    """
    found = line.split(" ")
    wanted = words(bootable.root_hash, bootable.salt, bootable.data_blocks)
    if '"' in line or not line.isprintable() or not line.isascii():
        raise BootError("the boot file's command line has quotes or odd characters")
    for name, word in zip(FACTS, wanted, strict=True):
        if line.count(f"{name}=") != 1:
            raise BootError(
                f"the boot file's command line does not say {name}= exactly once"
            )
        if word not in found:
            raise BootError(
                f"the boot file's command line has another {name} than the release",
                hint="the boot file and the root are not those of one release",
            )


# ── the parts ────────────────────────────────────────────────────────────────────────
class _Image:
    """Reads all that is asked for, or says that the slot is too short."""

    def __init__(self, read: ReadAt) -> None:
        self._read = read

    def __call__(self, offset: int, length: int) -> bytes:
        found = self._read(offset, length)
        if len(found) != length:
            raise SlotError("the slot ends before the image does")
        return found


def tree_offset(data_blocks: int) -> int:
    """Where the hash tree begins: behind the data and the superblock, in bytes."""
    return (data_blocks + 1) * verity.BLOCK


def _check_layout(bootable: Bootable, length: int) -> None:
    try:
        tree = verity.tree_blocks(bootable.data_blocks) * verity.BLOCK
    except FormatError as error:
        raise BootError(f"no image has such a root: {error.message}") from error
    end = tree_offset(bootable.data_blocks) + tree
    if bootable.offset % verity.BLOCK or not (
        end <= bootable.offset < bootable.offset + bootable.length <= length
    ):
        raise BootError("the boot file would lie in the root, or outside the image")


def _check_boot_file(bootable: Bootable, read: ReadAt) -> None:
    digest = hashlib.sha256()
    end = bootable.offset + bootable.length
    for at in range(bootable.offset, end, _PIECE):
        digest.update(read(at, min(_PIECE, end - at)))
    if digest.digest() != bootable.sha256:
        raise SlotError("the boot file in the slot is not the signed one")


def check_root(bootable: Bootable, read: ReadAt) -> None:
    """Superblock, tree and data agree with each other and with the signed root hash.

    Raises:
        BootError: they are those of another root. SlotError: they do not agree.
    """
    blocks = bootable.data_blocks
    try:
        found = verity.Superblock.decode(read(blocks * verity.BLOCK, verity.BLOCK))
    except FormatError as error:
        raise SlotError(f"no verity superblock behind the root: {error}") from error
    if (found.data_blocks, found.salt) != (blocks, bootable.salt):
        raise BootError("the verity superblock describes another root")
    start = tree_offset(blocks)

    def compare(offset: int, block: bytes) -> None:
        if read(start + offset, len(block)) != block:
            raise SlotError("the root and its hash tree do not agree")

    if verity.build(read, blocks, bootable.salt, compare) != bootable.root_hash:
        raise BootError(
            "the root in the slot has another root hash than the release",
            hint="the boot file and the root are not those of one release",
        )


# ── command lines ────────────────────────────────────────────────────────────────────
def command_lines(kind: BootKind, read: ReadAt, length: int) -> tuple[str, ...]:
    """Every command line a boot file of ``length`` bytes at ``read`` may start with.

    Raises:
        BootError: not such a file, or one that says it in no way or in several.
    """
    try:
        if kind is BootKind.UKI:
            return (_uki_line(read, length),)
        return _fit_lines(read, length)
    except FormatError as error:
        raise BootError(f"the boot file is no {kind}: {error.message}") from error


def _part(bootable: Bootable, read: ReadAt) -> ReadAt:
    """The boot file alone; nothing outside it can be read."""

    def inside(offset: int, length: int) -> bytes:
        length = max(0, min(length, bootable.length - offset))
        return read(bootable.offset + offset, length) if length else b""

    return inside


def _uki_line(read: ReadAt, length: int) -> str:
    found = read_pe(read, length)
    raw = found.content(read, ".cmdline", COMMAND_LINE_MAX)
    if raw is None or found.section(".linux") is None:
        raise BootError("the boot file has no .linux or no .cmdline: not a UKI")
    text, _, rest = raw.partition(b"\0")
    if rest.strip(b"\0") or not text.isascii():
        raise BootError("the boot file's command line does not end where it ends")
    return text.decode("ascii").rstrip("\n")


def _fit_lines(read: ReadAt, length: int) -> tuple[str, ...]:
    fit = read_fit(read, length)
    return tuple(_fit_line(fit, name, read) for name in fit.configurations)


def _fit_line(fit: Fit, name: str, read: ReadAt) -> str:
    uses = fit.configurations[name].uses
    for kind in ("kernel", "fdt"):
        if len(uses.get(kind, ())) != 1:
            raise BootError(f"configuration {name} has not exactly one {kind}")
    _check_covered(fit, name)
    tree = fit.images[uses["fdt"][0]]
    if tree.compression != "none":
        raise BootError(f"the device tree {tree.name} is compressed")
    line = boot_arguments(Fdt(_within(read, tree.data), tree.data.length))
    if line is None:
        raise BootError(f"the device tree {tree.name} has no /chosen/bootargs")
    return line


def _check_covered(fit: Fit, name: str) -> None:
    """A signature covers whatever the configuration uses, by kind and node by node.

    A loader may take the list of nodes from the signature itself, where nothing covers
    it (A-25, CVE-2026-46728).
    """
    found = fit.configurations[name]
    nodes = {"/", f"/configurations/{name}"}
    for image in (fit.images[one] for names in found.uses.values() for one in names):
        nodes |= {f"/images/{image.name}"}
        nodes |= {f"/images/{image.name}/{node}" for node in image.hashes}
        if not image.hashes:
            raise BootError(f"image {image.name} of the boot file has no hash")
    for signature in found.signatures:
        covered = set(found.uses) <= set(signature.images)
        if signature.signed and covered and nodes <= set(signature.nodes):
            return
    raise BootError(f"no signature covers all that configuration {name} uses")


def _within(read: ReadAt, part: Value) -> ReadAt:
    def inside(offset: int, length: int) -> bytes:
        length = max(0, min(length, part.length - offset))
        return read(part.offset + offset, length) if length else b""

    return inside
