"""The device's next TLS certificate: when it is asked for, and how it comes into use.

Asked for over EST (RFC 7030, ``simplereenroll``) with the present certificate, for a
new key, from two thirds of its life on. Until it was used once, the present one stays:

```
STATE/tls-next.pem   key and certificate that were got and not used yet
STATE/tls.pem        key and certificate in use; before the first renewal, those that
                     the configuration names
```
The step from one to the other is a rename, so a cut leaves either. The server lets the
old certificate in until a day after the first use of the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent import identity, log
from sealift.agent.files import NO_ROOM, read_guarded
from sealift.agent.transport import TlsFiles
from sealift.core.errors import (
    AuthRequiredError,
    FailedTransferError,
    KeyUnreadableError,
    RevokedError,
    SpaceError,
    StateError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sealift.agent.config import Config
    from sealift.agent.ports import Storage
    from sealift.agent.transport import HttpsTransport

__all__ = ["RECORD", "Outcome", "Renewal", "is_due"]

RECORD = "renewal"
"""The record that remembers when a certificate was asked for last."""

HOUR, DAY = 3600.0, 86_400.0
URGENT_DAYS = 7
"""In the last week it is asked for every hour, before that every day."""

_PLACE = ".well-known/est/simplereenroll"
_PROBE = "director/metadata/timestamp.json"
_PROBE_MAX = 262_144
_ANSWER_MAX = 64 * 1024
_PEM_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether another certificate is in use, and seconds to the next try, if any."""

    renewed: bool = False
    again: float | None = None


def is_due(found: identity.Certificate, now: datetime, device_id: str) -> bool:
    """Whether two thirds of its life are over, a tenth sooner or later by the name.

    The name spreads a fleet that was made in one night.
    """
    life = found.not_after - found.not_before
    share = int.from_bytes(hashlib.sha256(device_id.encode()).digest()[:4], "big")
    return now >= found.not_before + life * (2 / 3) * (0.9 + 0.2 * share / 2**32)


class Renewal:
    """Renewal of one device. ``connect(url, files)`` makes a way with a certificate."""

    def __init__(
        self,
        config: Config,
        storage: Storage,
        connect: Callable[[str, TlsFiles], HttpsTransport],
    ) -> None:
        self._config = config
        self._storage = storage
        self._connect = connect

    def run(self, now: datetime, *, troubled: bool = False) -> Outcome:
        """Bring a new certificate into use, if one is due or was got before.

        ``troubled`` says that the server did not let this device in: then the present
        one may have expired by a clock that is better than ours.

        Raises:
            TransportError, AuthRequiredError, RevokedError, RequestError: the server
            gave none; the present one stays in use. StateError, SpaceError: it cannot
            be kept.
        """
        if self._put_in_use():
            return Outcome(renewed=True)
        present = identity.certificate(self._config)
        if not troubled and not is_due(present, now, self._config.device_id):
            return Outcome()
        urgent = (present.not_after - now).days < URGENT_DAYS
        pause = HOUR if urgent else DAY
        since = now.timestamp() - self._tried()
        if 0 <= since < pause:
            return Outcome(again=pause - since)
        self._storage.commit({RECORD: json.dumps({"tried": now.timestamp()}).encode()})
        self._get(present, expired=now > present.not_after)
        return Outcome(renewed=self._put_in_use(), again=pause)

    # ── asking ───────────────────────────────────────────────────────────────────────
    def _get(self, present: identity.Certificate, *, expired: bool) -> None:
        """A certificate for a new key, kept as the next one."""
        key, request = _request(present.name)
        body = b64encode(request)
        for number, url in enumerate(urls := self._urls(expired=expired), start=1):
            way = self._connect(_origin(url), self._files())
            try:
                answer = way.post(_PLACE, body, "application/pkcs10", limit=_ANSWER_MAX)
                break
            except TransportError:
                if number == len(urls):
                    raise
            finally:
                way.close()
        self._write(key + _certificate(answer, key, present.name))

    def _urls(self, *, expired: bool) -> Sequence[str]:
        """Where to ask: an expired certificate is let in by the second one only."""
        server = self._config.server
        found = [] if expired else [server.url]
        if server.enrol_url:
            found.append(server.enrol_url)
        if not found:
            raise FailedTransferError(
                "the certificate has expired, and no enrolment address is configured",
                hint="set [server] enrol_url, or provision the device anew",
            )
        return found

    def _tried(self) -> float:
        raw = self._storage.read(RECORD)
        try:
            return float(json.loads(raw)["tried"]) if raw else 0.0
        except (ValueError, KeyError, TypeError):
            return 0.0

    # ── bringing into use ────────────────────────────────────────────────────────────
    def _put_in_use(self) -> bool:
        """Use the next certificate once, then for good; ``False``: there is none."""
        path = self._next
        if not os.path.lexists(path):
            return False
        try:
            read_guarded(path, "next TLS key", limit=_PEM_MAX, secret=True)
            way = self._connect(
                self._config.server.url, TlsFiles(self._config.server.ca, path, path)
            )
            try:
                way.get(_PROBE, limit=_PROBE_MAX)
            finally:
                way.close()
        except (AuthRequiredError, RevokedError, KeyUnreadableError):
            self._forget(path)
            raise
        os.rename(path, identity.renewed_path(self._config))
        self._sync()
        until = identity.certificate(self._config).not_after
        log.info("renewed", until=f"{until:%Y-%m-%dT%H:%M:%SZ}")
        return True

    def _files(self) -> TlsFiles:
        certificate, key = identity.credentials(self._config)
        return TlsFiles(self._config.server.ca, certificate, key)

    @property
    def _next(self) -> str:
        return os.path.join(self._config.state, "tls-next.pem")

    def _write(self, pem: bytes) -> None:
        """The whole file, durable, or none of that name."""
        draft = self._next + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(draft, flags, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                os.fchmod(descriptor, 0o600)
                stream.write(pem)
                stream.flush()
                os.fsync(descriptor)
            os.rename(draft, self._next)
            self._sync()
        except OSError as error:
            self._forget(draft)
            kind = SpaceError if error.errno in NO_ROOM else StateError
            raise kind(f"{draft} cannot be written: {error.strerror}") from error

    def _sync(self) -> None:
        directory = os.open(self._config.state, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @staticmethod
    def _forget(path: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _origin(url: str) -> str:
    """EST is at the root of a server, wherever its base is (RFC 8615)."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _request(name: str) -> tuple[bytes, bytes]:
    """A fresh P-256 key in PEM, and a request for it under that name in DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, request.sign(key, SHA256()).public_bytes(Encoding.DER)


def _certificate(answer: bytes, key: bytes, name: str) -> bytes:
    """The certificate in the answer, PEM, if it is for our key and our name.

    Raises:
        FailedTransferError: it is something else.
    """
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
        pkcs7,
    )

    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ours = load_pem_private_key(key, None).public_key().public_bytes(*form)
    try:
        for found in pkcs7.load_der_pkcs7_certificates(b64decode(answer)):
            same = found.public_key().public_bytes(*form) == ours
            if same and identity.common_name(found) == name:
                return found.public_bytes(Encoding.PEM)
    except ValueError as error:
        raise FailedTransferError("the server's answer holds no certificate") from error
    raise FailedTransferError("the server gave a certificate that is not ours")
