"""``secure-boot verity``: a root file system, its superblock and its hash tree.

The tree is ours, ``veritysetup verify`` reads it again where it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sealift.core import verity
from sealift.core.bootable import tree_offset, words
from sealift.core.errors import FormatError, InvalidConfigError
from sealift.repo.files import translated
from sealift.sign.secure_boot.tools import draft_of

if TYPE_CHECKING:
    from typing import BinaryIO

    from sealift.sign.secure_boot.tools import Tools

    Report = Callable[[str, int, int], None]

__all__ = ["Root", "append", "read_root", "rehearse", "salt_of"]

_COPY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Root:
    """A root that a boot file can name."""

    data_blocks: int
    salt: bytes
    root_hash: bytes

    @property
    def words(self) -> tuple[str, ...]:
        """What the boot file's command line has to carry."""
        return words(self.root_hash, self.salt, self.data_blocks)

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values, and the words for the command line."""
        return {
            "root_hash": self.root_hash.hex(),
            "salt": self.salt.hex(),
            "data_blocks": self.data_blocks,
            "command_line": " ".join(self.words),
        }


def salt_of(name: str) -> bytes:
    """The salt of a release, out of its name: same input, same image (device-D37)."""
    return sha256(b"sealift verity salt\0" + name.encode()).digest()


def append(
    source: Path,
    out: Path,
    salt: bytes,
    tools: Tools,
    progress: Report = lambda *_: None,
) -> Root:
    """Write ``source`` to ``out``, padded to whole blocks, with its tree behind it.

    Raises:
        InvalidConfigError, SpaceError: a file cannot be read or written, or is empty;
            ``veritysetup`` found another tree. LimitError: no image is so large.
    """
    _check_salt(salt)
    with draft_of(out) as scratch:
        made = scratch / "out"
        try:
            with source.open("rb") as stream, made.open("w+b") as into:
                blocks = _copy(stream, into, source, progress)
                root = _grow(into, blocks, salt, progress)
        except OSError as error:
            raise translated(out, error, "written") from error
        if tools.has("veritysetup"):
            _verify(made, root, tools)
    return root


def rehearse(source: Path, salt: bytes, progress: Report = lambda *_: None) -> Root:
    """What :func:`append` would give; nothing is written.

    Raises:
        InvalidConfigError: the file cannot be read, or is empty. LimitError: no image
        is so large.
    """
    _check_salt(salt)
    try:
        with source.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            if not length:
                raise InvalidConfigError(f"{source} is empty")
            blocks = -(-length // verity.BLOCK)
            read = _reader(stream, "hashing", blocks, progress)
            root = verity.root_hash(
                lambda at, size: read(at, size).ljust(size, b"\0"), blocks, salt
            )
    except OSError as error:
        raise translated(source, error, "read") from error
    return Root(blocks, salt, root)


def read_root(path: Path, progress: Report = lambda *_: None) -> Root:
    """The root at the beginning of a file, its root hash recomputed from the data.

    Where it ends is told by the only superblock that fits: the one that says it stands
    behind as many blocks as there are before it.

    Raises:
        InvalidConfigError: no superblock fits, or the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            found = _superblock(stream)
            if found is None:
                raise InvalidConfigError(
                    f"{path} has no hash tree of ours",
                    hint="sealift release secure-boot verity makes one",
                )
            read = _reader(stream, "reading", found.data_blocks, progress)
            root = verity.root_hash(read, found.data_blocks, found.salt)
    except OSError as error:
        raise translated(path, error, "read") from error
    return Root(found.data_blocks, found.salt, root)


def _check_salt(salt: bytes) -> None:
    if len(salt) != 32:
        raise InvalidConfigError("a salt has 32 bytes, 64 hexadecimal digits")


def _copy(stream: BinaryIO, into: BinaryIO, source: Path, progress: Report) -> int:
    """Copy all of it, padded; how many blocks that made."""
    length = os.fstat(stream.fileno()).st_size
    done = 0
    while piece := stream.read(_COPY):
        into.write(piece)
        done += len(piece)
        progress("copying", done, max(length, done))
    if not done:
        raise InvalidConfigError(f"{source} is empty")
    into.write(bytes(-done % verity.BLOCK))
    into.flush()
    return -(-done // verity.BLOCK)


def _grow(into: BinaryIO, blocks: int, salt: bytes, progress: Report) -> Root:
    start = tree_offset(blocks)
    uuid = sha256(b"sealift verity uuid\0" + salt).digest()[:16]
    _write(into, blocks * verity.BLOCK, verity.Superblock(blocks, salt, uuid).encode())
    root = verity.build(
        _reader(into, "hashing", blocks, progress),
        blocks,
        salt,
        lambda offset, block: _write(into, start + offset, block),
    )
    into.flush()
    return Root(blocks, salt, root)


def _write(into: BinaryIO, offset: int, block: bytes) -> None:
    os.pwrite(into.fileno(), block, offset)


def _reader(
    stream: BinaryIO, step: str, blocks: int, progress: Report
) -> Callable[[int, int], bytes]:
    total = blocks * verity.BLOCK

    def read(offset: int, length: int) -> bytes:
        progress(step, min(offset + length, total), total)
        return os.pread(stream.fileno(), length, offset)

    return read


def _superblock(stream: BinaryIO) -> verity.Superblock | None:
    length = os.fstat(stream.fileno()).st_size
    for at in range(verity.BLOCK, length, verity.BLOCK):
        raw = os.pread(stream.fileno(), verity.BLOCK, at)
        if raw.startswith(b"verity\0\0"):
            with suppress(FormatError):  # the file system may hold one of its own
                found = verity.Superblock.decode(raw)
                if found.data_blocks == at // verity.BLOCK:
                    return found
    return None


def _verify(made: Path, root: Root, tools: Tools) -> None:
    tools.run(
        "veritysetup",
        "verify",
        f"--hash-offset={root.data_blocks * verity.BLOCK}",  # the superblock
        made,  # the data
        made,  # the tree, in the same file
        root.root_hash.hex(),
    )
