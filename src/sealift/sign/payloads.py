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
from sealift.core.types import Seal, Wrap
from sealift.payload.process import Job, SealWith, Source, run
from sealift.payload.sealing import SUFFIX, seal_container
from sealift.repo.files import digest_of, translated
from sealift.sign.release import container_of, read_release

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from sealift.core.hpke import Recipient
    from sealift.core.packer import Packed
    from sealift.core.types import Container
    from sealift.payload.images import FileImage

__all__ = ["Base", "Maker", "Sealing", "base_of", "require_bases"]


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


def require_bases(
    bases: Collection[Base], secret: Collection[bytes], *, sealed: bool
) -> None:
    """Refuse bases that no delta may start from.

    ``secret`` are the digests of images that were released sealed.

    Raises:
        RefusedError: one twice, or a secret one for an image in the open: with it and
            the difference anybody could make the base.
    """
    if len({base.sha256 for base in bases}) != len(bases):
        raise RefusedError("one base is given twice", hint="each --base once")
    for base in bases:
        if base.sha256 in secret and not sealed:
            raise RefusedError(
                f"{base.path} was released sealed: a delta from it to an image in the "
                f"open would tell what it holds",
                hint="--seal this release as well, or leave that base out",
            )


# ── containers ───────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the containers of ``image``, which was opened at ``path``, in a directory.

    ``progress(step, done, total)`` counts bytes.
    """

    image: FileImage
    path: Path
    directory: Path
    sealing: Sealing | None
    progress: Callable[[str, int, int], None]

    def full(self, name: str, preset: int) -> tuple[Packed, Container]:
        """The full container; facts of the plain one, and of the file that is there.

        Raises:
            LengthError: the image changed while it was read.
            InvalidConfigError, SpaceError: a file cannot be read or written.
        """
        before = _state(self.path)
        try:
            if self.sealing is None:
                with (self.directory / name).open("xb") as out:
                    packed = self._packed(out, preset)
                    _durable(out)
                made = packed.container(name)
            else:
                with tempfile.TemporaryFile(dir=self.directory) as out:
                    packed = self._packed(out, preset)
                    made = self._sealed(packed, name, out, self.sealing.fresh())
        except OSError as error:
            raise translated(self.directory / name, error, "written") from error
        if _state(self.path) != before:
            raise _changed()
        return packed, made

    def delta(self, base: Base, packed: Packed, full: Container) -> Container | None:
        """The delta from ``base``; ``None`` if devices are better off without.

        Raises:
            LengthError: base or image is another one than before.
            DeltaError, and as ``payload.process.run``.
        """
        seal = self.sealing.fresh() if self.sealing else None
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

    def _packed(self, out: BinaryIO, preset: int) -> Packed:
        """Threads serve, for LZMA runs outside the interpreter."""
        with _pool() as pool, tempfile.TemporaryFile(dir=self.directory) as spool:
            return pack_full(
                self.image.read_at,
                self.image.length,
                spool=spool,
                out=out,
                preset=preset,
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
