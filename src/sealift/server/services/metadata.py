"""What the offline keys signed, published: roots and Image Targets.

The server needs no offline key: it verifies thresholds and versions, then signs
Snapshot and Timestamp of the Image repository online (I2, I4, I5). Published versions
are never replaced.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from tuf.api.metadata import Root

from sealift.core.audit import Kind, Ref
from sealift.core.errors import ConflictError, ExpiredError
from sealift.repo import image, roots
from sealift.repo.online import ONLINE_ROLES
from sealift.repo.repository import file_name, read
from sealift.repo.signers import key_id_in
from sealift.server.ports import MetadataFile
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.audit import Actor
    from sealift.server.ports import Means, Session
    from sealift.server.services.audit import Unit

__all__ = ["newest", "publish_root", "publish_targets", "refresh_image"]

_OTHER = {"image": "director", "director": "image"}


def publish_root(means: Means, actor: Actor, repository: str, raw: bytes) -> int:
    """Publish the next Root of ``image`` or ``director``; its version.

    Publishing a known Root again changes nothing.

    Raises:
        SignatureError: below the threshold of the Root before or of itself (R2).
        RollbackError: not the next version (R3). ExpiredError: it has lapsed.
        ConflictError: other bytes under that version, or it does not name the keys this
            server signs with. RefusedError: a shape nobody should sign, or a key of the
            other repository. MalformedError, LimitError: its form.
    """
    with recorded(means, actor) as unit:
        shelf = _Shelf(unit, repository)
        root = roots.publish_root(
            shelf,
            raw,
            others=_roots_of(unit, _OTHER[repository]),
            allow_demo=means.demo,
        )
        if shelf.added:
            if unit.now >= root.expires:
                raise ExpiredError(f"{repository} root {root.version} has expired")
            _require_our_keys(means, repository, root)
            if repository == "image" and newest(unit.session, "image", "targets"):
                image.refresh(shelf, signers=means.image, now=unit.now)
            if repository == "director":
                unit.session.metadata.outdate()  # it may name new online keys
            _record(unit, shelf)
    return root.version


def publish_targets(means: Means, actor: Actor, raw: bytes) -> image.Published:
    """Publish Image Targets, then sign Snapshot and Timestamp over it (I5).

    Raises:
        SignatureError, RollbackError, ExpiredError, MalformedError, LimitError,
        UnsafeNameError, ConflictError, StateError: see ``repo.image.publish``.
    """
    with recorded(means, actor) as unit:
        shelf = _Shelf(unit, "image")
        if newest(unit.session, "image", "root") is None:
            raise ConflictError(
                "there is no Image Root yet", hint="publish the roots first"
            )
        published = image.publish(shelf, raw, signers=means.image, now=unit.now)
        if shelf.added:
            unit.session.metadata.outdate_ordered()  # what is ordered may be gone
            _record(unit, shelf)
    return published


def refresh_image(means: Means, actor: Actor) -> bool:
    """Sign Image Snapshot and Timestamp anew where they age (D12); whether it did.

    Raises:
        KeyUnreadableError: a signer failed.
    """
    with recorded(means, actor) as unit:
        if newest(unit.session, "image", "targets") is None:
            return False
        shelf = _Shelf(unit, "image")
        image.refresh(shelf, signers=means.image, now=unit.now)
        if shelf.added:
            _record(unit, shelf)
    return bool(shelf.added)


def newest(session: Session, repository: str, role: str) -> MetadataFile | None:
    """The highest published version of a role."""
    return session.metadata.newest(repository, role)


class _Shelf:
    """One repository's files in one transaction, as ``repo`` wants a store."""

    def __init__(self, unit: Unit, repository: str) -> None:
        self._unit = unit
        self._metadata = unit.session.metadata
        self.repository = repository
        self.added: list[MetadataFile] = []

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; of Timestamp, the newest."""
        role, version = _role_and_version(name)
        found = (
            self._metadata.newest(self.repository, role)
            if version is None
            else self._metadata.find(self.repository, role, version)
        )
        return None if found is None else found.body

    def write(self, name: str, raw: bytes) -> None:
        """Add a file; every version of Timestamp is kept, the newest is served."""
        role, version = _role_and_version(name)
        if version is None:
            version = json.loads(raw)["signed"]["version"]
        digest = hashlib.sha256(raw).hexdigest()
        now = self._unit.now
        file = MetadataFile(self.repository, role, version, raw, digest, now)
        self._metadata.add(file)
        self.added.append(file)

    def names(self) -> Sequence[str]:
        """All file names, sorted."""
        versions = self._metadata.versions(self.repository)
        return sorted({file_name(role, version) for role, version in versions})


def _role_and_version(name: str) -> tuple[str, int | None]:
    version, _, role = name.removesuffix(".json").rpartition(".")
    return role, int(version) if version else None


def _roots_of(unit: Unit, repository: str) -> dict[str, Root]:
    file = newest(unit.session, repository, "root")
    return {} if file is None else {repository: read(file.body, Root).signed}


def _require_our_keys(means: Means, repository: str, root: Root) -> None:
    """Refuse a Root under which everything this server signs would be worthless."""
    signers = means.image if repository == "image" else means.director
    for role in ONLINE_ROLES[repository]:
        listed = {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}
        if key_id_in(listed, getattr(signers, role).public_key) is None:
            raise ConflictError(
                f"this root does not name the key this server signs {role} with",
                hint="make it with --online public/online-keys.json of this server",
            )


def _record(unit: Unit, shelf: _Shelf) -> None:
    files = [
        {
            "role": file.role,
            "version": file.version,
            "sha256": file.sha256,
            "length": len(file.body),
        }
        for file in shelf.added
    ]
    refs = [
        Ref("metadata", f"{file.repository}/{file.role}/{file.version}", file.sha256)
        for file in shelf.added
    ]
    body = {"repository": shelf.repository, "files": files}
    unit.record(Kind.METADATA_PUBLISHED, body, refs)
