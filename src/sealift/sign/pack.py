"""Build a release: an image becomes a container, its facts, and a signing request.

The image is read once, in segments of 1 MiB; memory does not grow with it. Nothing
appears under the release's name before all of it is there.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.core.container import IMAGE_MAX
from sealift.core.errors import (
    ConflictError,
    InvalidConfigError,
    LengthError,
    LimitError,
    RefusedError,
    UnsafeNameError,
)
from sealift.core.packer import pack_full
from sealift.core.streams import PRESET
from sealift.core.types import Artifact
from sealift.core.version import compare
from sealift.repo import image, signing
from sealift.repo.entries import Listed, check_must_match
from sealift.repo.files import read_bounded, translated, write_atomic
from sealift.repo.fresh import fresh_directory, require_free
from sealift.sign.release import Release, propose

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

    from sealift.core.packer import Packed
    from sealift.sign.desk import Desk

    Report = Callable[[str, int, int], None]

__all__ = ["Description", "check_line", "pack"]

SBOM_BYTES_MAX = 256 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,63}")

OLDER_VERSION = "older-version"
LOWER_COUNTER = "lower-counter"


@dataclass(frozen=True, slots=True)
class Description:
    """What the vendor says about an image."""

    product: str
    component: str
    version: str
    hardware_ids: tuple[str, ...]
    counter: int

    def check(self) -> None:
        """Refuse names that are no plain file names, before any byte is read.

        Raises:
            UnsafeNameError, RefusedError, LimitError: with what is wrong.
        """
        for text, form in (
            (self.product, _NAME),
            (self.component, _NAME),
            (self.version, _VERSION),
        ):
            if not form.fullmatch(text) or text.endswith("."):
                raise UnsafeNameError(
                    f"{text[:64]!r} cannot be part of a file name",
                    hint="letters, digits and . _ - (in versions also + ~ ^), "
                    "beginning with a letter or digit, at most 64",
                )
        if not self.hardware_ids or len(set(self.hardware_ids)) != len(
            self.hardware_ids
        ):
            raise RefusedError(
                "a release names the hardware it is for, each id once",
                hint="--hardware-id ID, repeated for several",
            )
        check_must_match(self.hardware_ids, self.counter)

    @property
    def path(self) -> str:
        """The TUF target path."""
        return f"{self.product}/{self.component}-{self.version}.img"

    @property
    def file(self) -> str:
        """The container's file name; a server keeps all of them side by side."""
        return f"{self.product}-{self.component}-{self.version}.full"


# ── packing ──────────────────────────────────────────────────────────────────────────
def pack(
    source: Path,
    target: Path,
    description: Description,
    desk: Desk,
    *,
    now: datetime,
    accept: Collection[str] = (),
    sbom: Path | None = None,
    preset: int = PRESET,
    dry_run: bool = False,
    progress: Report = lambda *_: None,
) -> Release | None:
    """Make the release directory ``target``; ``None`` if ``dry_run`` stopped before.

    ``accept`` may hold ``older-version`` and ``lower-counter``.

    Raises:
        UnsafeNameError, RefusedError: a name, a version that does not go up, a counter
            that goes down. LimitError: an empty or too large image, or a value out of
            range. LengthError: the image changed while it was read.
        InvalidConfigError, SpaceError: a file cannot be read or written.
    """
    description.check()
    current = desk.targets()
    known = image.artifacts(current.signed) if current is not None else {}
    check_line(description, list(known.values()), accept)
    digest = None if sbom is None else _sbom_digest(sbom)
    with _opened(source) as (descriptor, length):
        require_free(target)
        if dry_run:
            return None
        with fresh_directory(target, mode=0o755) as draft:
            packed = _packed(descriptor, length, draft, description, preset, progress)
            sequence = 1 + max((entry.sequence for entry in known.values()), default=0)
            release = Release(
                Listed(_artifact(description, packed), sequence, digest),
                packed.container(description.file),
                sbom.name if sbom is not None else None,
                source.name,
            )
            _write_papers(draft, release, desk, now)
        return release


def check_line(
    description: Description, known: list[Listed], accept: Collection[str]
) -> None:
    """Refuse a version that does not go up, or a counter that goes down (W4).

    Raises:
        RefusedError: with the word that would accept it. ConflictError: that very
            version is released already.
    """
    line = f"{description.product}/{description.component}"
    for entry in known:
        other = entry.artifact
        if other.name == description.path:
            raise ConflictError(
                f"{other.name} is released already",
                hint="a released name is never used again: choose the next version",
            )
        if entry.line != line:
            continue
        if compare(description.version, other.version) <= 0:
            _refuse_unless(
                OLDER_VERSION,
                accept,
                f"version {description.version} is not above {other.version}, "
                f"which is listed",
            )
        if description.counter < other.release_counter:
            _refuse_unless(
                LOWER_COUNTER,
                accept,
                f"release counter {description.counter} is below "
                f"{other.release_counter} of {other.version}; devices that run it "
                f"will refuse this one",
            )


def _refuse_unless(word: str, accept: Collection[str], reason: str) -> None:
    if word not in accept:
        raise RefusedError(reason, hint=f"if that is meant: --accept {word}")


def _packed(
    descriptor: int,
    length: int,
    draft: Path,
    description: Description,
    preset: int,
    progress: Report,
) -> Packed:
    """Write the container; threads serve, for LZMA runs outside the interpreter."""
    before = os.fstat(descriptor)
    try:
        with (
            _pool() as pool,
            tempfile.TemporaryFile(dir=draft) as spool,
            (draft / description.file).open("xb") as out,
        ):
            packed = pack_full(
                lambda offset, count: _read_at(descriptor, offset, count),
                length,
                spool=spool,
                out=out,
                preset=preset,
                apply=pool.map,
                progress=lambda done, total: progress("packing", done, total),
            )
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise translated(draft / description.file, error, "written") from error
    after = os.fstat(descriptor)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise LengthError("the image changed while it was packed", hint="pack it again")
    return packed


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that do not go on with what nobody waits for any more."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _artifact(description: Description, packed: Packed) -> Artifact:
    return Artifact(
        name=description.path,
        length=packed.image_length,
        sha256=packed.image_sha256,
        sha512=None,
        segment_size=packed.segment_size,
        segment_root=packed.segment_root,
        hardware_ids=description.hardware_ids,
        release_counter=description.counter,
        version=description.version,
    )


def _write_papers(draft: Path, release: Release, desk: Desk, now: datetime) -> None:
    request = signing.request_to_json(propose(release, desk, now))
    facts = json.dumps(release.to_json(), indent=2, sort_keys=True).encode() + b"\n"
    write_atomic(draft / "release.json", facts, mode=0o644)
    write_atomic(draft / "request.json", request, mode=0o644)


# ── files ────────────────────────────────────────────────────────────────────────────
def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        piece = os.pread(descriptor, count - len(pieces), offset + len(pieces))
        if not piece:
            break
        pieces += piece
    return bytes(pieces)


@contextmanager
def _opened(source: Path) -> Iterator[tuple[int, int]]:
    """The image's descriptor and length: a regular file, or a block device."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise translated(source, error, "read") from error
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
            raise InvalidConfigError(f"{source} is neither a file nor a block device")
        length = os.lseek(descriptor, 0, os.SEEK_END)
        if not 0 < length <= IMAGE_MAX:
            raise LimitError(
                f"{source} has {length} bytes",
                hint=f"an image has 1 to {IMAGE_MAX} bytes (64 GiB)",
            )
        yield descriptor, length
    finally:
        os.close(descriptor)


def _sbom_digest(path: Path) -> bytes:
    raw = read_bounded(path, SBOM_BYTES_MAX)
    if not raw:
        raise InvalidConfigError(f"{path} is empty", hint="an SBOM lists components")
    return sha256(raw).digest()
