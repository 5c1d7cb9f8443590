"""The containers of a release: the full one, deltas to it, sealed or in the open.

A content key is drawn for each sealed image, wrapped for the server and forgotten: it
is never written. What is plain of a sealed container lies in files without a name only.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from sealift.core.encryption import CONTENT_KEY, SALT, upload_info, wrap
from sealift.core.errors import LengthError, RefusedError
from sealift.core.hpke import new_private
from sealift.core.packer import pack_full
from sealift.core.streams import PRESET
from sealift.core.types import Seal, Wrap
from sealift.payload.fence.process import Job, SealWith, Source, run
from sealift.payload.sealing import SUFFIX, seal_container
from sealift.repo.files import digest_of, translated
from sealift.sign.release import container_of, read_release

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from sealift.core.hpke import Recipient
    from sealift.core.packer import Packed
    from sealift.core.types import Container
    from sealift.payload.images import FileImage

__all__ = [
    "OPENLY",
    "Base",
    "Containers",
    "Maker",
    "Sealing",
    "Travel",
    "base_of",
    "bases_of",
]


class Sealing:
    """The content key of one image, and the server it is wrapped for."""

    def __init__(self, recipient: Recipient, draw: Callable[[int], bytes]) -> None:
        """Draw a content key; ``draw(count)`` gives random bytes."""
        self._recipient = recipient
        self._draw = draw
        self._key = draw(CONTENT_KEY)

    def fresh(self) -> SealWith:
        """What seals one more file: the key, and a salt of its own."""
        return SealWith(self._key, self._draw(SALT))

    def wrapped(self, path: str, sealed_sha256: bytes) -> Seal:
        """The content key for the server, bound to target path and full container."""
        kem, public = self._recipient.kem, self._recipient.public
        ephemeral = new_private(kem, self._draw)
        info = upload_info(path, sealed_sha256)
        data = wrap(kem, public, self._key, info, ephemeral)
        return Seal(Wrap(kem, self._recipient.kid, data))


@dataclass(frozen=True, slots=True)
class Travel:
    """How an image is to travel: LZMA effort, secrecy, images a delta starts from."""

    preset: int = PRESET
    sealing: Sealing | None = None
    bases: Sequence[Path] = ()

    @property
    def sealed(self) -> bool:
        """Whether nobody on the way can read it."""
        return self.sealing is not None


OPENLY = Travel()
"""For everybody to read, and without deltas."""


@dataclass(frozen=True, slots=True)
class Containers:
    """What was made: facts of the plain full container, and of the files there are."""

    packed: Packed
    full: Container
    deltas: tuple[Container, ...]


# ── bases ────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Base:
    """An image a delta starts from, and where it can be read."""

    path: Path
    sha256: bytes
    source: Source


def base_of(path: Path) -> Base:
    """The base in an image file, or in a release directory with a plain container.

    Raises:
        RefusedError: the release is sealed, and its content key is gone.
        InvalidConfigError, LimitError, MalformedError, LengthError: neither an image
            nor a whole release.
    """
    if not path.is_dir():
        return Base(path, digest_of(path), Source(path.absolute()))
    release = read_release(path)
    if release.seal is not None:
        raise RefusedError(
            f"{path} is sealed, and its content key was not kept",
            hint="give the image it was packed from",
        )
    artifact = release.listed.artifact
    source = Source(container_of(path).absolute(), artifact, release.container)
    return Base(path, artifact.sha256, source)


def bases_of(travel: Travel, secret: Collection[bytes]) -> list[Base]:
    """The bases, if a delta may start from each of them.

    ``secret`` are the digests of images that were released sealed.

    Raises:
        RefusedError: one twice, or a secret one for an image in the open: with it and
            the difference anybody could make the base. Else as :func:`base_of`.
    """
    bases = [base_of(path) for path in travel.bases]
    if len({base.sha256 for base in bases}) != len(bases):
        raise RefusedError("one base is given twice", hint="each --base once")
    for base in bases:
        if base.sha256 in secret and not travel.sealed:
            raise RefusedError(
                f"{base.path} was released sealed: a delta from it to an image in the "
                f"open would tell what it holds",
                hint="--seal this release as well, or leave that base out",
            )
    return bases


# ── containers ───────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the containers of ``image``, which was opened at ``path``, in a directory.

    ``progress(step, done, total)`` counts bytes.
    """

    image: FileImage
    path: Path
    directory: Path
    travel: Travel
    progress: Callable[[str, int, int], None]

    def make(self, name: str, bases: Sequence[Base]) -> Containers:
        """The full container ``name``, and the deltas that are worth it.

        Raises:
            RefusedError: a base is the very image. LengthError: image or base changed
                while they were read. DeltaError, and as ``payload.process.run``.
            InvalidConfigError, SpaceError: a file cannot be read or written.
        """
        packed, full = self._full(name)
        for base in bases:
            if base.sha256 == packed.image_sha256:
                raise RefusedError(f"{base.path} is the very image that is packed")
        deltas = [self._delta(base, packed, full) for base in bases]
        return Containers(packed, full, tuple(filter(None, deltas)))

    def _full(self, name: str) -> tuple[Packed, Container]:
        """Facts of the plain container, and of the file that is there."""
        before, sealing = _state(self.path), self.travel.sealing
        try:
            if sealing is None:
                with (self.directory / name).open("xb") as out:
                    packed = self._packed(out)
                    _durable(out)
                made = packed.container(name)
            else:
                with tempfile.TemporaryFile(dir=self.directory) as out:
                    packed = self._packed(out)
                    made = self._sealed(packed, name, out, sealing.fresh())
        except OSError as error:
            raise translated(self.directory / name, error, "written") from error
        if _state(self.path) != before:
            raise _changed()
        return packed, made

    def _delta(self, base: Base, packed: Packed, full: Container) -> Container | None:
        """The delta from ``base``; ``None`` if devices are better off without."""
        seal = self.travel.sealing.fresh() if self.travel.sealing else None
        name = f"{packed.image_sha256.hex()}-{base.sha256.hex()}.delta"
        name += SUFFIX if seal else ""
        job = Job(base.source, Source(self.path.absolute()), seal=seal)
        report = run(job, self.directory / name, progress=self.progress)
        found = report.packed
        if (found.image_sha256, found.base_sha256) != (
            packed.image_sha256,
            base.sha256,
        ):
            raise _changed()
        if not report.worth(full.length):
            (self.directory / name).unlink()
            return None
        return found.container(name)

    def _packed(self, out: BinaryIO) -> Packed:
        """Threads serve, for LZMA runs outside the interpreter."""
        with _pool() as pool, tempfile.TemporaryFile(dir=self.directory) as spool:
            return pack_full(
                self.image.read_at,
                self.image.length,
                spool=spool,
                out=out,
                preset=self.travel.preset,
                apply=pool.map,
                progress=lambda done, total: self.progress("packing", done, total),
            )

    def _sealed(
        self, packed: Packed, name: str, plain: BinaryIO, seal: SealWith
    ) -> Container:
        plain.seek(0)
        with (self.directory / (name + SUFFIX)).open("xb") as out:
            made = seal_container(
                packed.container(name),
                plain,
                out,
                image_sha256=packed.image_sha256,
                content_key=seal.content_key,
                salt=seal.salt,
                progress=lambda done: self.progress("sealing", done, packed.length),
            )
            _durable(out)
        return made


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that do not go on with what nobody waits for any more."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise translated(path, error, "read") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _changed() -> LengthError:
    return LengthError("the image changed while it was packed", hint="pack it again")


def _durable(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())
