"""What one device is told: its Director metadata, and the containers that go with it.

Made at the poll of that device and for it alone (D6, X1), signed anew when its orders
changed or when less than half of a file's life is left (D12). The order itself is
checked again at this moment against what the Image repository lists (D10), and how the
image travels is chosen: what is held back is kept with its reason and figures.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref
from sealift.core.errors import ConflictError, ForbiddenError, NotFoundError
from sealift.repo.director import Issued, Order, Sealing, Versions, issue
from sealift.server import ports
from sealift.server.domain.catalogue import catalogue, orderable
from sealift.server.domain.chooser import Held, Why
from sealift.server.domain.deltas import SEALED
from sealift.server.domain.installation import Cause, State, move
from sealift.server.ports import DirectorRecord
from sealift.server.services.audit import recorded
from sealift.server.services.offers import Place, noted, recipient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sealift.core.audit import Actor
    from sealift.repo.director import DirectorSigners
    from sealift.server.ports import (
        Deployment,
        Device,
        Installation,
        Means,
        ReleaseItem,
        Session,
        StoredContainer,
    )
    from sealift.server.services.audit import Unit

__all__ = ["issue_for", "may_begin", "ordered_container", "start_download"]


@dataclass(frozen=True, slots=True)
class _Look:
    """What the Director makes of one open installation now."""

    installation: Installation
    offer: ports.Offer
    order: Order | None
    """``None``: held back, or withdrawn."""
    again: datetime | None = None
    """When to look again, if time alone changes the answer."""


def issue_for(means: Means, actor: Actor, device_id: str) -> DirectorRecord:
    """The files to serve a device now, signed anew where needed.

    Raises:
        NotFoundError: no such device, or no Director Root was published yet.
        KeyUnreadableError: a signer failed. LimitError: metadata no device would take.
        DecryptError: a content key does not open.
    """
    with recorded(means, actor) as unit:
        device = unit.session.devices.find(device_id)
        if device is None or unit.session.metadata.newest("director", "root") is None:
            raise NotFoundError("the Director has nothing for this device yet")
        known = unit.session.metadata.director(device_id)
        looks = list(_looks(means, unit.session, unit.now, device))
        orders = [look.order for look in looks if look.order is not None]
        previous = _issued(known, means.director, unit.now)
        issued = issue(
            device_id,
            orders,
            previous,
            signers=means.director,
            now=unit.now,
            reported=_reported(device),
        )
        record = _record(issued, looks)
        changed = _note(unit, looks)
        if issued is not previous:
            unit.session.metadata.save_director(record, _names(orders))
            for look in looks:
                _offer(unit, look)
            unit.record(Kind.KEY_USED, _body(record, looks), _refs(record))
        elif changed:
            body = {"installations": [_told(look) for look in changed]}
            unit.record(Kind.INSTALLATION_STATE, body, [Ref("device", device_id)])
    if issued is previous:
        means.store.note_looked(device_id, record.renew_at)
    return record


def may_begin(session: Session, device_id: str) -> bool:
    """Whether a device has an order it has not begun; else a fetch changes nothing."""
    return any(
        State(installation.state) in {State.WAITING, State.OFFERED}
        for installation in session.deployments.open_installations(device_id)
    )


def start_download(means: Means, actor: Actor, device_id: str, name: str) -> None:
    """Note that a device began to fetch a container it is ordered.

    Ranges of one download and later ones change nothing.
    """
    with recorded(means, actor) as unit:
        device = unit.session.devices.find(device_id)
        if device is None:
            return
        begun = [
            look.installation
            for look in _looks(means, unit.session, unit.now, device)
            if look.order is not None
            and name in _names([look.order])
            and State(look.installation.state) in {State.WAITING, State.OFFERED}
        ]
        for installation in begun:
            _moved(unit, installation, State.DOWNLOADING)
        if begun:
            moves = [{"id": i.id, "from": i.state, "to": "downloading"} for i in begun]
            unit.record(
                Kind.INSTALLATION_STATE,
                {"installations": moves},
                [Ref("device", device_id)],
            )


def ordered_container(
    session: Session, device_id: str, sha256: str, name: str
) -> StoredContainer:
    """A container, if the Director orders exactly these bytes for that device now.

    Raises:
        ForbiddenError: the device is ordered it sealed and asks for it in the open.
        NotFoundError: it is not ordered; the same answer for a container of another
            device and for one that does not exist.
    """
    found = session.metadata.ordered(device_id, name)
    if found is None and session.metadata.ordered(device_id, name + SEALED):
        raise ForbiddenError(
            "this container travels sealed only", hint="follow the order in Targets"
        )
    if found is None or found.sha256 != sha256:
        raise NotFoundError("there is no such container for this device")
    return found


# ── orders ───────────────────────────────────────────────────────────────────────────
def _looks(
    means: Means, session: Session, now: datetime, device: Device
) -> Iterator[_Look]:
    """Every open installation of a device; of none while it is quarantined."""
    targets = session.metadata.newest("image", "targets")
    if targets is None or device.state != "active":
        return
    listed = catalogue(targets.body)
    ecus = {ecu.id: ecu for ecu in session.devices.ecus(device.id)}
    for installation in session.deployments.open_installations(device.id):
        deployment = _deployment(session, installation)
        item = _item(session, deployment, installation)
        ecu = ecus[installation.ecu_id]
        place = Place(session, means.payload, now, device, ecu, deployment, item)
        try:
            orderable(
                item.artifact,
                listed,
                hardware_id=ecu.hardware_id,
                release_counter=ecu.release_counter,
            )
        except ConflictError:
            continue  # withdrawn by the offline keys: not ordered any more
        yield _look(means, place, installation)


def _look(means: Means, place: Place, installation: Installation) -> _Look:
    found = place.offer(installation)
    if isinstance(found, Held):
        again = place.waits_until if found.why is Why.DELTA else None
        return _Look(installation, noted(found), None, again)
    patch = place.patch(found)
    order = Order(
        place.ecu.id,
        place.ecu.hardware_id,
        place.item.artifact,
        place.item.full,
        found.delta,
        place.deployment.bytes_max,
        installation.deployment_id,
        sealing=_sealing(means, place),
        patch=patch,
    )
    cost = found.bytes + (patch.length if patch else 0)
    return _Look(installation, replace(noted(found), bytes=cost), order)


def _sealing(means: Means, place: Place) -> Sealing | None:
    """What the Director needs to wrap a content key for this device (when it signs)."""
    to = recipient(place.device)
    if not place.item.sealed or to is None:
        return None
    digest = place.item.full.sha256
    key = place.session.content_keys.find(digest.hex())
    if key is None:
        raise NotFoundError(f"the content key of {place.item.full.name} is not here")

    def content_key() -> bytes:
        return means.content.open(key.wrap, key.path, digest)

    return Sealing(to, content_key, means.chance.token_bytes)


def _names(orders: Sequence[Order]) -> list[str]:
    """Every file that a device may fetch under these orders."""
    return [
        file.name
        for order in orders
        for file in (order.full, order.delta, order.patch)
        if file is not None
    ]


def _deployment(session: Session, installation: Installation) -> Deployment:
    found = session.deployments.find(installation.deployment_id)
    if found is None:
        raise NotFoundError(f"there is no deployment {installation.deployment_id}")
    return found


def _item(
    session: Session, deployment: Deployment, installation: Installation
) -> ReleaseItem:
    release = session.releases.find(deployment.release_id)
    items = release.items if release else ()
    return next(item for item in items if item.artifact.name == installation.path)


def _note(unit: Unit, looks: Sequence[_Look]) -> list[_Look]:
    """Keep what is offered where it changed; those that changed."""
    changed = [look for look in looks if look.offer != look.installation.offer]
    for look in changed:
        noted_now = replace(look.installation, offer=look.offer)
        unit.session.deployments.save_installation(noted_now)
    return changed


# ── what was issued ──────────────────────────────────────────────────────────────────
def _reported(device: Device) -> Versions:
    """D11: what the device says it trusts."""
    found = device.versions.get("director", {})
    roles = ("targets", "snapshot", "timestamp")
    return Versions(*(found.get(role, 0) for role in roles))


def _issued(
    known: DirectorRecord | None, signers: DirectorSigners, now: datetime
) -> Issued | None:
    """What was issued last, as due for renewal if other keys had signed it."""
    if known is None:
        return None
    found = Issued.parse(known.targets, known.snapshot, known.timestamp)
    ours = (signers.targets, signers.snapshot, signers.timestamp)
    files = (known.targets, known.snapshot, known.timestamp)
    for file, signer in zip(files, ours, strict=True):
        keyid = json.loads(file)["signatures"][0]["keyid"]
        if keyid != signer.public_key.keyid:
            return replace(found, content_renew_at=now)
    return found


def _record(issued: Issued, looks: Sequence[_Look]) -> DirectorRecord:
    versions = issued.versions
    moments = [look.again for look in looks if look.again is not None]
    return DirectorRecord(
        device_id=issued.device_id,
        targets=issued.targets,
        snapshot=issued.snapshot,
        timestamp=issued.timestamp,
        versions=(versions.targets, versions.snapshot, versions.timestamp),
        etag=hashlib.sha256(issued.timestamp).hexdigest()[:32],
        renew_at=int(min([issued.renew_at, *moments]).timestamp()),
    )


def _offer(unit: Unit, look: _Look) -> None:
    if look.order is not None and State(look.installation.state) is State.WAITING:
        _moved(unit, replace(look.installation, offer=look.offer), State.OFFERED)


def _moved(unit: Unit, installation: Installation, to: State) -> None:
    state = move(State(installation.state), to, Cause.SERVER)
    unit.session.deployments.save_installation(
        replace(installation, state=state.value, changed_at=unit.now)
    )


def _told(look: _Look) -> dict[str, object]:
    """An offer as events tell it; of a held one what it would cost, and why."""
    return {
        "id": look.installation.id,
        "method": look.offer.method,
        "bytes": look.offer.bytes,
        "held": look.offer.held,
    }


def _body(record: DirectorRecord, looks: Sequence[_Look]) -> dict[str, object]:
    targets, snapshot, timestamp = record.versions
    return {
        "repository": "director",
        "targets": targets,
        "snapshot": snapshot,
        "timestamp": timestamp,
        "orders": [
            {
                "installation": look.installation.id,
                "path": look.order.artifact.name,
                "method": look.offer.method,
                "bytes": look.offer.bytes,
            }
            for look in looks
            if look.order is not None
        ],
        "held": [_told(look) for look in looks if look.order is None],
    }


def _refs(record: DirectorRecord) -> list[Ref]:
    digest = hashlib.sha256(record.targets).hexdigest()
    return [
        Ref("device", record.device_id),
        Ref("metadata", f"director/targets/{record.versions[0]}", digest),
    ]
