"""Build a release: an image becomes a container, its facts, and a signing request.

```
REL/PRODUCT-COMPONENT-VERSION.full   the container devices fetch
REL/release.json   the facts: artifact, container, where the SBOM is
REL/request.json   the signing request: Image Targets with the artifact in it
```

The image is read once, in segments of 1 MiB; memory does not grow with it. Nothing
appears under the release's name before all of it is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.core.canonical import parse_object
from sealift.core.container import IMAGE_MAX
from sealift.core.errors import (
    InvalidConfigError,
    LengthError,
    LimitError,
    MalformedError,
    RefusedError,
    StateError,
    UnsafeNameError,
)
from sealift.core.payload import PRESET, pack_full
from sealift.core.types import Artifact, Container
from sealift.core.version import compare
from sealift.repo import image, signing
from sealift.repo.entries import Listed
from sealift.repo.files import read_as, read_bounded, translated, write_atomic
from sealift.repo.repository import write_new

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

    from sealift.core.payload import Packed
    from sealift.sign.desk import Desk

    Report = Callable[[str, int, int], None]

__all__ = [
    "Description",
    "Release",
    "container_of",
    "keep",
    "pack",
    "propose",
    "propose_renewal",
    "read_release",
]

RELEASE_BYTES_MAX = 1 << 20
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
            UnsafeNameError, RefusedError: with what is wrong.
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

    @property
    def path(self) -> str:
        """The TUF target path."""
        return f"{self.product}/{self.component}-{self.version}.img"

    @property
    def file(self) -> str:
        """The container's file name; a server keeps all of them side by side."""
        return f"{self.product}-{self.component}-{self.version}.full"


@dataclass(frozen=True, slots=True)
class Release:
    """The facts of a packed release; ``release.json``."""

    listed: Listed
    container: Container
    sbom: str | None = None
    image: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON values."""
        sbom = self.listed.sbom_sha256
        return {
            "schema": 1,
            "artifact": self.listed.artifact.to_json(),
            "sequence": self.listed.sequence,
            "container": self.container.to_json(),
            "sbom": None if sbom is None else {"name": self.sbom, "sha256": sbom.hex()},
            "image": self.image,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Release:
        """Read what :meth:`to_json` wrote.

        Raises:
            MalformedError: a member is missing or of a wrong type.
        """
        try:
            if found["schema"] != 1 or type(found["sequence"]) is not int:
                raise ValueError("schema or sequence")
            sbom = found["sbom"]
            digest = None if sbom is None else bytes.fromhex(sbom["sha256"])
            listed = Listed(
                Artifact.from_json(found["artifact"]), found["sequence"], digest
            )
            return cls(
                listed,
                Container.from_json(found["container"]),
                None if sbom is None else str(sbom["name"]),
                str(found["image"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedError(f"release.json: {error} is missing or wrong") from (
                error
            )


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
        _require_free(target)
        if dry_run:
            return None
        with _making(target) as draft:
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


def propose(release: Release, desk: Desk, now: datetime) -> signing.Request:
    """A signing request that adds the release to the newest Targets of the desk.

    Raises:
        ConflictError: its name is taken. StateError: the desk has no Root.
    """
    current = desk.targets()
    proposed = image.propose_targets(
        current.signed if current is not None else None,
        add=[release.listed],
        now=now,
        lifetime=desk.policy.targets_lifetime,
    )
    return signing.propose("image", proposed, base=current, root=desk.root("image"))


def propose_renewal(
    desk: Desk, remove: Collection[str], now: datetime
) -> signing.Request:
    """A signing request for the same Targets, later to expire, without some images.

    Raises:
        NotFoundError: an image to remove is not listed. StateError: nothing to renew.
    """
    current = desk.targets()
    if current is None:
        raise StateError("this desk has no Targets yet")
    lifetime = desk.policy.targets_lifetime
    proposed = image.propose_targets(
        current.signed, remove=remove, now=now, lifetime=lifetime
    )
    return signing.propose("image", proposed, base=current, root=desk.root("image"))


def container_of(directory: Path) -> Path:
    """The container file of a release directory, as long as its facts say.

    Raises:
        InvalidConfigError, LimitError, MalformedError: the release is not whole.
        LengthError: the container is not the one that was packed.
    """
    facts = read_release(directory).container
    path = directory / facts.name
    if not path.is_file():
        raise InvalidConfigError(f"{path} is missing", hint="pack the release again")
    if path.stat().st_size != facts.length:
        raise LengthError(
            f"{path} does not have {facts.length} bytes", hint="pack the release again"
        )
    return path


def keep(desk: Desk, request: signing.Request, raw: bytes, now: datetime) -> None:
    """Keep published Targets at the desk; the next release starts from them.

    Raises:
        as ``repo.image.check_targets``; ConflictError: the desk has another file of
        that version.
    """
    current = desk.targets()
    if current is None or request.version > current.signed.version:
        image.check_targets(
            desk.root("image").signed,
            raw,
            None if current is None else current.signed,
            now=now,
        )
    write_new(desk.store("image"), "targets", request.version, raw)


def read_release(directory: Path) -> Release:
    """The facts in a release directory.

    Raises:
        InvalidConfigError, LimitError, MalformedError: it is not one.
    """
    return read_as(
        directory / "release.json",
        RELEASE_BYTES_MAX,
        lambda raw: Release.from_json(parse_object(raw, RELEASE_BYTES_MAX)),
    )


def check_line(
    description: Description, known: list[Listed], accept: Collection[str]
) -> None:
    """Refuse a version that does not go up, or a counter that goes down (W4).

    Raises:
        RefusedError: with the word that would accept it.
    """
    line = f"{description.product}/{description.component}"
    for entry in known:
        other = entry.artifact
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
            ThreadPoolExecutor(os.cpu_count() or 1) as pool,
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


def _require_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise InvalidConfigError(
            f"{target} exists already", hint="give --out a new directory"
        )


@contextmanager
def _making(target: Path) -> Iterator[Path]:
    """A directory that gets its name only when the body is through."""
    place = target.absolute()
    draft = place.with_name(f".{place.name}.new-{os.getpid()}")
    try:
        draft.mkdir(mode=0o755)
        yield draft
        draft.rename(place)
    except OSError as error:
        raise translated(target, error, "made") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sbom_digest(path: Path) -> bytes:
    raw = read_bounded(path, SBOM_BYTES_MAX)
    if not raw:
        raise InvalidConfigError(f"{path} is empty", hint="an SBOM lists components")
    return sha256(raw).digest()
