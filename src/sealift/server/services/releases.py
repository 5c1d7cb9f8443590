"""What the vendor publishes: payload containers and releases.

A release is a set of artifacts that the offline keys listed in Image Targets, with the
containers they travel in. Published names are never replaced (I4, F-12).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref
from sealift.core.errors import (
    ConflictError,
    InvalidInputError,
    LimitError,
    NotFoundError,
)
from sealift.server.domain.catalogue import catalogue
from sealift.server.ports import Release, ReleaseItem, StoredContainer
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.audit import Actor
    from sealift.core.types import Container
    from sealift.server.ports import Means, Session
    from sealift.server.services.audit import Unit

__all__ = [
    "NewArtifact",
    "add_container",
    "all_releases",
    "check_container",
    "find_release",
    "publish_release",
]

ARTIFACTS_MAX = 64
_CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,159}\Z")


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """An artifact of a release to publish: its target path and where its bytes are."""

    path: str
    full: Container


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
            is taken.
    """
    with recorded(means, actor) as unit:
        release = _release(unit, artifacts)
        known = unit.session.releases.find(release.id)
        if known is not None:
            if known.items != release.items:
                raise ConflictError(f"release {release.id} exists, with other content")
            return known
        if any(
            (r.product, r.sequence) == (release.product, release.sequence)
            for r in unit.session.releases.all()
        ):
            raise ConflictError(
                f"{release.product} has a release with sequence {release.sequence}"
            )
        unit.session.releases.add(release)
        unit.record(
            Kind.RELEASE_PUBLISHED,
            {
                "release": release.id,
                "sequence": release.sequence,
                "artifacts": [_summary(item) for item in release.items],
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


def _release(unit: Unit, artifacts: Sequence[NewArtifact]) -> Release:
    if not 1 <= len(artifacts) <= ARTIFACTS_MAX:
        raise InvalidInputError(f"a release has 1 to {ARTIFACTS_MAX} artifacts")
    targets = unit.session.metadata.newest("image", "targets")
    listed = catalogue(targets.body) if targets is not None else {}
    found = []
    for wanted in artifacts:
        if wanted.path not in listed:
            raise InvalidInputError(
                f"{wanted.path} is not listed by the Image repository",
                hint="publish the signed Image Targets first",
            )
        _require_stored(unit, wanted.full)
        found.append((listed[wanted.path], wanted.full))
    lines = {
        (entry.artifact.name.split("/")[0], entry.artifact.version, entry.sequence)
        for entry, _ in found
    }
    if len(lines) != 1:
        raise InvalidInputError("the artifacts are of more than one release")
    product, version, sequence = lines.pop()
    items = tuple(ReleaseItem(entry.artifact, full) for entry, full in found)
    return Release(f"{product}-{version}", product, version, sequence, items, unit.now)


def _require_stored(unit: Unit, wanted: Container) -> None:
    stored = unit.session.releases.container(wanted.name)
    if stored is None:
        raise InvalidInputError(
            f"container {wanted.name} was not uploaded", hint="upload it first"
        )
    if (stored.length, stored.sha256) != (wanted.length, wanted.sha256.hex()):
        raise InvalidInputError(f"container {wanted.name} is stored differently")
    if not 0 < wanted.head_length <= wanted.length:
        raise LimitError(f"container {wanted.name}: the head is longer than the whole")


def _summary(item: ReleaseItem) -> dict[str, object]:
    return {
        "path": item.artifact.name,
        "length": item.artifact.length,
        "sha256": item.artifact.sha256.hex(),
        "release_counter": item.artifact.release_counter,
        "container": item.full.name,
    }
