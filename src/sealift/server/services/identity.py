"""Who is a device: enrol, renew, revoke, and look up the bearer of a certificate.

An id that exists never gets another key this way (E-07), and a report key belongs to
one identity for ever (E-08). Revoking is a row change that the next request meets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref, printable
from sealift.core.errors import (
    AuthRequiredError,
    ConflictError,
    ForbiddenError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    RevokedError,
)
from sealift.core.hpke import Recipient
from sealift.core.keys import PublicKey
from sealift.server.ports import Caller, Certificate, Device, Ecu
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sealift.core.audit import Actor
    from sealift.server.ports import Issued, Means, Session
    from sealift.server.services.audit import Unit

__all__ = [
    "Enrolled",
    "NewDevice",
    "NewEcu",
    "caller_of",
    "enrol",
    "renew",
    "retire",
    "revoke",
]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
OVERLAP = timedelta(days=1)
"""How long a replaced certificate stays good once the new one was used."""
BACKDATED = timedelta(days=1)
"""A certificate is valid since a day before it was issued."""
LATE_MAX = timedelta(days=400)
"""How long after its end the last certificate of a device still renews."""
A_DAY_MAX = 10
LISTED_MAX = 64
"""Components named in the event; more are counted."""
_KEYTYPES = frozenset({"ed25519", "ecdsa"})


@dataclass(frozen=True, slots=True)
class NewEcu:
    """A component of a device that is being enrolled."""

    ecu_id: str
    hardware_id: str


@dataclass(frozen=True, slots=True)
class NewDevice:
    """What a device is enrolled with; the first component is the primary.

    ``csr`` is a PKCS #10 request in PEM, ``report_key`` a TUF key object,
    ``decryption_key`` ``{"kem", "public"}``; without one it gets no sealed images.
    """

    device_id: str
    csr: bytes
    report_key: Mapping[str, object]
    ecus: tuple[NewEcu, ...]
    decryption_key: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a device needs back: its certificate."""

    device: Device
    certificate: Certificate


def enrol(means: Means, actor: Actor, wanted: NewDevice) -> Enrolled:
    """Register a device and give it a certificate.

    Raises:
        ConflictError: the id exists. InvalidInputError: a bad id, component, request or
            key, or a report key that another identity has.
    """
    key = _report_key(wanted.report_key)
    recipient = _recipient(wanted.decryption_key)
    _check_names(wanted, means.ecus_max)
    with recorded(means, actor) as unit:
        _require_new(unit.session, wanted.device_id, key)
        issued = means.authority.issue(wanted.device_id, wanted.csr, unit.now)
        if unit.session.devices.holder(issued.key_sha256) is not None:
            raise InvalidInputError("the TLS key belongs to another identity")
        device = Device(
            wanted.device_id,
            "active",
            key.key_id,
            key.to_json(),
            unit.now,
            decryption_key=_stored(recipient),
        )
        certificate = _certificate(device, issued)
        devices = unit.session.devices
        devices.save(device)
        devices.save_certificate(certificate)
        for number, ecu in enumerate(wanted.ecus):
            devices.save_ecu(Ecu(ecu.ecu_id, device.id, ecu.hardware_id, not number))
        _record(unit, wanted, certificate, key, recipient)
    return Enrolled(device, certificate)


def renew(means: Means, actor: Actor, shown_sha256: str, csr: bytes) -> Certificate:
    """A new certificate for the bearer of one, for the key in the request.

    The same request again, after a lost answer, is answered by the same certificate.
    The old one stays good until :func:`retire` (RFC 7030, 4.2.2).

    Raises:
        AuthRequiredError: an unknown certificate. RevokedError: it, or its device, was
            revoked. ForbiddenError: the device is quarantined, or the certificate
            expired and is not the last one, or too long ago: a person decides then.
        InvalidInputError: a malformed request, another name, or a key that another
            identity has. RateLimitedError: too many in a day.
    """
    caller = caller_of(means.store.reader, shown_sha256)
    asked = means.authority.asked(csr)
    if asked.names not in {(), (caller.device_id,)}:
        raise InvalidInputError(
            "the request names somebody else", hint=f"CN is {caller.device_id}"
        )
    with recorded(means, actor) as unit:
        devices = unit.session.devices
        device = devices.find(caller.device_id)
        if device is None or device.state != "active":
            raise ForbiddenError(
                "only an active device gets a new certificate",
                hint="the operator of the fleet decides about this one",
            )
        issued = devices.certificates(device.id)
        shown = next(it for it in issued if it.sha256 == shown_sha256)
        if shown.revoked_at is not None:  # revoked since it was looked up
            raise RevokedError("this certificate was revoked")
        _require_renewable(shown, issued[0], unit.now)
        holder = devices.holder(asked.key_sha256)
        if holder not in {None, device.id}:
            raise InvalidInputError("the key in the request belongs to somebody else")
        if (again := _again(issued[0], shown, asked.key_sha256, unit.now)) is not None:
            return again
        _require_patience(issued, unit.now)
        fresh = means.authority.issue(device.id, csr, unit.now)
        certificate = _certificate(device, fresh)
        devices.save_certificate(certificate)
        late = max(0, (unit.now - shown.not_after).days)
        unit.record(
            Kind.DEVICE_RENEWED,
            {"serial": certificate.serial, "shown": shown.serial, "days_late": late},
            [
                Ref("device", device.id),
                Ref("certificate", certificate.serial, certificate.sha256),
            ],
        )
    return certificate


def retire(means: Means, actor: Actor) -> None:
    """Take back what newer certificates, in use for a day, have replaced."""
    used_before = means.clock.now() - OVERLAP
    for device_id in means.store.reader.devices.superseded(used_before):
        _retire(means, actor, device_id, used_before)


def _retire(means: Means, actor: Actor, device_id: str, used_before: datetime) -> None:
    with recorded(means, actor) as unit:
        devices = unit.session.devices
        replaced, gone = False, []
        for it in devices.certificates(device_id):  # the newest first
            if replaced and it.revoked_at is None:
                devices.save_certificate(replace(it, revoked_at=unit.now))
                gone.append(it)
            used = it.used_at is not None and it.used_at < used_before
            replaced = replaced or (used and it.revoked_at is None)
        if gone:
            unit.record(
                Kind.CERTIFICATE_RETIRED,
                {"serials": [it.serial for it in gone[:LISTED_MAX]]},
                [Ref("device", device_id)],
            )


def _require_renewable(shown: Certificate, last: Certificate, now: datetime) -> None:
    """An expired certificate counts for a while, if nothing newer was ever issued."""
    if now <= shown.not_after:
        return
    if shown.sha256 != last.sha256:
        raise ForbiddenError(
            "this certificate expired, and a newer one was issued",
            hint="who holds an old one only must be let in by an operator",
        )
    if now - shown.not_after > LATE_MAX:
        raise ForbiddenError(
            f"this certificate expired more than {LATE_MAX.days} days ago",
            hint="the operator of the fleet has to let this device in again",
        )


def _again(
    last: Certificate, shown: Certificate, key_sha256: str, now: datetime
) -> Certificate | None:
    """The certificate that answered this very wish a moment ago, if one did."""
    fresh = now - last.not_before <= BACKDATED + OVERLAP
    same = last.sha256 != shown.sha256 and last.key_sha256 == key_sha256
    return last if same and fresh and last.revoked_at is None else None


def _require_patience(issued: Sequence[Certificate], now: datetime) -> None:
    recent = [it for it in issued if now - it.not_before <= BACKDATED + OVERLAP]
    if len(recent) > A_DAY_MAX:
        raise RateLimitedError(f"{A_DAY_MAX} certificates a day are enough")


def revoke(means: Means, actor: Actor, device_id: str, reason: str) -> Device:
    """Revoke a device and every certificate of it; its history stays.

    Revoking a revoked device changes nothing.

    Raises:
        NotFoundError: there is no such device.
    """
    with recorded(means, actor) as unit:
        devices = unit.session.devices
        device = devices.find(device_id)
        if device is None:
            raise NotFoundError(f"there is no device {device_id}")
        if device.state == "revoked":
            return device
        revoked = replace(device, state="revoked")
        devices.save(revoked)
        for certificate in devices.certificates(device_id):
            devices.save_certificate(replace(certificate, revoked_at=unit.now))
        unit.record(
            Kind.DEVICE_REVOKED,
            {"reason": printable(reason)},
            [Ref("device", device_id)],
        )
    return revoked


def caller_of(session: Session, certificate_sha256: str) -> Caller:
    """Whose certificate this is, asked on every request.

    Raises:
        AuthRequiredError: not one of ours. RevokedError: it or its device was revoked.
    """
    caller = session.devices.caller(certificate_sha256)
    if caller is None:
        raise AuthRequiredError("this certificate belongs to no device here")
    if caller.certificate_revoked or caller.device_state == "revoked":
        raise RevokedError(
            "this identity was revoked", hint="the operator of the fleet knows why"
        )
    return caller


def _require_new(session: Session, device_id: str, key: PublicKey) -> None:
    if session.devices.find(device_id) is not None:
        raise ConflictError(
            f"device {device_id} exists already",
            hint="an id never gets a second key this way; choose another id",
        )
    if session.devices.key_in_use(key.key_id):
        raise InvalidInputError("the report key belongs to another identity")


def _certificate(device: Device, issued: Issued) -> Certificate:
    return Certificate(
        sha256=issued.sha256,
        device_id=device.id,
        serial=issued.serial,
        not_before=issued.not_before,
        not_after=issued.not_after,
        revoked_at=None,
        pem=issued.pem,
        key_sha256=issued.key_sha256,
    )


def _record(
    unit: Unit,
    wanted: NewDevice,
    certificate: Certificate,
    key: PublicKey,
    recipient: Recipient | None,
) -> None:
    ecus = [{"id": e.ecu_id, "hardware_id": e.hardware_id} for e in wanted.ecus]
    unit.record(
        Kind.DEVICE_ENROLLED,
        {
            "report_key_id": key.key_id,
            "decryption_kid": recipient and recipient.kid,
            "serial": certificate.serial,
            "ecus": ecus[:LISTED_MAX],
            "ecu_count": len(ecus),
        },
        [
            Ref("device", wanted.device_id),
            Ref("certificate", certificate.serial, certificate.sha256),
        ],
    )


def _report_key(found: Mapping[str, object]) -> PublicKey:
    try:
        key = PublicKey.from_json(dict(found))
    except FormatError as error:
        raise InvalidInputError(f"the report key: {error.message}") from error
    if key.keytype not in _KEYTYPES or key.identity.startswith(b"undecoded\0"):
        raise InvalidInputError(
            "the report key is not a sound Ed25519 or ECDSA key",
            hint="a TUF key object; points of small order are refused",
        )
    return key


def _recipient(found: Mapping[str, object] | None) -> Recipient | None:
    if found is None:
        return None
    try:
        return Recipient.from_json(found)
    except FormatError as error:
        raise InvalidInputError(f"the decryption key: {error.message}") from error


def _stored(key: Recipient | None) -> Mapping[str, str] | None:
    return None if key is None else {"kem": key.kem, "public": key.public.hex()}


def _check_names(wanted: NewDevice, ecus_max: int) -> None:
    if not 1 <= len(wanted.ecus) <= ecus_max:
        raise InvalidInputError(f"a device has 1 to {ecus_max} components")
    names = [ecu.ecu_id for ecu in wanted.ecus]
    if len(set(names)) != len(names):
        raise InvalidInputError("a component id is there twice")
    for name in (wanted.device_id, *names, *(e.hardware_id for e in wanted.ecus)):
        if not _ID.match(name):
            raise InvalidInputError(
                f"{printable(name, 80)!r} cannot be an id",
                hint="letters, digits and . _ : - after the first, at most 64",
            )
