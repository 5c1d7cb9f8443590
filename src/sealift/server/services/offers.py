"""What one installation is offered at this moment.

Gathers what the pure chooser needs. A device that has begun keeps what it began with;
one that has not changes over to a delta when that appears. A part of other use cases,
inside their transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from sealift.core.hpke import Recipient
from sealift.payload.mcu import choose as choose_patch
from sealift.server import ports
from sealift.server.domain.chooser import (
    Held,
    Known,
    Limits,
    Method,
    Offer,
    Target,
    Why,
    choose,
)
from sealift.server.domain.deltas import DeltaState, is_awaited
from sealift.server.domain.installation import State

if TYPE_CHECKING:
    from datetime import datetime

    from sealift.core.types import Container, Patch
    from sealift.server.ports import (
        Deployment,
        Device,
        Ecu,
        Installation,
        PayloadPolicy,
        ReleaseItem,
        Session,
    )

__all__ = ["Place", "noted", "recipient"]


@dataclass(frozen=True)
class Place:
    """One installation with everything that bears on how its image travels."""

    session: Session
    policy: PayloadPolicy
    now: datetime
    device: Device
    ecu: Ecu
    deployment: Deployment
    item: ReleaseItem

    def offer(self, installation: Installation) -> Offer | Held:
        """How its image travels, or why it does not now."""
        if self._must_seal:
            detail = f"{self.ecu.hardware_id} takes sealed images only"
            return Held(Why.POLICY, self.item.full.length, detail)
        begun = State(installation.state) not in {State.WAITING, State.OFFERED}
        if begun and installation.offer is not None:
            return self._kept(installation.offer)
        return choose(self._known, self._target, self._limits)

    def patch(self, found: Offer) -> Patch | None:
        """What a microcontroller gets beside its image, if that fits the budget."""
        row, runs = self._row, self.ecu.installed_sha256
        if row is None or runs is None or found.method is Method.NONE:
            return None
        offers = () if _ready(row) is None or row.patch is None else (row.patch,)
        recipe = self.policy.recipes.get(self.ecu.hardware_id)
        patch = choose_patch(offers, recipe, bytes.fromhex(runs))
        most = self.deployment.bytes_max
        dear = patch and most is not None and found.bytes + patch.length > most
        return None if dear else patch

    @cached_property
    def waits_until(self) -> datetime:
        """The moment from which the deployment does not wait for deltas any more."""
        return self.deployment.created_at + timedelta(
            minutes=self.deployment.delta_wait
        )

    @property
    def _must_seal(self) -> bool:
        return self.ecu.hardware_id in self.policy.must_seal and not self.item.sealed

    def _kept(self, offered: ports.Offer) -> Offer:
        """What a device has begun with; a delta only if it is still there."""
        if offered.method == Method.DELTA and offered.base_sha256 is not None:
            delta = _ready(self._between(offered.base_sha256))
            if delta is not None:
                return Offer(Method.DELTA, delta.length, delta)
        return Offer(Method.FULL, self.item.full.length)

    @cached_property
    def _row(self) -> ports.Delta | None:
        """The pair of what the device runs and what it shall run."""
        runs = self.ecu.installed_sha256
        return None if runs is None else self._between(runs)

    def _between(self, base: str) -> ports.Delta | None:
        return self.session.deltas.between(base, self.item.full.sha256.hex())

    @property
    def _known(self) -> Known:
        runs, key = self.ecu.installed_sha256, recipient(self.device)
        return Known(
            runs=None if runs is None else bytes.fromhex(runs),
            abilities=self.device.abilities,
            kem=None if key is None else key.kem,
            kid=None if key is None else key.kid,
            reported_kid=self.device.reported_kid,
        )

    @property
    def _target(self) -> Target:
        delta = _ready(self._row)
        return Target(
            sha256=self.item.artifact.sha256,
            full=self.item.full,
            sealed=self.item.sealed,
            deltas=() if delta is None else (delta,),
        )

    @property
    def _limits(self) -> Limits:
        row = self._row
        waits = row is not None and is_awaited(DeltaState(row.state), row.attempts)
        return Limits(self.deployment.bytes_max, waits and self.now < self.waits_until)


def recipient(device: Device) -> Recipient | None:
    """The key sealed images are wrapped to for a device, as it was enrolled."""
    found = device.decryption_key
    if found is None:
        return None
    return Recipient(found["kem"], bytes.fromhex(found["public"]))


def noted(found: Offer | Held) -> ports.Offer:
    """A decision as it is kept with the installation."""
    if isinstance(found, Held):
        return ports.Offer(None, found.bytes, None, found.why.value, found.detail)
    base = found.delta and found.delta.base_sha256
    return ports.Offer(found.method.value, found.bytes, base.hex() if base else None)


def _ready(row: ports.Delta | None) -> Container | None:
    return row.container if row and row.state == DeltaState.READY else None
