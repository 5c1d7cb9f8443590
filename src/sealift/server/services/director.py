"""What one device is told: its Director metadata, and the containers that go with it.

Made at the poll of that device and for it alone (D6, X1), signed anew when its orders
changed or when less than half of a file's life is left (D12). The order itself is
checked again at this moment against what the Image repository lists (D10).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref
from sealift.core.errors import ConflictError, NotFoundError
from sealift.repo.director import Issued, Order, Versions, issue
from sealift.server.domain.catalogue import catalogue, orderable
from sealift.server.domain.installation import Cause, State, move
from sealift.server.ports import DirectorRecord
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sealift.core.audit import Actor
    from sealift.repo.director import DirectorSigners
    from sealift.server.ports import (
        Device,
        Installation,
        Means,
        ReleaseItem,
        Session,
        StoredContainer,
    )
    from sealift.server.services.audit import Unit

__all__ = ["issue_for", "ordered_container", "start_download"]


def issue_for(means: Means, actor: Actor, device_id: str) -> DirectorRecord:
    """The files to serve a device now, signed anew where needed.

    Raises:
        NotFoundError: no such device, or no Director Root was published yet.
        KeyUnreadableError: a signer failed. LimitError: metadata no device would take.
    """
    with recorded(means, actor) as unit:
        device = unit.session.devices.find(device_id)
        if device is None or unit.session.metadata.newest("director", "root") is None:
            raise NotFoundError("the Director has nothing for this device yet")
        known = unit.session.metadata.director(device_id)
        orders = list(_orders(unit.session, device))
        previous = _issued(known, means.director, unit.now)
        issued = issue(
            device_id,
            [order for _, order in orders],
            previous,
            signers=means.director,
            now=unit.now,
            reported=_reported(device),
        )
        record = _record(issued)
        if issued is not previous:
            names = [order.full.name for _, order in orders]
            unit.session.metadata.save_director(record, names)
            for installation, _ in orders:
                _offer(unit, installation)
            unit.record(Kind.KEY_USED, _body(record, orders), _refs(record))
    if issued is previous:
        means.store.note_looked(device_id, record.renew_at)
    return record


def start_download(means: Means, actor: Actor, device_id: str, name: str) -> None:
    """Note that a device began to fetch a container it is ordered.

    Ranges of one download and later ones change nothing.
    """
    with recorded(means, actor) as unit:
        device = unit.session.devices.find(device_id)
        if device is None:
            return
        begun = [
            installation
            for installation, order in _orders(unit.session, device)
            if order.full.name == name
            and State(installation.state) in {State.WAITING, State.OFFERED}
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
        NotFoundError: it does not; the same answer for a container of another device
            and for one that does not exist.
    """
    found = session.metadata.ordered(device_id, name)
    if found is None or found.sha256 != sha256:
        raise NotFoundError("there is no such container for this device")
    return found


def _orders(session: Session, device: Device) -> Iterator[tuple[Installation, Order]]:
    """What the device shall run; nothing while it is quarantined."""
    targets = session.metadata.newest("image", "targets")
    if targets is None or device.state != "active":
        return
    listed = catalogue(targets.body)
    ecus = {ecu.id: ecu for ecu in session.devices.ecus(device.id)}
    for installation in session.deployments.open_installations(device.id):
        ecu = ecus[installation.ecu_id]
        item = _item(session, installation)
        try:
            artifact = orderable(
                item.artifact,
                listed,
                hardware_id=ecu.hardware_id,
                release_counter=ecu.release_counter,
            )
        except ConflictError:
            continue  # withdrawn by the offline keys: not ordered any more
        yield (
            installation,
            Order(
                ecu.id,
                ecu.hardware_id,
                artifact,
                item.full,
                deployment=installation.deployment_id,
            ),
        )


def _item(session: Session, installation: Installation) -> ReleaseItem:
    deployment = session.deployments.find(installation.deployment_id)
    release = deployment and session.releases.find(deployment.release_id)
    items = release.items if release else ()
    return next(item for item in items if item.artifact.name == installation.path)


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


def _record(issued: Issued) -> DirectorRecord:
    versions = issued.versions
    return DirectorRecord(
        device_id=issued.device_id,
        targets=issued.targets,
        snapshot=issued.snapshot,
        timestamp=issued.timestamp,
        versions=(versions.targets, versions.snapshot, versions.timestamp),
        etag=hashlib.sha256(issued.timestamp).hexdigest()[:32],
        renew_at=int(issued.renew_at.timestamp()),
    )


def _offer(unit: Unit, installation: Installation) -> None:
    if State(installation.state) is State.WAITING:
        _moved(unit, installation, State.OFFERED)


def _moved(unit: Unit, installation: Installation, to: State) -> None:
    state = move(State(installation.state), to, Cause.SERVER)
    unit.session.deployments.save_installation(
        replace(installation, state=state.value, changed_at=unit.now)
    )


def _body(
    record: DirectorRecord, orders: Sequence[tuple[Installation, Order]]
) -> dict[str, object]:
    targets, snapshot, timestamp = record.versions
    return {
        "repository": "director",
        "targets": targets,
        "snapshot": snapshot,
        "timestamp": timestamp,
        "orders": [
            {"installation": installation.id, "path": order.artifact.name}
            for installation, order in orders
        ],
    }


def _refs(record: DirectorRecord) -> list[Ref]:
    digest = hashlib.sha256(record.targets).hexdigest()
    return [
        Ref("device", record.device_id),
        Ref("metadata", f"director/targets/{record.versions[0]}", digest),
    ]
