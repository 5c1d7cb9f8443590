"""A release as files: its facts, its signing request, what happens to it later.

```
REL/PRODUCT-COMPONENT-VERSION.full   the container devices fetch
REL/release.json   the facts: artifact, container, where the SBOM is
REL/request.json   the signing request: Image Targets with the artifact in it
```

``pack`` makes them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.core.canonical import parse_object
from sealift.core.errors import (
    InvalidConfigError,
    LengthError,
    MalformedError,
    StateError,
)
from sealift.core.types import Artifact, Container
from sealift.repo import image, signing
from sealift.repo.entries import Listed
from sealift.repo.files import read_as
from sealift.repo.repository import write_new

if TYPE_CHECKING:
    from sealift.sign.desk import Desk

__all__ = [
    "Release",
    "container_of",
    "keep",
    "propose",
    "propose_renewal",
    "read_release",
]

RELEASE_BYTES_MAX = 1 << 20


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
