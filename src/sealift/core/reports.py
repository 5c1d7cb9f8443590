"""What a device says of itself: the values of an ECU report and of a device manifest.

They come from a device, so every text in them is data: capped, without control
characters, never a path and never part of a log format (M14). How they are signed and
checked is in ``manifest``. The design is in ``uptane.md`` section 6.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sealift.core import fields
from sealift.core.canonical import nfc
from sealift.core.errors import MalformedError

MAX_RESULTS = 16
"""Ended attempts in one ECU report; the outbox hands over one at a time."""

MAX_ID = 128
MAX_DETAIL = 1000
NONCE_BYTES = 16

TIME_SOURCES = frozenset({"clock", "build", "metadata", "nts"})
KEY_STORES = frozenset({"file", "keyring", "pkcs11", "tpm"})
CRYPTO_PROFILES = frozenset({"classic", "hybrid"})
VERDICTS = frozenset({"succeeded", "failed", "rolled_back", "superseded"})
METHODS = frozenset({"none", "delta", "full"})

MAX_ABILITIES = 32
MAX_ABILITY = 64
"""Characters of one ability."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Installed:
    """The image an ECU confirmed and runs (M5); the digest is of the plain image."""

    name: str
    length: int
    sha256: bytes
    version: str
    release_counter: int

    def to_json(self) -> Json:
        """As it stands in a report."""
        return {
            "name": self.name,
            "length": self.length,
            "hashes": {"sha256": self.sha256.hex()},
            "version": self.version,
            "release_counter": self.release_counter,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Installed:
        """Read :meth:`to_json`; raises ``MalformedError`` or ``LimitError``."""
        return cls(
            fields.text(found, "name", 1024),
            fields.count(found, "length"),
            fields.digest(fields.member(found, "hashes"), "sha256", 32),
            fields.text(found, "version", MAX_ID),
            fields.count(found, "release_counter"),
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """An authorised install that is not over: what was ordered, and how far it is."""

    sha256: bytes
    director_version: int
    stage: str
    deployment: str | None = None

    def to_json(self) -> Json:
        """As it stands in a report."""
        return {
            "sha256": self.sha256.hex(),
            "director_version": self.director_version,
            "stage": self.stage,
            "deployment": self.deployment,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Pending:
        """Read :meth:`to_json`; raises ``MalformedError`` or ``LimitError``."""
        return cls(
            fields.digest(found, "sha256", 32),
            fields.count(found, "director_version", 1),
            fields.text(found, "stage", MAX_ID),
            _maybe_text(found, "deployment", 256),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """How one attempt ended. ``attempt`` names it, however often it is told.

    ``verdict`` is one of :data:`VERDICTS`, ``stage`` the state in which it was decided,
    ``code`` an error code. Times are UTC, ``transferred`` body bytes. ``method`` is one
    of :data:`METHODS`, how the image came; ``repaired`` counts the segments that a
    changed base cost. ``None`` is unknown.
    """

    attempt: str
    verdict: str
    stage: str
    sha256: bytes
    director_version: int
    from_version: str | None
    to_version: str
    deployment: str | None = None
    code: str | None = None
    detail: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    transferred: int | None = None
    method: str | None = None
    repaired: int | None = None

    def to_json(self) -> Json:
        """As it stands in a report. ``detail`` is cut and made plain here."""
        return {
            "attempt": self.attempt,
            "verdict": self.verdict,
            "stage": self.stage,
            "sha256": self.sha256.hex(),
            "director_version": self.director_version,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "deployment": self.deployment,
            "code": self.code,
            "detail": plain(self.detail),
            "started": self.started and fields.written(self.started),
            "ended": self.ended and fields.written(self.ended),
            "transferred": self.transferred,
            "method": self.method,
            "repaired": self.repaired,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Result:
        """Read :meth:`to_json`; raises ``MalformedError`` or ``LimitError``."""
        return cls(
            attempt=fields.text(found, "attempt", MAX_ID),
            verdict=_one_of(found, "verdict", VERDICTS),
            stage=fields.text(found, "stage", MAX_ID),
            sha256=fields.digest(found, "sha256", 32),
            director_version=fields.count(found, "director_version", 1),
            from_version=_maybe_text(found, "from_version", MAX_ID),
            to_version=fields.text(found, "to_version", MAX_ID),
            deployment=_maybe_text(found, "deployment", 256),
            code=_maybe_text(found, "code", 64),
            detail=_detail(found),
            started=_maybe_moment(found, "started"),
            ended=_maybe_moment(found, "ended"),
            transferred=_maybe_count(found, "transferred"),
            method=_maybe_one_of(found, "method", METHODS),
            repaired=_maybe_count(found, "repaired"),
        )


@dataclass(frozen=True, slots=True)
class EcuReport:
    """What one ECU says, signed by its own key (M4, M5).

    ``attack`` is the code of what was refused in this cycle (M5), ``time`` the newest
    time the ECU can vouch for, not its raw clock.
    """

    ecu_id: str
    hardware_id: str
    installed: Installed | None
    time: datetime
    counter: int
    nonce: bytes
    attack: str | None = None
    detail: str = ""
    pending: Pending | None = None
    results: tuple[Result, ...] = ()

    def to_json(self) -> Json:
        """The payload that is signed."""
        return {
            "_type": "ecu-report",
            "v": 1,
            "ecu_id": self.ecu_id,
            "hardware_id": self.hardware_id,
            "installed": self.installed and self.installed.to_json(),
            "time": fields.written(self.time),
            "counter": self.counter,
            "nonce": self.nonce.hex(),
            "attack": self.attack,
            "detail": plain(self.detail),
            "pending": self.pending and self.pending.to_json(),
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> EcuReport:
        """Read :meth:`to_json`; raises ``MalformedError`` or ``LimitError``."""
        _require_type(found, "ecu-report")
        installed, pending = found.get("installed"), found.get("pending")
        results = fields.items(found, "results", MAX_RESULTS)
        return cls(
            ecu_id=fields.text(found, "ecu_id", MAX_ID),
            hardware_id=fields.text(found, "hardware_id", MAX_ID),
            installed=installed
            if installed is None
            else Installed.from_json(fields.as_object(installed, "installed")),
            time=fields.moment(found, "time"),
            counter=fields.count(found, "counter", 1),
            nonce=fields.digest(found, "nonce", NONCE_BYTES),
            attack=_maybe_text(found, "attack", 64),
            detail=_detail(found),
            pending=pending
            if pending is None
            else Pending.from_json(fields.as_object(pending, "pending")),
            results=tuple(
                Result.from_json(fields.as_object(r, "result")) for r in results
            ),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one device says, signed by its Primary (M2, M11).

    ``counter``, ``nonce``, ``previous`` and ``gap`` link it to the report before
    (crypto-and-identity.md section 9); ``previous`` is lower hex SHA-256. ``versions``
    are the trusted metadata versions by repository and role. ``now`` is the time the
    device goes by and ``time_source`` where that comes from. ``key_store`` is where the
    signing key lives, ``crypto`` what the device can verify. ``abilities`` are what its
    agent can do with payloads: kinds of containers, of seals, of keys content keys are
    wrapped to. ``kid`` names the decryption key it has now. Agents before these members
    say neither.
    """

    device_id: str
    primary: str
    counter: int
    nonce: bytes
    previous: str | None
    gap: bool
    now: datetime
    time_source: str
    versions: Mapping[str, Mapping[str, int]]
    crypto: str
    key_store: str
    agent: str
    reports: tuple[EcuReport, ...]
    abilities: tuple[str, ...] = ()
    kid: str | None = None

    def to_json(self, reports: Mapping[str, Json]) -> Json:
        """The payload that is signed, around the signed reports by ECU id."""
        return {
            "_type": "device-manifest",
            "v": 1,
            "device_id": self.device_id,
            "primary_ecu_id": self.primary,
            "counter": self.counter,
            "nonce": self.nonce.hex(),
            "prev": self.previous,
            "gap": self.gap,
            "now": fields.written(self.now),
            "time_source": self.time_source,
            "versions": {name: dict(roles) for name, roles in self.versions.items()},
            "crypto": self.crypto,
            "key_store": self.key_store,
            "agent": self.agent,
            "abilities": list(self.abilities),
            "kid": self.kid,
            "reports": dict(reports),
        }

    @classmethod
    def from_json(
        cls, found: Mapping[str, object], reports: tuple[EcuReport, ...]
    ) -> Manifest:
        """Read :meth:`to_json`; raises ``MalformedError`` or ``LimitError``."""
        _require_type(found, "device-manifest")
        return cls(
            device_id=fields.text(found, "device_id", MAX_ID),
            primary=fields.text(found, "primary_ecu_id", MAX_ID),
            counter=fields.count(found, "counter", 1),
            nonce=fields.digest(found, "nonce", NONCE_BYTES),
            previous=_maybe_hash(found, "prev"),
            gap=fields.flag(found, "gap"),
            now=fields.moment(found, "now"),
            time_source=_one_of(found, "time_source", TIME_SOURCES),
            versions=_versions(fields.member(found, "versions")),
            crypto=_one_of(found, "crypto", CRYPTO_PROFILES),
            key_store=_one_of(found, "key_store", KEY_STORES),
            agent=fields.text(found, "agent", MAX_ID),
            reports=reports,
            abilities=fields.texts(found, "abilities", MAX_ABILITIES, MAX_ABILITY)
            if "abilities" in found
            else (),
            kid=_maybe_hash(found, "kid", 8),
        )


def plain(text: str) -> str:
    """A text of any origin as one line of at most 1000 characters, in NFC."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return nfc(line.encode("utf-8", "replace").decode()[:MAX_DETAIL])[:MAX_DETAIL]


def _require_type(found: Mapping[str, object], kind: str) -> None:
    if found.get("_type") != kind or type(found.get("v")) is not int or found["v"] != 1:
        raise MalformedError(f"this is not a {kind} of version 1")


def _one_of(found: Mapping[str, object], name: str, values: frozenset[str]) -> str:
    value = fields.text(found, name, MAX_ID)
    if value not in values:
        raise MalformedError(f"{name} has an unknown value", member=name)
    return value


def _detail(found: Mapping[str, object]) -> str:
    return "" if found.get("detail") == "" else fields.text(found, "detail", MAX_DETAIL)


def _maybe_text(found: Mapping[str, object], name: str, limit: int) -> str | None:
    return None if found.get(name) is None else fields.text(found, name, limit)


def _maybe_count(found: Mapping[str, object], name: str) -> int | None:
    return None if found.get(name) is None else fields.count(found, name)


def _maybe_one_of(
    found: Mapping[str, object], name: str, values: frozenset[str]
) -> str | None:
    return None if found.get(name) is None else _one_of(found, name, values)


def _maybe_hash(found: Mapping[str, object], name: str, size: int = 32) -> str | None:
    return None if found.get(name) is None else fields.digest(found, name, size).hex()


def _maybe_moment(found: Mapping[str, object], name: str) -> datetime | None:
    return None if found.get(name) is None else fields.moment(found, name)


def _versions(found: Mapping[str, object]) -> Mapping[str, Mapping[str, int]]:
    if not found.keys() <= {"director", "image"}:
        raise MalformedError("versions names an unknown repository")
    versions = {}
    for name in found:
        roles = fields.member(found, name)
        if not roles.keys() <= {"root", "timestamp", "snapshot", "targets"}:
            raise MalformedError("versions names an unknown role")
        versions[name] = {role: fields.count(roles, role, 1) for role in roles}
    return versions
