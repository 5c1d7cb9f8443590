"""What the vendor publishes: payload containers and releases.

A release is a set of artifacts that the offline keys listed in Image Targets, with the
containers they travel in: the full one, deltas made at the desk, and of sealed ones the
content key, wrapped to this server. Published names are never replaced (I4, F-12).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref
from sealift.core.encryption import plain_length
from sealift.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LengthError,
    LimitError,
    NotFoundError,
)
from sealift.server.domain import openness
from sealift.server.domain.catalogue import catalogue
from sealift.server.domain.deltas import SEALED, DeltaState, name, useful
from sealift.server.ports import (
    ContentKey,
    Delta,
    Release,
    ReleaseItem,
    StoredContainer,
)
from sealift.server.services.audit import recorded
from sealift.server.services.wanting import want

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.audit import Actor
    from sealift.core.types import Artifact, Container, Seal
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
DELTAS_MAX = 256
_CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,159}\Z")


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """An artifact of a release to publish: its target path and where its bytes are.

    ``deltas`` were made at the desk. ``seal`` has the content key, wrapped to this
    server's content-key key, if the containers are sealed.
    """

    path: str
    full: Container
    deltas: tuple[Container, ...] = ()
    seal: Seal | None = None


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
        release = _release(unit, artifacts)
        for item, wanted in zip(release.items, artifacts, strict=True):
            _check_seal(means, unit, item, wanted)
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
        for item, wanted in zip(release.items, artifacts, strict=True):
            _keep_key(unit, item.artifact, wanted)
            _keep_deltas(unit, item, wanted.deltas)
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
        _require_stored(unit, wanted.full, sealed=wanted.seal is not None)
        _require_as_listed(listed[wanted.path], wanted)
        found.append((listed[wanted.path], wanted))
    lines = {
        (entry.artifact.name.split("/")[0], entry.artifact.version, entry.sequence)
        for entry, _ in found
    }
    if len(lines) != 1:
        raise InvalidInputError("the artifacts are of more than one release")
    product, version, sequence = lines.pop()
    items = tuple(
        ReleaseItem(entry.artifact, wanted.full, wanted.seal is not None)
        for entry, wanted in found
    )
    return Release(f"{product}-{version}", product, version, sequence, items, unit.now)


def _require_stored(unit: Unit, wanted: Container, *, sealed: bool) -> None:
    stored = unit.session.releases.container(wanted.name)
    if stored is None:
        raise InvalidInputError(
            f"container {wanted.name} was not uploaded", hint="upload it first"
        )
    if (stored.length, stored.sha256) != (wanted.length, wanted.sha256.hex()):
        raise InvalidInputError(f"container {wanted.name} is stored differently")
    if wanted.name.endswith(SEALED) is not sealed:
        raise InvalidInputError(
            f"the name of container {wanted.name} does not say whether it is sealed",
            hint=f"names of sealed containers, and no others, end in {SEALED}",
        )
    try:
        length = plain_length(wanted.length) if sealed else wanted.length
    except LengthError as error:
        raise InvalidInputError(
            f"container {wanted.name}: {error.message}", hint="it is not sealed whole"
        ) from error
    if not 0 < wanted.head_length <= length:
        raise LimitError(f"container {wanted.name}: the head is longer than the whole")


def _require_as_listed(entry: Listed, wanted: NewArtifact) -> None:
    """Devices refuse an order that travels differently than the offline keys say."""
    if entry.sealed and wanted.seal is None:
        raise ForbiddenError(
            f"{wanted.path} is listed as sealed", hint="publish its sealed container"
        )
    if wanted.seal is not None and not entry.sealed:
        raise InvalidInputError(
            f"{wanted.path} is not listed as sealed, so devices would refuse it",
            hint="pack it sealed and sign Image Targets again",
        )


# ── seals ────────────────────────────────────────────────────────────────────────────
def _check_seal(
    means: Means, unit: Unit, item: ReleaseItem, wanted: NewArtifact
) -> None:
    """The content key opens now, or the image may travel in the open."""
    path = item.artifact.name
    if wanted.seal is not None:
        means.content.open(wanted.seal.wrap, path, wanted.full.sha256)
        return
    must = means.payload.must_seal.intersection(item.artifact.hardware_ids)
    if must:
        raise ForbiddenError(
            f"{path} must be sealed: it is for {', '.join(sorted(must))}",
            hint="seal it with public/content-key.json of this server",
        )
    if unit.session.content_keys.seals(item.artifact.sha256.hex()):
        raise ForbiddenError(
            f"the image of {path} was published sealed before",
            hint="in the open it would be readable for everybody; seal it again",
        )


def _keep_key(unit: Unit, artifact: Artifact, wanted: NewArtifact) -> None:
    """The content key as it came: wrapped. The same file may be of two releases."""
    digest = wanted.full.sha256.hex()
    if wanted.seal is None or unit.session.content_keys.find(digest) is not None:
        return
    unit.session.content_keys.add(
        ContentKey(
            sealed_sha256=digest,
            path=artifact.name,
            image_sha256=artifact.sha256.hex(),
            wrap=wanted.seal.wrap,
            stored_at=unit.now,
        )
    )


# ── deltas of the desk ───────────────────────────────────────────────────────────────
def _keep_deltas(unit: Unit, item: ReleaseItem, deltas: Sequence[Container]) -> None:
    if len(deltas) > DELTAS_MAX:
        raise InvalidInputError(f"at most {DELTAS_MAX} deltas to one image")
    for delta in deltas:
        base = _base_of(unit, item, delta)
        if unit.session.deltas.between(base, item.full.sha256.hex()) is None:
            unit.session.deltas.add(_desk_row(unit, item, delta, base))


def _base_of(unit: Unit, item: ReleaseItem, delta: Container) -> str:
    """The base of a delta that may be published with this image, lower hex."""
    _require_stored(unit, delta, sealed=item.sealed)
    image = item.artifact.sha256.hex()
    base = "" if delta.base_sha256 is None else delta.base_sha256.hex()
    if not base or base == image or not delta.base_length:
        raise InvalidInputError(f"container {delta.name} is no delta to this image")
    if delta.name != name(image, base, sealed=item.sealed):
        raise InvalidInputError(
            f"{delta.name} is not the name of that delta",
            hint="NEW-BASE.delta with both image digests, .sealed behind if sealed",
        )
    if not item.sealed and unit.session.content_keys.seals(base):
        raise ForbiddenError(
            f"{delta.name} would show an image that was published sealed",
            hint="deltas from a sealed image are sealed; seal the new image too",
        )
    return base


def _desk_row(unit: Unit, item: ReleaseItem, delta: Container, base: str) -> Delta:
    good = useful(delta.length, item.full.length)
    return Delta(
        number=0,
        base_sha256=base,
        full_sha256=item.full.sha256.hex(),
        new_sha256=item.artifact.sha256.hex(),
        path=item.artifact.name,
        state=DeltaState.READY if good else DeltaState.USELESS,
        origin="desk",
        devices=0,
        full_length=item.full.length,
        wanted_at=unit.now,
        changed_at=unit.now,
        run_at=unit.now,
        container=delta if good else None,
        length=delta.length,
    )


def _summary(item: ReleaseItem) -> dict[str, object]:
    return {
        "path": item.artifact.name,
        "length": item.artifact.length,
        "sha256": item.artifact.sha256.hex(),
        "release_counter": item.artifact.release_counter,
        "container": item.full.name,
        "sealed": item.sealed,
    }
