"""A release as files: its facts, its signing request, what happens to it later.

```
REL/PRODUCT-COMPONENT-VERSION.full   the container devices fetch
REL/NEW-BASE.delta   deltas from the bases it was packed against
REL/release.json   the facts: artifact, container, where the SBOM is
REL/request.json   the signing request: Image Targets with the artifact in it
```

``pack`` makes them. Sealed containers have ``.sealed`` behind their names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.core import fields
from sealift.core.canonical import parse_object
from sealift.core.errors import (
    InvalidConfigError,
    LengthError,
    MalformedError,
    StateError,
)
from sealift.core.types import Artifact, Container, Seal
from sealift.repo import image, signing
from sealift.repo.entries import Listed
from sealift.repo.files import read_as
from sealift.repo.repository import write_new

if TYPE_CHECKING:
    from sealift.sign.desk import Desk

__all__ = [
    "Release",
    "container_of",
    "containers_of",
    "keep",
    "propose",
    "propose_renewal",
    "read_release",
]

RELEASE_BYTES_MAX = 1 << 20
DELTAS_MAX = 256


@dataclass(frozen=True, slots=True)
class Release:
    """The facts of a packed release; ``release.json``.

    With a ``seal``, which has the content key wrapped for the server, all containers
    are sealed files.
    """

    listed: Listed
    container: Container
    sbom: str | None = None
    image: str = field(default="", compare=False)
    deltas: tuple[Container, ...] = ()
    seal: Seal | None = None

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
            "deltas": [delta.to_json() for delta in self.deltas],
            "sealed": self.seal and self.seal.to_json(),
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
            seal = None
            if found.get("sealed") is not None:
                seal = Seal.from_json(fields.member(found, "sealed"))
            listed = Listed(
                Artifact.from_json(found["artifact"]),
                found["sequence"],
                digest,
                sealed=seal is not None,
            )
            return cls(
                listed,
                Container.from_json(found["container"]),
                None if sbom is None else str(sbom["name"]),
                str(found["image"]),
                tuple(_deltas(found)),
                seal,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedError(f"release.json: {error} is missing or wrong") from (
                error
            )


def _deltas(found: dict[str, Any]) -> Iterator[Container]:
    """The deltas; none in what was packed before there were any."""
    for delta in fields.items({"deltas": [], **found}, "deltas", DELTAS_MAX):
        yield Container.from_json(fields.as_object(delta, "delta"))


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
    """The full container of a release directory, as long as its facts say.

    Raises:
        InvalidConfigError, LimitError, MalformedError: the release is not whole.
        LengthError: the container is not the one that was packed.
    """
    return _whole(directory, read_release(directory).container)


def containers_of(directory: Path) -> list[tuple[Container, Path]]:
    """All containers of a release directory, the full one first.

    Raises:
        as :func:`container_of`.
    """
    release = read_release(directory)
    return [
        (container, _whole(directory, container))
        for container in (release.container, *release.deltas)
    ]


def _whole(directory: Path, facts: Container) -> Path:
    path = directory / facts.name
    if path.parent != directory or not path.is_file():
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
