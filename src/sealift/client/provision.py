"""What a new device needs, in one directory: keys, anchors, settings.

Private keys are made here and never leave; the server sees a certificate request and
public halves. A device that has made keys of its own (``sealift-agent keys make``)
tells what is public of them, and where they lie; none is made for it then. The trust
anchors are given by the caller, from the vendor's desk: a
device must not learn from a server whom to trust.

| file | what it is | mode |
|---|---|---|
| `agent.toml` | the agent's settings | 0600 |
| `device.key`, `device.pem` | TLS client key (P-256) and certificate | 0600, 0644 |
| `report.key` | the key that signs reports (Ed25519); not if it has one | 0600 |
| `decrypt.key` | content keys are wrapped to it (X25519); not if it has one | 0600 |
| `tls-ca.pem` | where the server must come from | 0444 |
| `image-root.json`, `director-root.json` | trust anchors | 0444 |
| `factory-image.json` | what the factory puts into the running slot, if told | 0444 |
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from sealift.core.canonical import parse_object
from sealift.core.errors import (
    FormatError,
    InvalidConfigError,
    MalformedError,
    TrustAnchorError,
)
from sealift.core.hpke import X25519, PrivateKey, Recipient, new_private
from sealift.core.keys import PublicKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.client.api import Operator
    from sealift.core.types import Artifact

__all__ = [
    "Anchors",
    "OwnKeys",
    "Plan",
    "anchors_in",
    "provision",
    "read_anchor",
    "read_keys",
]

ROOT_BYTES_MAX = 262_144
KEYS_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Anchors:
    """The two Roots a device is born with, byte for byte."""

    image: bytes
    director: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A device to be, with one component of two ``slots``.

    ``ca`` is the file that ``url``, the device listener, must be signed by, and
    ``enrol_url``, where expired certificates are renewed (empty: nowhere). ``factory``
    is the image that lies in the slot that runs, if it is known.
    """

    device_id: str
    ecu_id: str
    hardware_id: str
    anchors: Anchors
    url: str
    ca: Path
    slots: tuple[str, str] = ("slot-a.img", "slot-b.img")
    factory: Artifact | None = None
    demo: bool = False
    keys: OwnKeys | None = None
    enrol_url: str = ""


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What a device told of the keys it has made, and the settings that name them."""

    report_key: dict[str, object]
    decryption_key: dict[str, object] | None
    places: dict[str, str]

    @property
    def store(self) -> str:
        """Where the report key is kept: ``tpm``, ``pkcs11`` or ``file``."""
        scheme = self.places["report_key"].partition(":")[0]
        return scheme if scheme in {"tpm", "pkcs11"} else "file"


_PLACES = frozenset({"report_key", "decryption_key", "store_key", "counter"})


def read_keys(path: Path) -> OwnKeys:
    """What ``sealift-agent keys make --json`` printed.

    Raises:
        InvalidConfigError: it cannot be read, or says something else.
    """
    try:
        with path.open("rb") as stream:
            found = parse_object(stream.read(KEYS_BYTES_MAX + 1), KEYS_BYTES_MAX)
        places, decryption = found.get("places"), found.get("decryption_key")
        report = PublicKey.from_json(found.get("report_key")).to_json()
        if decryption is not None:
            decryption = Recipient.from_json(_object(decryption)).to_json()
    except OSError as error:
        raise InvalidConfigError(f"{path} cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise _no_keys(path, error.message) from error
    if not isinstance(places, dict) or not set(places) <= _PLACES:
        raise _no_keys(path, "its places are missing or unknown")
    if not all(isinstance(it, str) and it.isprintable() for it in places.values()):
        raise _no_keys(path, "a place is no text")
    if "report_key" not in places or (decryption and "decryption_key" not in places):
        raise _no_keys(path, "it does not say where a key lies")
    return OwnKeys(report, decryption, places)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise MalformedError("a key is not an object")
    return value


def _no_keys(path: Path, why: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"{path} tells no keys: {why}",
        hint="it is what `sealift-agent keys make --json` prints on the device",
    )


def anchors_in(desk: Path) -> Anchors:
    """The newest Roots a desk has.

    Raises:
        TrustAnchorError: it has none, or one is not a Root.
    """
    return Anchors(
        *(
            read_anchor(_newest_root(desk / "metadata" / repository))
            for repository in ("image", "director")
        )
    )


def read_anchor(path: Path) -> bytes:
    """A Root from a file.

    Raises:
        TrustAnchorError: it cannot be read or is not a Root.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(ROOT_BYTES_MAX + 1)
        signed = parse_object(raw, ROOT_BYTES_MAX).get("signed")
    except OSError as error:
        raise TrustAnchorError(f"{path} cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise TrustAnchorError(f"{path} is not a Root: {error.message}") from error
    if not isinstance(signed, dict) or signed.get("_type") != "root":
        raise TrustAnchorError(f"{path} is not a Root")
    return raw


def provision(plan: Plan, operator: Operator, out: Path) -> dict[str, object]:
    """Enrol a device and write its directory, whole or not at all; what was made.

    Raises:
        InvalidConfigError: ``out`` exists or cannot be written, or the factory image is
            for other hardware. RequestError: the server refuses the device.
    """
    _check_factory(plan)
    target = out.absolute()
    draft = target.with_name(f".{target.name}.new-{os.getpid()}")
    if target.exists():
        raise InvalidConfigError(f"{out} exists already", hint="choose a new directory")
    try:
        draft.mkdir(mode=0o700)
        not_after = _fill(draft, plan, operator)
        draft.rename(target)
    except OSError as error:
        raise InvalidConfigError(
            f"{out} cannot be written: {error.strerror}",
            hint="the directory above it must exist and be writable",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {
        "device": plan.device_id,
        "directory": str(target),
        "config": str(target / "agent.toml"),
        "certificate_until": not_after,
        "key_store": plan.keys.store if plan.keys else "file",
    }


def _check_factory(plan: Plan) -> None:
    if plan.factory and plan.hardware_id not in plan.factory.hardware_ids:
        raise InvalidConfigError(
            f"{plan.factory.name} is not for hardware {plan.hardware_id}",
            hint=f"it is for {', '.join(plan.factory.hardware_ids)}",
        )


def _fill(directory: Path, plan: Plan, operator: Operator) -> str:
    tls_key = ec.generate_private_key(ec.SECP256R1())
    _write(directory / "device.key", _private_pem(tls_key), 0o600)
    keys = plan.keys or _made(directory)
    _write(directory / "tls-ca.pem", plan.ca.read_bytes(), 0o444)
    _write(directory / "image-root.json", plan.anchors.image, 0o444)
    _write(directory / "director-root.json", plan.anchors.director, 0o444)
    if plan.factory is not None:
        image = json.dumps(plan.factory.to_json(), indent=2) + "\n"
        _write(directory / "factory-image.json", image.encode(), 0o444)
    _write(directory / "agent.toml", _settings(plan, keys.places).encode(), 0o600)
    enrolled = operator.enrol(
        plan.device_id,
        csr=_request(plan.device_id, tls_key),
        report_key=keys.report_key,
        ecus={plan.ecu_id: plan.hardware_id},
        decryption_key=keys.decryption_key,
    )
    _write(directory / "device.pem", enrolled["certificate"].encode(), 0o644)
    return enrolled["not_after"]


def _made(directory: Path) -> OwnKeys:
    """Keys in files, for a device that has made none."""
    report_key = ed25519.Ed25519PrivateKey.generate()
    decryption_key = PrivateKey(X25519, new_private(X25519, os.urandom))
    _write(directory / "report.key", _private_pem(report_key), 0o600)
    _write(directory / "decrypt.key", decryption_key.pem(), 0o600)
    return OwnKeys(
        _public(report_key),
        decryption_key.recipient.to_json(),
        {"report_key": "report.key", "decryption_key": "decrypt.key"},
    )


def _settings(plan: Plan, places: Mapping[str, str]) -> str:
    """The agent's configuration; JSON texts are TOML texts as well."""
    q = json.dumps

    def placed(setting: str, name: str) -> list[str]:
        return [f"{setting} = {q(places[name])}"] if name in places else []

    lines = [
        "# Sealift agent. Every setting: docs/agent.md",
        "[device]",
        f"id = {q(plan.device_id)}",
        *placed("report_key", "report_key"),
        *placed("decryption_key", "decryption_key"),
        "",
        "[server]",
        f"url = {q(plan.url)}",
        f"enrol_url = {q(plan.enrol_url)}",
        'ca = "tls-ca.pem"',
        'certificate = "device.pem"',
        'key = "device.key"',
        "",
        "[trust]",
        'image_root = "image-root.json"',
        'director_root = "director-root.json"',
        f"demo_keys = {q(plan.demo)}",
        "",
        "[state]",
        'directory = "state"',
        'runtime = "status.json"',
        *placed("key", "store_key"),
        "",
        "[boot]",
        'kind = "file"',
        'store = "boot"',
        'restart = "exit"',
        "",
        "[[component]]",
        f"ecu_id = {q(plan.ecu_id)}",
        f"hardware_id = {q(plan.hardware_id)}",
        f"slots = {{ a = {q(plan.slots[0])}, b = {q(plan.slots[1])} }}",
        *placed("counter", "counter"),
        *(['factory = "factory-image.json"'] if plan.factory else []),
    ]
    return "\n".join(lines) + "\n"


def _newest_root(directory: Path) -> Path:
    versions = [
        int(path.name.split(".")[0])
        for path in directory.glob("*.root.json")
        if path.name.split(".")[0].isdecimal()
    ]
    if not versions:
        raise TrustAnchorError(
            f"there is no Root in {directory}", hint="sealift init DESK makes them"
        )
    return directory / f"{max(versions)}.root.json"


def _request(device_id: str, key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id[:64])])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _public(key: ed25519.Ed25519PrivateKey) -> dict[str, object]:
    raw = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return {
        "keytype": "ed25519",
        "scheme": "ed25519",
        "keyval": {"public": raw.hex()},
    }


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
