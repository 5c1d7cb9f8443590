"""Signing what a device says of itself, and checking it against the inventory.

A signed block is ``{"payload": …, "signature": {"keyid", "method", "hash_function",
"hash", "sig"}}`` (M1, M4): ``sig`` covers the canonical JSON of the payload, ``hash``
is its digest. The payload says its own type, so that no report passes for a manifest.
What the values mean is in ``reports``; whether a counter was used before, and whether a
time is plausible, is for the server, which remembers (M7 to M10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sealift.core import canonical, fields
from sealift.core.errors import (
    FormatError,
    LimitError,
    ReportInvalidError,
    SignatureError,
    TooLargeError,
)
from sealift.core.keys import MAX_SIGNATURE_HEX, PublicKey, verify
from sealift.core.reports import EcuReport, Json, Manifest

MAX_MANIFEST = 1 << 20
"""Bytes of a device manifest."""

MAX_REPORT = 16_384
"""Bytes of the canonical payload of an ECU report."""

MAX_ECUS = 256

_HASH = "sha256"


class Signer(Protocol):
    """A key that signs reports; ``agent.ports.DeviceKey`` is one."""

    def public(self) -> Mapping[str, object]:
        """The public key as a TUF key object."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign ``data``."""
        ...


@dataclass(frozen=True, slots=True)
class Unit:
    """One ECU as the inventory knows it (B3, B4)."""

    hardware_id: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class Inventory:
    """One device as the inventory knows it: its id, its Primary and all its ECUs."""

    device_id: str
    primary: str
    units: Mapping[str, Unit]


def sign_report(report: EcuReport, signer: Signer) -> Json:
    """The report as a block signed by its ECU.

    Raises:
        LimitError: the report is too large for a manifest.
    """
    payload = report.to_json()
    if len(canonical.encode(payload)) > MAX_REPORT:
        raise LimitError(f"the report of {report.ecu_id} is larger than {MAX_REPORT} B")
    return _signed(payload, signer)


def sign_manifest(
    manifest: Manifest, reports: Mapping[str, Json], signer: Signer
) -> bytes:
    """The manifest as the bytes that are stored, sent, and hashed into the next one.

    ``reports`` are the signed blocks of all ECUs by id, the Primary's own too (M3).

    Raises:
        LimitError: the manifest is too large.
    """
    raw = canonical.encode(_signed(manifest.to_json(reports), signer))
    if len(raw) > MAX_MANIFEST:
        raise LimitError(f"the manifest is larger than {MAX_MANIFEST} B")
    return raw


def _signed(payload: Json, signer: Signer) -> Json:
    data = canonical.encode(payload)
    key = PublicKey.from_json(signer.public())
    return {
        "payload": payload,
        "signature": {
            "keyid": key.key_id,
            "method": key.scheme,
            "hash_function": _HASH,
            "hash": hashlib.sha256(data).hexdigest(),
            "sig": signer.sign(data).hex(),
        },
    }


def verify_manifest(raw: bytes, inventory: Inventory) -> Manifest:
    """What the device of ``inventory`` says, if all of its ECUs say so (D3).

    Raises:
        TooLargeError: more than 1 MiB.
        ReportInvalidError: malformed, for another device or Primary, an ECU missing or
            unknown (M9), a wrong hardware id, or a signature that does not verify.
    """
    if len(raw) > MAX_MANIFEST:
        raise TooLargeError(
            f"the manifest has {len(raw)} bytes, {MAX_MANIFEST} allowed"
        )
    try:
        return _verified(raw, inventory)
    except (FormatError, SignatureError) as error:
        raise ReportInvalidError(
            f"the manifest is not valid: {error.message}"
        ) from error


def _verified(raw: bytes, inventory: Inventory) -> Manifest:
    found = canonical.parse_object(raw, MAX_MANIFEST, own=True)
    primary = inventory.units[inventory.primary]
    payload = _payload(found, primary.key)
    listed = fields.at_most(fields.member(payload, "reports"), MAX_ECUS, "reports")
    _require_all(listed, inventory)
    reports = tuple(
        _report(fields.member(listed, ecu_id), ecu_id, inventory.units[ecu_id])
        for ecu_id in sorted(listed)
    )
    manifest = Manifest.from_json(payload, reports)
    if (manifest.device_id, manifest.primary) != (
        inventory.device_id,
        inventory.primary,
    ):  # M2, D8
        raise ReportInvalidError("the manifest is of another device or Primary")
    own = next(r for r in reports if r.ecu_id == manifest.primary)  # M3
    if (own.counter, own.nonce) != (manifest.counter, manifest.nonce):  # E-10
        raise ReportInvalidError("the Primary's report belongs to another manifest")
    return manifest


def _require_all(listed: Mapping[str, object], inventory: Inventory) -> None:
    """M9: a missing ECU may be a partial bundle, an unknown one an added part."""
    for ecu_id in sorted(inventory.units.keys() - listed.keys()):
        raise ReportInvalidError(
            f"{ecu_id} does not report", ecu=ecu_id, reason="missing"
        )
    for ecu_id in sorted(listed.keys() - inventory.units.keys()):
        raise ReportInvalidError(
            "an ECU reports that is not in the inventory", ecu=ecu_id, reason="unknown"
        )


def _report(block: Mapping[str, object], ecu_id: str, unit: Unit) -> EcuReport:
    payload = _payload(block, unit.key)
    if len(canonical.encode(payload)) > MAX_REPORT:
        raise LimitError(f"the report of an ECU is larger than {MAX_REPORT} B")
    report = EcuReport.from_json(payload)
    if (report.ecu_id, report.hardware_id) != (ecu_id, unit.hardware_id):  # B4
        raise ReportInvalidError(
            f"the report of {ecu_id} is of another ECU or hardware", ecu=ecu_id
        )
    return report


def _payload(block: Mapping[str, object], key: PublicKey) -> Mapping[str, object]:
    """The payload of a block that ``key`` signed (M1)."""
    payload = fields.member(block, "payload")
    signature = fields.member(block, "signature")
    data = canonical.encode(payload)
    named = (
        fields.text(signature, "keyid", 128),
        fields.text(signature, "method", 64),
        fields.text(signature, "hash_function", 64),
        fields.digest(signature, "hash", 32),
    )
    if named != (key.key_id, key.scheme, _HASH, hashlib.sha256(data).digest()):
        raise SignatureError("a signature names another key, method or content")
    text = fields.text(signature, "sig", MAX_SIGNATURE_HEX)
    verify(key, fields.digest(signature, "sig", len(text) // 2), data)
    return payload
