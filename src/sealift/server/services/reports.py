"""Signed reports: checked against the inventory and the device's own history.

Whatever a report turns out to be, it is kept as evidence first (bounded per device and
day) and answered then. An accepted one moves the inventory and the installations; a
fork of the history quarantines the identity. Texts in reports are data (M14).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref, printable
from sealift.core.errors import (
    NotFoundError,
    ReportInvalidError,
    ReportReplayError,
    RequestError,
)
from sealift.core.keys import PublicKey
from sealift.core.manifest import Inventory, verify_manifest
from sealift.core.manifest import Unit as InventoryUnit
from sealift.server.domain.installation import (
    OPEN,
    State,
    state_after_report,
    statements,
)
from sealift.server.domain.reporting import KEPT, Arrived, Known, Verdict, judge
from sealift.server.ports import Done
from sealift.server.ports import Manifest as KeptManifest
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sealift.core.audit import Actor
    from sealift.core.reports import EcuReport, Manifest
    from sealift.server.ports import Device, Ecu, Installation, Means
    from sealift.server.services.audit import Unit

__all__ = ["receive"]

AHEAD_MAX = timedelta(hours=24)
"""How far the time a device vouches for may be ahead of ours (M10)."""
EVIDENCE_BYTES_MAX = 64 * 1024
"""Bytes kept of a refused report; its digest is of all of it."""
REFUSED_PER_DAY = 100
"""Refused reports kept per device and day: a device must not fill the disk."""


def receive(means: Means, actor: Actor, device_id: str, body: bytes) -> None:
    """Take one report of a device.

    Raises:
        ReportReplayError: said before, older than what was said, or a second holder of
            the identity, which is quarantined then (M7, M8). ReportInvalidError: its
            form, signatures, components or times, or a hole in the history.
    """
    with recorded(means, actor) as unit:
        refusal = _taken(unit, device_id, body)
    if refusal is not None:
        raise refusal


def _taken(unit: Unit, device_id: str, body: bytes) -> RequestError | None:
    """What the report changes is in the transaction; what to answer is returned."""
    device = unit.session.devices.find(device_id)
    if device is None:
        raise NotFoundError("there is no such device")
    arrival = _Arrival(unit, device, body, hashlib.sha256(body).hexdigest())
    try:
        manifest = verify_manifest(body, arrival.inventory())
        arrival.require_plausible(manifest)
    except RequestError as error:
        return arrival.refused(error)
    match arrival.judged(manifest):
        case Verdict.ACCEPTED:
            arrival.accepted(manifest)
            return None
        case Verdict.REPLAY:
            again = ReportReplayError("this report, or a later one, was taken already")
            return arrival.refused(again, manifest.counter)
        case Verdict.FORK:
            return arrival.forked(manifest)
        case Verdict.UNCONNECTED:
            hole = ReportInvalidError("a report before this one is missing")
            return arrival.refused(hole, manifest.counter)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """One report at the door."""

    unit: Unit
    device: Device
    body: bytes
    sha256: str

    def inventory(self) -> Inventory:
        """The device as it was enrolled (B3, B4)."""
        key = PublicKey.from_json(dict(self.device.report_key))
        ecus = self.unit.session.devices.ecus(self.device.id)
        primary = next(ecu.id for ecu in ecus if ecu.primary)
        units = {ecu.id: InventoryUnit(ecu.hardware_id, key) for ecu in ecus}
        return Inventory(self.device.id, primary, units)

    def require_plausible(self, manifest: Manifest) -> None:
        """M10: the vouched time never runs back, nor far ahead of ours.

        It may run back once a newer Root shows that the floor was reset (R5).
        """
        newest = max(report.time for report in manifest.reports)
        if newest > self.unit.now + AHEAD_MAX:
            raise ReportInvalidError("the report vouches for a time in the future")
        before = self.device.report_time
        if before is not None and newest < before and not self._new_root(manifest):
            raise ReportInvalidError("the time the report vouches for ran back")

    def _new_root(self, manifest: Manifest) -> bool:
        return any(
            manifest.versions.get(repository, {}).get("root", 0)
            > self.device.versions.get(repository, {}).get("root", 0)
            for repository in ("director", "image")
        )

    def judged(self, manifest: Manifest) -> Verdict:
        """Whether it continues, repeats or forks what the device told before."""
        hashes = self.unit.session.manifests.accepted(self.device.id, KEPT)
        arrived = Arrived(
            self.sha256, manifest.counter, manifest.previous, manifest.gap
        )
        return judge(Known(self.device.counter, hashes), arrived)

    # ── what becomes of it ───────────────────────────────────────────────────────────
    def accepted(self, manifest: Manifest) -> None:
        """Move inventory and installations."""
        self._keep("accepted", manifest.counter, self.body)
        changed = self._inventory_moved(manifest)
        moves = list(self._moves(manifest))
        if moves or changed or self._able_anew(manifest) or self._ahead(manifest):
            self.unit.session.metadata.outdate(self.device.id)
        kind = Kind.INSTALLATION_STATE if moves else Kind.MANIFEST_ACCEPTED
        self._record(
            kind,
            {
                "counter": manifest.counter,
                "gap": manifest.gap,
                "time_source": manifest.time_source,
                "installations": moves,
                "attacks": _attacks(manifest),
            },
        )

    def refused(self, error: RequestError, counter: int | None = None) -> RequestError:
        """Keep it as evidence, unless we have it or the day's share is used up."""
        since = self.unit.now - timedelta(days=1)
        manifests = self.unit.session.manifests
        if manifests.refused_since(self.device.id, since) >= REFUSED_PER_DAY:
            return error
        if self._keep(error.code, counter, self.body[:EVIDENCE_BYTES_MAX]):
            body = {"code": error.code, "length": len(self.body)}
            self._record(Kind.MANIFEST_REFUSED, body)
        return error

    def forked(self, manifest: Manifest) -> RequestError:
        """M8: two holders of one identity. Nothing is given to either any more."""
        error = ReportReplayError(
            "two devices report under this identity; it is quarantined",
            hint="the operator must enrol the genuine device anew, with a new key",
        )
        if self.device.state == "quarantined":
            return self.refused(error, manifest.counter)
        self._keep(error.code, manifest.counter, self.body[:EVIDENCE_BYTES_MAX])
        self.unit.session.devices.save(replace(self.device, state="quarantined"))
        self.unit.session.metadata.outdate(self.device.id)
        self._record(
            Kind.DEVICE_QUARANTINED,
            {"reason": "clone alarm", "counter": manifest.counter},
        )
        return error

    def _inventory_moved(self, manifest: Manifest) -> bool:
        """Keep what the device says of itself; whether it runs anything else now."""
        devices = self.unit.session.devices
        devices.save(
            replace(
                self.device,
                counter=max(self.device.counter, manifest.counter),
                reported_at=self.unit.now,
                report_time=max(report.time for report in manifest.reports),
                time_source=manifest.time_source,
                versions=manifest.versions,
                abilities=manifest.abilities,
                reported_kid=manifest.kid,
            )
        )
        known = {ecu.id: ecu for ecu in devices.ecus(self.device.id)}
        said = [_updated(known[report.ecu_id], report) for report in manifest.reports]
        for ecu in said:
            devices.save_ecu(ecu)
        return any(known[ecu.id] != ecu for ecu in said)

    def _able_anew(self, manifest: Manifest) -> bool:
        """It can do other things than before, so other offers may be for it."""
        said = manifest.abilities, manifest.kid
        return said != (self.device.abilities, self.device.reported_kid)

    def _ahead(self, manifest: Manifest) -> bool:
        """D11: the device trusts higher versions than we issued."""
        record = self.unit.session.metadata.director(self.device.id)
        issued = record.versions if record is not None else (0, 0, 0)
        said = manifest.versions.get("director", {})
        roles = ("targets", "snapshot", "timestamp")
        return any(said.get(r, 0) > own for r, own in zip(roles, issued, strict=True))

    # ── details ──────────────────────────────────────────────────────────────────────
    def _keep(self, verdict: str, counter: int | None, body: bytes) -> bool:
        kept = KeptManifest(
            self.device.id, self.sha256, counter, self.unit.now, verdict, body
        )
        return self.unit.session.manifests.add(kept)

    def _record(self, kind: Kind, body: dict[str, object]) -> None:
        refs = [
            Ref("device", self.device.id),
            Ref("manifest", self.sha256[:16], self.sha256),
        ]
        self.unit.record(kind, body, refs)

    def _moves(self, manifest: Manifest) -> Iterator[dict[str, object]]:
        """Installations that the report moves, each as the event tells it."""
        deployments = self.unit.session.deployments
        reports = {report.ecu_id: report for report in manifest.reports}
        for installation in self._concerned(manifest):
            moved = _moved(installation, reports[installation.ecu_id], self.unit.now)
            if (moved.state, moved.done) == (installation.state, installation.done):
                continue
            deployments.save_installation(moved)
            deployments.complete(installation.deployment_id)
            yield {
                "id": installation.id,
                "from": installation.state,
                "to": moved.state,
                "code": moved.code,
                **_taken_bytes(moved.done),
            }

    def _concerned(self, manifest: Manifest) -> Iterator[Installation]:
        """Open installations, and ended ones whose result comes only now."""
        deployments = self.unit.session.deployments
        yield from deployments.open_installations(self.device.id)
        named = {r.deployment for report in manifest.reports for r in report.results}
        if named - {None}:
            for ended in deployments.installations_on(self.device.id):
                if ended.deployment_id in named and State(ended.state) not in OPEN:
                    yield ended


def _updated(ecu: Ecu, report: EcuReport) -> Ecu:
    attack = None if report.attack is None else printable(report.attack, 64)
    runs = report.installed
    if runs is None:
        return replace(ecu, attack=attack)
    return replace(
        ecu,
        installed_name=runs.name,
        installed_sha256=runs.sha256.hex(),
        installed_length=runs.length,
        installed_version=runs.version,
        release_counter=runs.release_counter,
        attack=attack,
    )


def _moved(
    installation: Installation, report: EcuReport, now: datetime
) -> Installation:
    """The installation after everything the report says of it."""
    ordered = bytes.fromhex(installation.sha256)
    state, code = State(installation.state), installation.code
    for said, its_code in statements(report, installation.deployment_id):
        if state not in OPEN:
            break
        after = state_after_report(state, ordered, said)
        if after is not state:
            state, code = after, its_code
    done = _done(installation, report)
    return replace(
        installation, state=state.value, code=code, changed_at=now, done=done
    )


def _done(installation: Installation, report: EcuReport) -> Done | None:
    """What the newest attempt at this order took, if the report tells it."""
    known = installation.done
    nameless = {None} if State(installation.state) in OPEN else set()
    for result in report.results:
        ours = result.deployment in {installation.deployment_id, *nameless}
        if ours and result.sha256.hex() == installation.sha256:
            known = Done(result.method, result.transferred, result.repaired)
    return known


def _taken_bytes(done: Done | None) -> dict[str, object]:
    """What it took as events tell it: a repaired base is evidence."""
    return {} if done is None else asdict(done)


def _attacks(manifest: Manifest) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [
        {"ecu": report.ecu_id, "code": printable(report.attack, 64)}
        for report in manifest.reports
        if report.attack is not None
    ]
    return found[:64]
