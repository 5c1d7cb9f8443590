"""Who this device is: its TLS certificate, its anchors, the image it was made with.

Reads and describes; ``renewal`` renews. The TLS key itself is loaded by ``ssl`` from
its file name, so this module only makes sure that the file may be used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sealift.agent.files import read_guarded
from sealift.core import canonical
from sealift.core.errors import (
    FormatError,
    InvalidConfigError,
    KeyUnreadableError,
    LimitError,
    TrustAnchorError,
)
from sealift.core.types import Artifact

if TYPE_CHECKING:
    from cryptography import x509

    from sealift.agent.config import Component, Config

_PEM_LIMIT = 64 * 1024
_FACTORY_LIMIT = 64 * 1024
_ROOT_LIMIT = 262_144  # bytes of a Root (uptane.md section 8)
_WARN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Anchors:
    """The two Roots this device was born with, byte for byte (B-14)."""

    image: bytes
    director: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """What ``status`` says about the client certificate; times are UTC.

    ``name`` is its common name: the device, as its server knows it.
    """

    subject: str
    name: str
    not_before: datetime
    not_after: datetime

    def remark(self, now: datetime) -> str | None:
        """A sentence for people if the certificate is not valid, or not for long."""
        left = (self.not_after - now).total_seconds() / 86_400
        if now < self.not_before:
            return f"certificate is valid only from {self.not_before:%Y-%m-%d}"
        if left < 0:
            return f"certificate expired on {self.not_after:%Y-%m-%d}"
        if left < _WARN_DAYS:
            return f"certificate expires in {left:.0f} days"
        return None


def anchors(config: Config) -> Anchors:
    """Read both trust anchors.

    Raises:
        TrustAnchorError: one is missing, empty, unreadable, a link, too long, or open
            to others. There is no update without them, and never "no verification".
    """
    return Anchors(_anchor(config.image_root), _anchor(config.director_root))


def _anchor(path: str) -> bytes:
    try:
        return read_guarded(path, "trust anchor", limit=_ROOT_LIMIT)
    except LimitError as error:
        raise TrustAnchorError(str(error), path=path) from error


def factory_image(part: Component) -> Artifact | None:
    """What the factory says it put into the slot that runs; nobody looked there yet.

    ``None``: it says nothing.

    Raises:
        TrustAnchorError: somebody else could have written the file.
        InvalidConfigError: it is missing, describes no image, or one for other
        hardware.
    """
    path = part.factory
    if not path:
        return None
    try:
        raw = read_guarded(
            path, "factory image", limit=_FACTORY_LIMIT, absent=InvalidConfigError
        )
        found = Artifact.from_json(canonical.parse_object(raw, _FACTORY_LIMIT))
    except FormatError as error:
        raise InvalidConfigError(
            f"factory image {path}: {error.message}",
            hint="sealift device provision --factory writes it; or remove the setting",
            path=path,
        ) from error
    if part.hardware_id not in found.hardware_ids:
        raise InvalidConfigError(
            f"factory image {path} is not for hardware {part.hardware_id}",
            hint="name the release this hardware was made with",
            path=path,
        )
    return found


def check_tls_files(config: Config) -> None:
    """Refuse TLS files that others may change, and a private key they may read.

    Raises:
        TrustAnchorError: owner or mode (D-10). KeyUnreadableError: the private key is
        missing. InvalidConfigError: certificate or authority is missing.
    """
    certificate, key = credentials(config)
    for path, what in ((config.server.ca, "CA file"), (certificate, "certificate")):
        read_guarded(path, what, limit=_PEM_LIMIT, absent=InvalidConfigError)
    read_guarded(
        key, "TLS key", limit=_PEM_LIMIT, secret=True, absent=KeyUnreadableError
    )


def renewed_path(config: Config) -> str:
    """Where key and certificate are once they have been renewed."""
    return os.path.join(config.state, "tls.pem")


def credentials(config: Config) -> tuple[str, str]:
    """The files of the certificate in force and of its key; they may be one."""
    renewed = renewed_path(config)
    if os.path.lexists(renewed):
        return renewed, renewed
    return config.server.certificate, config.server.key


def certificate(config: Config) -> Certificate:
    """The dates and the subject of the client certificate. Loads ``cryptography``.

    Raises:
        InvalidConfigError: the file is missing or holds no certificate.
    """
    from cryptography import x509

    path, _ = credentials(config)
    pem = read_guarded(path, "certificate", limit=_PEM_LIMIT, absent=InvalidConfigError)
    try:
        found = x509.load_pem_x509_certificate(pem)
        subject = found.subject.rfc4514_string()
    except ValueError as error:
        raise InvalidConfigError(f"{path} holds no certificate", path=path) from error
    return Certificate(subject, common_name(found), *_validity(found))


def common_name(found: x509.Certificate) -> str:
    """The one common name of a certificate; empty if there is not exactly one."""
    from cryptography.x509 import NameOID

    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _validity(found: object) -> tuple[datetime, datetime]:
    """Both dates as UTC; ``cryptography`` before 42 has only the naive ones."""
    dates = []
    for name in ("not_valid_before", "not_valid_after"):
        value = getattr(found, name + "_utc", None) or getattr(found, name)
        dates.append(value.replace(tzinfo=UTC))
    return dates[0], dates[1]
