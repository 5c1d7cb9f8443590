"""What the vendor publishes: payload containers and releases.

A release is a set of artifacts that the offline keys listed in Image Targets, with the
containers they travel in: the full one, deltas made at the desk, and of sealed ones the
content key, wrapped to this server. Published names are never replaced (I4, F-12).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref
from sealift.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
)
from sealift.server.domain import openness
from sealift.server.domain.catalogue import catalogue
from sealift.server.domain.deltas import SEALED
from sealift.server.ports import Release, ReleaseItem, StoredContainer
from sealift.server.services import publication
from sealift.server.services.audit import recorded
from sealift.server.services.publication import NewArtifact
from sealift.server.services.wanting import want

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.audit import Actor
    from sealift.repo.entries import Listed
    from sealift.server.ports import Means, Session
    from sealift.server.services.audit import Unit

__all__ = [
    "NewArtifact",
    "add_container",
    "all_releases",
    "check_container",
    "check_openness",
    "find_release",
    "publish_release",
]

ARTIFACTS_MAX = 64
_CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,159}\Z")


# ── containers ───────────────────────────────────────────────────────────────────────
def check_container(session: Session, name: str, length: int, sha256: str) -> bool:
    """Whether that container is stored already.

    Raises:
        ConflictError: other bytes stand under that name (F-12). InvalidInputError: a
            name no container may have.
    """
    if not _CONTAINER_NAME.match(name):
        raise InvalidInputError(
            "that cannot be the name of a container",
            hint="letters, digits and . _ + - after the first, at most 160",
        )
    known = session.releases.container(name)
    if known is None:
        return False
    if (known.length, known.sha256) != (length, sha256):
        raise ConflictError(
            f"{name} is stored with other bytes",
            hint="published bytes are immutable; choose the next version",
        )
    return True


def check_openness(session: Session, name: str, prefix: bytes) -> None:
    """Refuse what the first bytes of an upload show and must not (``openness.LOOK``).

    Raises:
        InvalidInputError: a plain container under a name of sealed ones.
        ForbiddenError: a plain container of, or from, an image that travels sealed.
    """
    shown = openness.images(prefix)
    if shown is None:
        return
    if name.endswith(SEALED):
        raise InvalidInputError(f"{name} is not sealed, whatever its name says")
    if any(_is_secret(session, image) for image in shown):
        raise ForbiddenError(
            f"{name} would show an image that travels sealed",
            hint="upload the sealed container only",
        )


def _is_secret(session: Session, image_sha256: str) -> bool:
    """Whether an image was published sealed, or the offline keys say it must be."""
    if session.content_keys.seals(image_sha256):
        return True
    targets = session.metadata.newest("image", "targets")
    listed = {} if targets is None else catalogue(targets.body)
    return any(
        entry.sealed and entry.artifact.sha256.hex() == image_sha256
        for entry in listed.values()
    )


def add_container(
    means: Means, actor: Actor, name: str, length: int, sha256: str
) -> StoredContainer:
    """Note that a container's bytes, durable and verified, stand under that name.

    Raises:
        ConflictError, InvalidInputError: as :func:`check_container`.
    """
    with recorded(means, actor) as unit:
        container = StoredContainer(name, length, sha256, unit.now)
        if not check_container(unit.session, name, length, sha256):
            unit.session.releases.add_container(container)
            unit.record(
                Kind.CONTAINER_STORED,
                {"name": name, "length": length},
                [Ref("container", name, sha256)],
            )
    return container


# ── releases ─────────────────────────────────────────────────────────────────────────
def publish_release(
    means: Means, actor: Actor, artifacts: Sequence[NewArtifact]
) -> Release:
    """Publish a release: artifacts the Image repository lists, containers stored here.

    Its product, version and sequence are what the offline keys signed; its id is
    ``PRODUCT-VERSION``. Publishing the same release again changes nothing.

    Raises:
        InvalidInputError: nothing, an unlisted artifact, a container that is not stored
            like that, or artifacts of two releases. ConflictError: the id or sequence
            is taken. DecryptError: a content key that does not open now.
            ForbiddenError: an image in the open that must be or was sealed.
    """
    with recorded(means, actor) as unit:
        entries = _entries(unit.session, artifacts)
        for wanted, entry in zip(artifacts, entries, strict=True):
            publication.check(unit, means, wanted, entry)
        release = _release(unit, artifacts, entries)
        if _is_known(unit.session, release):
            return find_release(unit.session, release.id)
        unit.session.releases.add(release)
        for item, wanted in zip(release.items, artifacts, strict=True):
            publication.keep(unit, item, wanted)
        pairs = want(unit, means.payload, release.items)
        unit.record(
            Kind.RELEASE_PUBLISHED,
            {
                "release": release.id,
                "sequence": release.sequence,
                "artifacts": [_summary(item) for item in release.items],
                "desk_deltas": sum(len(wanted.deltas) for wanted in artifacts),
                "wanted_deltas": pairs,
            },
            [Ref("release", release.id)],
        )
    return release


def find_release(session: Session, release_id: str) -> Release:
    """One release.

    Raises:
        NotFoundError: there is none of that id.
    """
    found = session.releases.find(release_id)
    if found is None:
        raise NotFoundError(f"there is no release {release_id}")
    return found


def all_releases(session: Session) -> Sequence[Release]:
    """Every release, the newest first."""
    return session.releases.all()


def _entries(session: Session, artifacts: Sequence[NewArtifact]) -> list[Listed]:
    """The artifacts as the offline keys listed them."""
    if not 1 <= len(artifacts) <= ARTIFACTS_MAX:
        raise InvalidInputError(f"a release has 1 to {ARTIFACTS_MAX} artifacts")
    targets = session.metadata.newest("image", "targets")
    listed = catalogue(targets.body) if targets is not None else {}
    for wanted in artifacts:
        if wanted.path not in listed:
            raise InvalidInputError(
                f"{wanted.path} is not listed by the Image repository",
                hint="publish the signed Image Targets first",
            )
    return [listed[wanted.path] for wanted in artifacts]


def _release(
    unit: Unit, artifacts: Sequence[NewArtifact], entries: Sequence[Listed]
) -> Release:
    lines = {
        (entry.artifact.name.split("/")[0], entry.artifact.version, entry.sequence)
        for entry in entries
    }
    if len(lines) != 1:
        raise InvalidInputError("the artifacts are of more than one release")
    product, version, sequence = lines.pop()
    items = tuple(
        ReleaseItem(entry.artifact, wanted.full, wanted.seal is not None)
        for wanted, entry in zip(artifacts, entries, strict=True)
    )
    return Release(f"{product}-{version}", product, version, sequence, items, unit.now)


def _is_known(session: Session, release: Release) -> bool:
    """Whether just this release was published before.

    Raises:
        ConflictError: another one has its id, or its place among those of the product.
    """
    known = session.releases.find(release.id)
    if known is not None:
        if known.items != release.items:
            raise ConflictError(f"release {release.id} exists, with other content")
        return True
    for other in session.releases.all():
        if (other.product, other.sequence) == (release.product, release.sequence):
            raise ConflictError(
                f"{release.product} has a release with sequence {release.sequence}"
            )
    return False


def _summary(item: ReleaseItem) -> dict[str, object]:
    return {
        "path": item.artifact.name,
        "length": item.artifact.length,
        "sha256": item.artifact.sha256.hex(),
        "release_counter": item.artifact.release_counter,
        "container": item.full.name,
        "sealed": item.sealed,
    }
