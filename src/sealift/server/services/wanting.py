"""Which deltas a release or a deployment makes wanted.

Only from images that the fleet runs now, most devices first, each pair once: a row of
any state keeps it from being wanted again. A part of other use cases, inside their
transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.server.domain.deltas import DeltaState, sealed_pair
from sealift.server.ports import Delta, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sealift.server.ports import PayloadPolicy, ReleaseItem, Session
    from sealift.server.services.audit import Unit

__all__ = ["want"]


def want(
    unit: Unit,
    policy: PayloadPolicy,
    items: Iterable[ReleaseItem],
    deployment_id: str | None = None,
) -> int:
    """Note the deltas to these items that devices could use; how many are new.

    With a deployment only for the components it gave an installation.
    """
    if not policy.deltas:
        return 0
    published = _published(unit.session)
    added = 0
    for item in items:
        for delta in _missing(unit, policy, item, published, deployment_id):
            unit.session.deltas.add(delta)
            added += 1
    return added


def _missing(
    unit: Unit,
    policy: PayloadPolicy,
    item: ReleaseItem,
    published: dict[str, ReleaseItem],
    deployment_id: str | None,
) -> Iterator[Delta]:
    """Rows for bases without one, as long as the new image has deltas left."""
    known = {row.base_sha256 for row in unit.session.deltas.to(item.full.sha256.hex())}
    left = policy.bases - len(known)
    wanted = Wanted(
        item.artifact.sha256.hex(),
        item.artifact.hardware_ids,
        item.artifact.release_counter,
        deployment_id,
    )
    for base, devices in unit.session.devices.bases(wanted):
        found = published.get(base)
        if left <= 0 or base in known or found is None or _closed(policy, found, item):
            continue
        left -= 1
        yield _row(unit, item, base, devices)


def _closed(policy: PayloadPolicy, base: ReleaseItem, new: ReleaseItem) -> bool:
    sealed = sealed_pair(
        base_sealed=base.sealed, new_sealed=new.sealed, allowed=policy.sealed_deltas
    )
    return sealed is None


def _published(session: Session) -> dict[str, ReleaseItem]:
    """Images we hold, by digest; one that ever was sealed counts as sealed."""
    found: dict[str, ReleaseItem] = {}
    for release in session.releases.all():
        for item in release.items:
            digest = item.artifact.sha256.hex()
            if item.sealed or digest not in found:
                found[digest] = item
    return found


def _row(unit: Unit, item: ReleaseItem, base: str, devices: int) -> Delta:
    return Delta(
        number=0,
        base_sha256=base,
        full_sha256=item.full.sha256.hex(),
        new_sha256=item.artifact.sha256.hex(),
        path=item.artifact.name,
        state=DeltaState.WANTED,
        origin="server",
        devices=devices,
        full_length=item.full.length,
        wanted_at=unit.now,
        changed_at=unit.now,
        run_at=unit.now,
    )
