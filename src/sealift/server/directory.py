"""The server's directory: made once with every secret in it, checked at every start.

A first start generates everything: one online key per role, the TLS authority and the
server's certificate, the device authority, the content-key key. Nothing has a default,
nothing is shared with another server, nothing is readable by others. What must be
handed out lies in ``public/``. The directory appears under its name only when it is
complete; what an older Sealift did not make yet is added when it is opened.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealift.core.errors import BusyError, InvalidConfigError
from sealift.repo import keyfile, online
from sealift.repo.files import read_bounded, write_atomic
from sealift.repo.policy import refuse_shared
from sealift.server.adapters import ca, content
from sealift.server.config import Config, Layout, load, to_toml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

__all__ = ["Opened", "exclusive", "making", "open_directory"]

_TLS_RENEW = timedelta(days=120)
_PEM_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """A checked directory: settings and usable secrets."""

    layout: Layout
    config: Config
    signers: online.OnlineSigners
    authority: ca.DeviceAuthority
    content: content.ContentKeyFile


@contextmanager
def making(root: Path, config: Config, now: datetime) -> Iterator[Layout]:
    """Make a new directory; the body fills its database before it gets its name.

    Raises:
        InvalidConfigError: something is there already, or it cannot be written.
    """
    target = root.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidConfigError(
            f"{root} exists already", hint="choose a new directory, or `server run` it"
        )
    draft = Layout(target.with_name(f".{target.name}.new-{os.getpid()}"))
    try:
        _fill(draft, config, now)
        yield draft
        draft.root.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise InvalidConfigError(
            f"{root} cannot be made: {error.strerror}",
            hint="the directory above it must exist and be writable",
        ) from error
    finally:
        shutil.rmtree(draft.root, ignore_errors=True)


def open_directory(root: Path, now: datetime) -> Opened:
    """Check a directory and load its secrets; the server's TLS name is renewed here.

    Raises:
        InvalidConfigError: not such a directory, or open to others.
        KeyUnreadableError: a key is missing, empty, unreadable, malformed, too open or
            publicly known. RefusedError: one key for two roles.
    """
    layout = Layout(root.absolute())
    for directory in (layout.root, layout.keys, layout.blobs):
        _require_private(directory, stat.S_ISDIR)
    for file in (layout.config, layout.database):
        _require_private(file, stat.S_ISREG)
    config = load(layout.config)
    signers = online.load(layout.keys, allow_demo=config.demo)
    _one_key_one_role(signers)
    authority = ca.DeviceAuthority(
        _certificate(layout, "device-ca"), _p256(layout, "device-ca")
    )
    _renew_server_certificate(layout, config, now)
    opener = _content_key(layout)
    return Opened(layout, config, signers, authority, opener)


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Hold the directory for one running server.

    Raises:
        BusyError: another process holds it. InvalidConfigError: it cannot be written.
    """
    try:
        if not os.access(layout.root, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        stream = layout.lock.open("ab")
    except OSError as error:
        raise InvalidConfigError(
            f"{layout.root} cannot be written: {error.strerror}",
            hint="the server keeps its state there; check mode and mount options",
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another server runs on {layout.root}", hint="stop it first"
            ) from error
        yield


# ── making ───────────────────────────────────────────────────────────────────────────
def _fill(layout: Layout, config: Config, now: datetime) -> None:
    for directory in (layout.root, layout.keys, layout.blobs):
        directory.mkdir(mode=0o700)
    layout.public.mkdir(mode=0o755)
    _write(layout.config, to_toml(config).encode())
    _write(layout.database, b"")
    public = online.make(layout.keys, demo=config.demo)
    _write(layout.public / "online-keys.json", online.to_json(public), 0o644)
    for name, subject in (("tls-ca", "Sealift TLS"), ("device-ca", "Sealift devices")):
        key = ca.new_key()
        _write(layout.key(name), ca.private_pem(key))
        certificate = ca.make_authority(subject, key, now)
        _write(layout.certificate(name), _pem(certificate), 0o644)
    _write(layout.key("tls-server"), ca.private_pem(ca.new_key()))
    _content_key(layout)
    _renew_server_certificate(layout, config, now)


def _renew_server_certificate(layout: Layout, config: Config, now: datetime) -> None:
    """Write a fresh server certificate if there is none, it ages, or names changed."""
    path = layout.certificate("tls-server")
    if path.exists():
        known = ca.read_certificate(read_bounded(path, _PEM_BYTES_MAX))
        young = now < known.not_valid_after_utc - _TLS_RENEW
        if young and _names(known) == set(config.host_names):
            return
    made = ca.make_server_certificate(
        config.host_names,
        _p256(layout, "tls-server"),
        _certificate(layout, "tls-ca"),
        _p256(layout, "tls-ca"),
        now,
    )
    write_atomic(path, _pem(made), mode=0o644)


def _content_key(layout: Layout) -> content.ContentKeyFile:
    """The key content keys are wrapped to; made where an older directory has none."""
    path = layout.key("content")
    if not path.exists():
        _write(path, content.make_pem(secrets.token_bytes))
    _require_private(path, stat.S_ISREG)
    found = content.ContentKeyFile(read_bounded(path, _PEM_BYTES_MAX))
    shown = content.public_json(found.public())
    known = layout.content_key
    if not known.exists() or read_bounded(known, _PEM_BYTES_MAX) != shown:
        write_atomic(known, shown, mode=0o644)
    return found


def _names(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    return {str(name.value) for name in names}


# ── checking ─────────────────────────────────────────────────────────────────────────
def _require_private(path: Path, kind: object) -> None:
    try:
        found = path.lstat()
    except OSError as error:
        raise InvalidConfigError(
            f"{path} is missing or cannot be looked at: {error.strerror}",
            hint="sealift server init DIR makes a server's directory",
        ) from error
    if not kind(found.st_mode):  # type: ignore[operator]
        raise InvalidConfigError(f"{path} is not what it should be")
    if found.st_uid != os.geteuid():
        raise InvalidConfigError(
            f"{path} belongs to somebody else", hint="run the server as its owner"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidConfigError(
            f"{path} is open to others: mode {stat.S_IMODE(found.st_mode):04o}",
            hint=f"chmod go= {path}, and think about who may have read it",
        )


def _one_key_one_role(signers: online.OnlineSigners) -> None:
    """Refuse one key in two roles; published keys were refused when it was loaded."""
    public = signers.public()
    keys = {
        f"{repository} {role}": key
        for repository, roles in public.items()
        for role, key in roles.items()
    }
    refuse_shared({name: [key] for name, key in keys.items()})


def _p256(layout: Layout, name: str) -> ca.Key:
    return ca.read_key(keyfile.read(layout.key(name)))


def _certificate(layout: Layout, name: str) -> x509.Certificate:
    path = layout.certificate(name)
    return ca.read_certificate(read_bounded(path, _PEM_BYTES_MAX))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    write_atomic(path, content, mode=mode, replace=False)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
