"""How one artifact of a release travels: what is checked of it, what is kept of it.

A part of publishing a release, inside its transaction. Content keys are kept as they
came, wrapped to this server; of a sealed image nothing is taken in the open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.encryption import plain_length
from sealift.core.errors import (
    ForbiddenError,
    InvalidInputError,
    LengthError,
    LimitError,
)
from sealift.server.domain.deltas import SEALED, DeltaState, name, useful
from sealift.server.ports import ContentKey, Delta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.types import Artifact, Container, Seal
    from sealift.repo.entries import Listed
    from sealift.server.ports import Means, ReleaseItem
    from sealift.server.services.audit import Unit

__all__ = ["NewArtifact", "check", "keep"]

DELTAS_MAX = 256


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


def check(unit: Unit, means: Means, wanted: NewArtifact, entry: Listed) -> None:
    """Whether an artifact may be published like this; ``entry`` is how it is listed.

    Raises:
        InvalidInputError, LimitError: a container that is not stored like that.
        DecryptError: a content key that does not open now. ForbiddenError: an image in
            the open that must be or was sealed.
    """
    _require_stored(unit, wanted.full, sealed=wanted.seal is not None)
    _require_as_listed(entry, wanted)
    _check_seal(means, unit, entry.artifact, wanted)


def keep(unit: Unit, item: ReleaseItem, wanted: NewArtifact) -> None:
    """Keep the content key and the deltas of an artifact that was checked.

    Raises:
        InvalidInputError, LimitError: a delta that is none to this image, or not stored
            like that. ForbiddenError: it would show an image that travels sealed.
    """
    _keep_key(unit, item.artifact, wanted)
    _keep_deltas(unit, item, wanted.deltas)


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
    means: Means, unit: Unit, artifact: Artifact, wanted: NewArtifact
) -> None:
    """The content key opens now, or the image may travel in the open."""
    path = artifact.name
    if wanted.seal is not None:
        means.content.open(wanted.seal.wrap, path, wanted.full.sha256)
        return
    must = means.payload.must_seal.intersection(artifact.hardware_ids)
    if must:
        raise ForbiddenError(
            f"{path} must be sealed: it is for {', '.join(sorted(must))}",
            hint="seal it with public/content-key.json of this server",
        )
    if unit.session.content_keys.seals(artifact.sha256.hex()):
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
