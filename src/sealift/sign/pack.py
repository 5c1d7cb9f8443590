"""Build a release: an image becomes a container, its facts, and a signing request.

The image is read once, in segments of 1 MiB; memory does not grow with it. Nothing
appears under the release's name before all of it is there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from sealift.core.errors import (
    ConflictError,
    InvalidConfigError,
    RefusedError,
    UnsafeNameError,
)
from sealift.core.types import Artifact
from sealift.core.version import compare
from sealift.payload.images import opened
from sealift.repo import image, signing
from sealift.repo.entries import Listed, check_must_match
from sealift.repo.files import read_bounded, write_atomic
from sealift.repo.fresh import fresh_directory, require_free
from sealift.sign.image_changes import UNSEALED
from sealift.sign.payloads import OPENLY, Maker, bases_of
from sealift.sign.release import Release, propose
from sealift.sign.secure_boot.image import boot_file_is_signed, judge, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from sealift.core.packer import Packed
    from sealift.core.types import Bootable, Container, Seal
    from sealift.payload.images import Image
    from sealift.sign.desk import Desk
    from sealift.sign.payloads import Sealing, Travel

    Report = Callable[[str, int, int], None]

__all__ = ["Description", "check_line", "pack"]

SBOM_BYTES_MAX = 256 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,63}")

OLDER_VERSION = "older-version"
LOWER_COUNTER = "lower-counter"
UNSIGNED_BOOT_FILE = "unsigned-boot-file"


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
    bootable: Path | None = None,
    travel: Travel = OPENLY,
    dry_run: bool = False,
    progress: Report = lambda *_: None,
) -> Release | None:
    """Make the release directory ``target``; ``None`` if ``dry_run`` stopped before.

    ``accept`` may hold ``older-version``, ``lower-counter``, ``unsealed`` and
    ``unsigned-boot-file``. ``bootable`` is the file with the facts of how the image
    boots verified; all of them are checked from its bytes.

    Raises:
        UnsafeNameError, RefusedError: a name, a version that does not go up, a counter
            that goes down, a sealed line that would be in the open, a base no delta may
            start from, a boot file that is not signed or not for this root.
        LimitError: an empty or too large image, or a value out of range. LengthError:
            the image changed while it was read. DeltaError: a delta could not be made.
        InvalidConfigError, SpaceError: a file cannot be read or written.
    """
    description.check()
    current = desk.targets()
    known = list(image.artifacts(current.signed).values()) if current else []
    check_line(description, known, accept, sealed=travel.sealed)
    digest = None if sbom is None else _sbom_digest(sbom)
    secret = {entry.artifact.sha256 for entry in known if entry.sealed}
    bases = bases_of(travel, secret)
    facts = None if bootable is None else read_facts(bootable)
    with opened(source) as found:
        require_free(target)
        if facts is not None:
            _check_boot(facts, found, source.name, accept, progress)
        if dry_run:
            return None
        with fresh_directory(target, mode=0o755) as draft:
            maker = Maker(found, source, draft, travel, progress)
            made = maker.make(description.file, bases)
            artifact = _artifact(description, made.packed, facts)
            sequence = 1 + max((entry.sequence for entry in known), default=0)
            release = Release(
                Listed(artifact, sequence, digest, sealed=travel.sealed),
                made.full,
                sbom.name if sbom is not None else None,
                source.name,
                deltas=made.deltas,
                seal=_wrapped(travel.sealing, artifact, made.full),
            )
            _write_papers(draft, release, desk, now)
        return release


def _wrapped(
    sealing: Sealing | None, artifact: Artifact, full: Container
) -> Seal | None:
    if sealing is None:
        return None
    return sealing.wrapped(artifact.name, full.sha256)


def check_line(
    description: Description,
    known: list[Listed],
    accept: Collection[str],
    *,
    sealed: bool = False,
) -> None:
    """Refuse a version that does not go up, a counter that goes down (W4), and an image
    in the open after sealed ones.

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
        if entry.sealed and not sealed:
            _refuse_unless(
                UNSEALED,
                accept,
                f"{other.name} is sealed, and this one would travel in the open",
            )


def _refuse_unless(word: str, accept: Collection[str], reason: str) -> None:
    if word not in accept:
        raise RefusedError(reason, hint=f"if that is meant: --accept {word}")


def _check_boot(
    facts: Bootable,
    found: Image,
    name: str,
    accept: Collection[str],
    progress: Report,
) -> None:
    """What the metadata is to say of booting, recomputed from the bytes."""
    judge(facts, found.read_at, found.length, name, progress)
    if not boot_file_is_signed(facts, found.read_at):
        _refuse_unless(
            UNSIGNED_BOOT_FILE,
            accept,
            f"the boot file in {name} is not signed: whoever can write to a device's "
            f"disk could exchange it",
        )


def _artifact(
    description: Description, packed: Packed, facts: Bootable | None
) -> Artifact:
    return packed.artifact(
        description.path,
        hardware_ids=description.hardware_ids,
        release_counter=description.counter,
        version=description.version,
        bootable=facts,
    )


def _write_papers(draft: Path, release: Release, desk: Desk, now: datetime) -> None:
    request = signing.request_to_json(propose(release, desk, now))
    facts = json.dumps(release.to_json(), indent=2, sort_keys=True).encode() + b"\n"
    write_atomic(draft / "release.json", facts, mode=0o644)
    write_atomic(draft / "request.json", request, mode=0o644)


def _sbom_digest(path: Path) -> bytes:
    raw = read_bounded(path, SBOM_BYTES_MAX)
    if not raw:
        raise InvalidConfigError(f"{path} is empty", hint="an SBOM lists components")
    return sha256(raw).digest()
