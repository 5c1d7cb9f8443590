"""Sending a release to devices, and taking it back.

A deployment resolves its devices when it is made and gives each of their components
that the release fits an installation. What a device is then told is the Director's
matter (``director``); what became of it, the reports'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref, printable
from sealift.core.errors import ConflictError, ForbiddenError, NotFoundError
from sealift.server.domain.catalogue import catalogue, orderable
from sealift.server.domain.installation import Cause, State, cancellable, move
from sealift.server.ports import Deployment, Installation
from sealift.server.services.audit import recorded
from sealift.server.services.offers import Place, noted
from sealift.server.services.wanting import want

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sealift.core.audit import Actor
    from sealift.core.types import Artifact
    from sealift.repo.entries import Listed
    from sealift.server.ports import (
        Device,
        Ecu,
        Means,
        PayloadPolicy,
        Release,
        Session,
    )
    from sealift.server.services.audit import Unit

__all__ = [
    "DeploymentView",
    "NewDeployment",
    "abort",
    "all_deployments",
    "create",
    "show_deployment",
]

LISTED_MAX = 200
"""Devices named in the event; more are counted."""


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """One deployment with its installations and how many are in each state."""

    deployment: Deployment
    counts: Mapping[str, int]
    installations: Sequence[Installation]


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """A release to send to the named devices, or with ``None`` to every active one.

    ``bytes_max`` caps each installation's body bytes. Deltas that are being made are
    waited for ``delta_wait`` minutes, if ``None`` as long as the settings say.
    """

    release_id: str
    devices: Sequence[str] | None = None
    reason: str = ""
    bytes_max: int | None = None
    delta_wait: int | None = None


def create(means: Means, actor: Actor, wanted: NewDeployment) -> DeploymentView:
    """Send a release to devices.

    An open installation of another release on the same component is superseded if the
    device has not switched yet.

    Raises:
        NotFoundError: no such release or device. ConflictError: a named device cannot
            take it (D10), or there is nothing to do on any device. ForbiddenError: an
            image in the open for hardware that takes sealed ones only.
    """
    with recorded(means, actor) as unit:
        release = unit.session.releases.find(wanted.release_id)
        if release is None:
            raise NotFoundError(f"there is no release {wanted.release_id}")
        _require_sealed(release, means.payload.must_seal)
        deployment = _deployment(means, unit, wanted)
        started = _Start(
            unit,
            release,
            deployment,
            _listed(unit.session),
            named=wanted.devices is not None,
        )
        made = started.everywhere(wanted.devices)
        pairs = want(unit, means.payload, release.items, deployment.id)
        for installation in made:
            started.first_offer(installation, means.payload)
        _record_start(unit, deployment, made, pairs)
        return _view(unit.session, deployment)


def abort(means: Means, actor: Actor, deployment_id: str, reason: str) -> Deployment:
    """Take back what no device has switched to yet; the others finish on their own.

    Raises:
        NotFoundError: there is no such deployment. ConflictError: it has ended.
    """
    with recorded(means, actor) as unit:
        found = _find(unit.session, deployment_id)
        if found.state != "running":
            raise ConflictError(f"deployment {deployment_id} is {found.state} already")
        cancelled = [
            _ended(unit, installation, State.CANCELLED)
            for installation in unit.session.deployments.installations(deployment_id)
            if cancellable(State(installation.state))
        ]
        aborted = replace(found, state="aborted")
        unit.session.deployments.save(aborted)
        unit.record(
            Kind.DEPLOYMENT_ABORTED,
            {"reason": printable(reason), "cancelled": len(cancelled)},
            [Ref("deployment", deployment_id)],
        )
    return aborted


def all_deployments(
    session: Session,
) -> Sequence[tuple[Deployment, Mapping[str, int]]]:
    """Every deployment, the newest first, with the counts of its installations."""
    deployments = session.deployments
    return [(found, deployments.counts(found.id)) for found in deployments.all()]


def show_deployment(session: Session, deployment_id: str) -> DeploymentView:
    """One deployment.

    Raises:
        NotFoundError: there is none of that id.
    """
    return _view(session, _find(session, deployment_id))


@dataclass(frozen=True, slots=True)
class _Start:
    """Makes the installations of one deployment, device by device."""

    unit: Unit
    release: Release
    deployment: Deployment
    listed: Mapping[str, Listed]
    named: bool

    def everywhere(self, names: Sequence[str] | None) -> list[Installation]:
        """The installations on all devices meant; raises as :func:`create`."""
        made = [
            installation
            for device in _devices(self.unit.session, names)
            for installation in self.on(device)
        ]
        if not made:
            raise ConflictError(
                f"no device needs {self.release.id}",
                hint="they run it already, or it is for other hardware",
            )
        return made

    def on(self, device: Device) -> Iterator[Installation]:
        """The installations on one device; a named device must be able to take it."""
        made = False
        for ecu in self.unit.session.devices.ecus(device.id):
            try:
                artifact = self._fitting(device, ecu)
                if artifact is None or not self._makes_room(ecu, artifact):
                    continue
            except ConflictError:
                if self.named:
                    raise
                continue
            made = True
            yield self._installation(ecu, artifact)
        if made:
            self.unit.session.metadata.outdate(device.id)
        elif self.named:
            raise ConflictError(
                f"{device.id} has no component that needs {self.release.id}",
                hint="it runs it already, or it is for other hardware",
            )

    def first_offer(self, installation: Installation, policy: PayloadPolicy) -> None:
        """Note how its image would travel now; decided anew at each poll till begun."""
        session = self.unit.session
        device = session.devices.find(installation.device_id)
        if device is None:
            raise NotFoundError(f"there is no device {installation.device_id}")
        ecus = {ecu.id: ecu for ecu in session.devices.ecus(device.id)}
        item = next(
            i for i in self.release.items if i.artifact.name == installation.path
        )
        place = Place(
            session,
            policy,
            self.unit.now,
            device,
            ecus[installation.ecu_id],
            self.deployment,
            item,
        )
        offer = noted(place.offer(installation))
        session.deployments.save_installation(replace(installation, offer=offer))

    def _fitting(self, device: Device, ecu: Ecu) -> Artifact | None:
        """The artifact for a component, ``None`` if there is none or it runs it."""
        if device.state != "active":
            raise ConflictError(f"{device.id} is {device.state}")
        fitting = [
            item.artifact
            for item in self.release.items
            if ecu.hardware_id in item.artifact.hardware_ids
        ]
        if len(fitting) > 1:
            raise ConflictError(f"{self.release.id} has two artifacts for {ecu.id}")
        if not fitting or ecu.installed_sha256 == fitting[0].sha256.hex():
            return None
        return orderable(
            fitting[0],
            self.listed,
            hardware_id=ecu.hardware_id,
            release_counter=ecu.release_counter,
        )

    def _makes_room(self, ecu: Ecu, artifact: Artifact) -> bool:
        """Whether the component is free now; an older order gives way if it can."""
        session = self.unit.session
        for known in session.deployments.open_installations(ecu.device_id):
            if known.ecu_id != ecu.id:
                continue
            if known.sha256 == artifact.sha256.hex():
                return False
            _ended(self.unit, known, State.SUPERSEDED)
            session.deployments.complete(known.deployment_id)
        return True

    def _installation(self, ecu: Ecu, artifact: Artifact) -> Installation:
        made = Installation(
            id=f"{self.deployment.id}/{ecu.device_id}/{ecu.id}",
            deployment_id=self.deployment.id,
            device_id=ecu.device_id,
            ecu_id=ecu.id,
            path=artifact.name,
            sha256=artifact.sha256.hex(),
            state=State.WAITING.value,
            code=None,
            changed_at=self.unit.now,
        )
        self.unit.session.deployments.save_installation(made)
        return made


def _record_start(
    unit: Unit, deployment: Deployment, made: Sequence[Installation], pairs: int
) -> None:
    names = sorted({installation.device_id for installation in made})
    unit.record(
        Kind.DEPLOYMENT_STARTED,
        {
            "reason": deployment.reason,
            "installations": len(made),
            "devices": names[:LISTED_MAX],
            "device_count": len(names),
            "bytes_max": deployment.bytes_max,
            "delta_wait_minutes": deployment.delta_wait,
            "wanted_deltas": pairs,
        },
        [Ref("deployment", deployment.id), Ref("release", deployment.release_id)],
    )


def _deployment(means: Means, unit: Unit, wanted: NewDeployment) -> Deployment:
    wait = wanted.delta_wait
    made = Deployment(
        id=f"d-{means.chance.token_bytes(8).hex()}",
        release_id=wanted.release_id,
        state="running",
        reason=printable(wanted.reason),
        created_at=unit.now,
        bytes_max=wanted.bytes_max,
        delta_wait=means.payload.wait_minutes if wait is None else wait,
    )
    unit.session.deployments.save(made)
    return made


def _require_sealed(release: Release, must_seal: frozenset[str]) -> None:
    for item in release.items:
        must = must_seal.intersection(item.artifact.hardware_ids)
        if must and not item.sealed:
            raise ForbiddenError(
                f"{item.artifact.name} is not sealed, and {', '.join(sorted(must))} "
                "takes sealed images only",
                hint="publish a sealed release",
            )


def _devices(session: Session, names: Sequence[str] | None) -> Iterator[Device]:
    if names is not None:
        for name in dict.fromkeys(names):
            device = session.devices.find(name)
            if device is None:
                raise NotFoundError(f"there is no device {name}")
            yield device
        return
    after = ""
    while page := session.devices.all(after):
        yield from (device for device in page if device.state == "active")
        after = page[-1].id


def _ended(unit: Unit, installation: Installation, end: State) -> Installation:
    state = move(State(installation.state), end, Cause.OPERATOR)
    ended = replace(installation, state=state.value, changed_at=unit.now)
    unit.session.deployments.save_installation(ended)
    unit.session.metadata.outdate(installation.device_id)
    return ended


def _listed(session: Session) -> Mapping[str, Listed]:
    targets = session.metadata.newest("image", "targets")
    return {} if targets is None else catalogue(targets.body)


def _find(session: Session, deployment_id: str) -> Deployment:
    found = session.deployments.find(deployment_id)
    if found is None:
        raise NotFoundError(f"there is no deployment {deployment_id}")
    return found


def _view(session: Session, deployment: Deployment) -> DeploymentView:
    return DeploymentView(
        deployment,
        session.deployments.counts(deployment.id),
        session.deployments.installations(deployment.id),
    )
