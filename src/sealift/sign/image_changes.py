"""What new Image Targets would change: images, versions, counters, hardware."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from sealift.core.errors import SealiftError
from sealift.core.types import Bootable, BootKind
from sealift.core.version import compare
from sealift.repo.entries import Listed, image_entry, listed
from sealift.repo.files import digest_of
from sealift.repo.image import ENTRIES_WARN
from sealift.sign.findings import Finding, danger, fact, refused
from sealift.sign.secure_boot.image import check

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.repo.signing import Request

__all__ = ["UNSEALED", "UNVERIFIED_BOOT", "compare_image", "image_changes"]

UNSEALED = "unsealed"
"""The word of consent to an image in the open after sealed ones of its line."""
UNVERIFIED_BOOT = "unverified-boot"
"""The word of consent to an image without facts of booting after some with them."""


def image_changes(request: Request) -> Iterator[Finding]:
    """Compare proposed Targets with the version before them, image by image."""
    new: Targets = request.proposed.signed
    old = request.base.signed.targets if request.base is not None else {}
    if new.delegations is not None or new.unrecognized_fields:
        yield refused("it holds members that Sealift does not write")
    before: dict[str, Listed] = {}
    for path, entry in old.items():
        if path in new.targets and new.targets[path] != entry:
            yield refused(f"{path} would come to mean another image")
        try:
            before[path] = listed(path, entry)
        except SealiftError as error:
            yield danger("unverified-base", error.message)
    for path in sorted(set(old) - set(new.targets)):
        yield danger(
            "remove-image",
            f"{path} is no longer vouched for: devices that were ordered it will not "
            f"install it",
        )
    if len(new.targets) > ENTRIES_WARN:
        yield fact(
            f"{len(new.targets)} images are listed; each costs every device about 3 kB "
            f"of memory: take back what nobody needs any more"
        )
    added = sorted(set(new.targets) - set(old))
    for path in added:
        yield from _added(path, new, before)
    if not added and set(old) == set(new.targets):
        yield fact(f"the same {len(old)} images as before; only the expiry changes")


def _added(path: str, new: Targets, before: Mapping[str, Listed]) -> Iterator[Finding]:
    try:
        found = listed(path, new.targets[path])
        rewritten = image_entry(found)
    except SealiftError as error:
        yield refused(error.message)
        return
    artifact = found.artifact
    yield fact(
        f"new image {path}: version {artifact.version}, {artifact.length} bytes, "
        f"release counter {artifact.release_counter}, sequence {found.sequence}, for "
        f"{', '.join(artifact.hardware_ids)}, "
        f"{'sealed' if found.sealed else 'readable on its way'}, "
        f"sha256 {artifact.sha256.hex()}"
        + (f", SBOM {found.sbom_sha256.hex()}" if found.sbom_sha256 else "")
    )
    if artifact.bootable is not None:
        yield _boots(artifact.bootable)
    if rewritten != new.targets[path]:
        yield danger(
            "unknown-content", f"{path} has members that Sealift does not write"
        )
    yield from _compared(found, before)


def _boots(found: Bootable) -> Finding:
    what = {BootKind.UKI: "unified kernel image", BootKind.FIT: "FIT image"}
    return fact(
        f"it boots verified: a {what[found.kind]} of {found.length} bytes at offset "
        f"{found.offset}, sha256 {found.sha256.hex()}, which admits one root only: "
        f"{found.data_blocks} blocks with root hash {found.root_hash.hex()}"
    )


def _compared(found: Listed, before: Mapping[str, Listed]) -> Iterator[Finding]:
    """A new image beside the older ones of its line."""
    mine = found.artifact
    entries = [entry for entry in before.values() if entry.line == found.line]
    line = [entry.artifact for entry in entries]
    if not line:
        yield fact(f"{found.line} is new: nothing of that name was released before")
        return
    yield from _secrecy(found, entries)
    verified = [other.version for other in line if other.bootable is not None]
    if verified and mine.bootable is None:
        yield danger(
            UNVERIFIED_BOOT,
            f"nothing says how {mine.version} boots verified, though it was said of "
            f"{', '.join(verified)}: devices that insist on it will refuse this one",
        )
    newer = [o.version for o in line if compare(mine.version, o.version) <= 0]
    if newer:
        yield danger(
            "older-version",
            f"{mine.version} is not above {', '.join(newer)}, released before",
        )
    highest = max(line, key=lambda other: other.release_counter)
    if mine.release_counter < highest.release_counter:
        yield danger(
            "lower-counter",
            f"release counter {mine.release_counter} is below "
            f"{highest.release_counter} of {highest.version}: devices that run it "
            f"will refuse this one",
        )
    elif mine.release_counter > highest.release_counter:
        yield fact(
            f"release counter rises from {highest.release_counter} to "
            f"{mine.release_counter}: devices that confirm it can never go back"
        )
    hardware = {one for other in line for one in other.hardware_ids}
    fresh = sorted(set(mine.hardware_ids) - hardware)
    if fresh:
        yield danger(
            "new-hardware", f"{', '.join(fresh)} was never given {found.line} before"
        )


def _secrecy(found: Listed, line: list[Listed]) -> Iterator[Finding]:
    """Whether others may read it on its way, beside the older ones of its line."""
    secret = [entry.artifact.version for entry in line if entry.sealed]
    if secret and not found.sealed:
        yield danger(
            UNSEALED,
            f"{found.artifact.version} is not sealed, though {', '.join(secret)} of "
            f"{found.line} is: servers, caches and whoever records the line can read "
            f"it",
        )
    elif found.sealed and not secret:
        yield fact(
            f"{found.line} is sealed for the first time: devices without a decryption "
            f"key cannot install it"
        )


def compare_image(request: Request, path: Path) -> Finding:
    """Whether a signer's own build of an image is the one that is proposed.

    Raises:
        InvalidConfigError, LimitError: the file cannot be read.
    """
    digest = digest_of(path)
    named = [
        name
        for name, entry in request.proposed.signed.targets.items()
        if entry.hashes.get("sha256") == digest.hex()
        and (request.base is None or name not in request.base.signed.targets)
    ]
    if named:
        return _own_build(request, path, named)
    return refused(f"{path.name} (sha256 {digest.hex()}) is not what is proposed")


def _own_build(request: Request, path: Path, named: list[str]) -> Finding:
    """It is; and what is said of its booting holds for its bytes."""
    text = f"{path.name} is exactly {', '.join(named)}"
    for name in named:
        facts = listed(name, request.proposed.signed.targets[name]).artifact.bootable
        if facts is not None:
            try:
                check(path, facts)
            except SealiftError as error:
                return refused(error.message)
            text += "; its boot file and its root belong together"
    return fact(text)
