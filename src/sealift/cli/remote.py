"""Which server, and who we are to it: options, or a profile file.

A profile is a small TOML file with ``server``, ``ca`` and ``token`` or ``token_file``,
relative to the file. It is a secret: one that others can read is refused.
"""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.core.errors import InvalidConfigError, KeyUnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.client.api import Operator

__all__ = [
    "CaFile",
    "ProfileFile",
    "Server",
    "TokenFile",
    "save_profile",
    "session",
    "write_secret",
]

FILE_BYTES_MAX = 64 * 1024
TOKEN_CHARACTERS_MAX = 512

Server = Annotated[
    str | None,
    typer.Option("--server", help="Operator listener, e.g. https://localhost:8444."),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca", help="CA the server must come from: its public/tls-ca.pem."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the operator token, mode 0600."),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="File with server, CA and token. [default: ~/.config/sealift/server.toml]",
    ),
]


@dataclass(frozen=True, slots=True)
class _Access:
    server: str | None = None
    ca: Path | None = None
    token: str | None = None


@contextmanager
def session(
    server: str | None,
    token_file: Path | None,
    ca: Path | None,
    profile: Path | None = None,
) -> Iterator[Operator]:
    """The operator API of the server that options and profile name; options win.

    Raises:
        InvalidConfigError: something is missing or malformed. KeyUnreadableError: token
            or profile cannot be read, or others can read it too.
    """
    from sealift.client.api import Operator, Profile, connect

    known = _read_profile(profile)
    if server is not None:
        known = replace(known, server=server)
    if ca is not None:
        known = replace(known, ca=ca)
    if token_file is not None:
        known = replace(known, token=_token(_secret(token_file), token_file))
    if known.server is None or known.ca is None or known.token is None:
        raise InvalidConfigError(
            "which server?",
            hint="give --server, --ca and --token-file, or --profile FILE",
        )
    with connect(Profile(known.server, known.ca, known.token)) as opened:
        yield Operator(opened)


def save_profile(path: Path, *, server: str, ca: Path, token: str) -> None:
    """Write a new profile file, mode 0600.

    Raises:
        InvalidConfigError: it exists or cannot be written.
    """
    lines = {"server": server, "ca": str(ca.absolute()), "token": token}
    text = "".join(f"{name} = {_quoted(value)}\n" for name, value in lines.items())
    write_secret(path, text)


def write_secret(path: Path, text: str) -> None:
    """Write a new file that nobody else can read.

    Raises:
        InvalidConfigError: it exists or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise InvalidConfigError(
            f"{path} cannot be written: {error.strerror}", hint="choose a new file"
        ) from error


def _read_profile(path: Path | None) -> _Access:
    chosen = path or Path.home() / ".config" / "sealift" / "server.toml"
    if path is None and not chosen.exists():
        return _Access()
    try:
        found = tomllib.loads(_secret(chosen))
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfigError(f"{chosen} is not TOML: {error}") from error
    unknown = set(found) - {"server", "ca", "token", "token_file"}
    if unknown or not all(isinstance(value, str) for value in found.values()):
        raise InvalidConfigError(
            f"{chosen} is not a profile",
            hint="texts called server, ca, and token or token_file",
        )
    token = found.get("token")
    if token is None and "token_file" in found:
        file = chosen.parent / found["token_file"]
        token = _token(_secret(file), file)
    ca = chosen.parent / found["ca"] if "ca" in found else None
    return _Access(found.get("server"), ca, token)


def _token(text: str, path: Path) -> str:
    lines = text.splitlines()
    token = lines[0].strip() if lines else ""
    if not token.isascii() or not token.isprintable() or not token:
        raise KeyUnreadableError(f"{path} does not hold a token on its first line")
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise KeyUnreadableError(f"{path} holds something longer than a token")
    return token


def _secret(path: Path) -> str:
    """A small file that nobody else can read."""
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            raw = stream.read(FILE_BYTES_MAX + 1)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise KeyUnreadableError(f"{path} cannot be read: {reason}") from error
    if mode & 0o077:
        raise KeyUnreadableError(
            f"{path} is open to others: mode {mode:04o}", hint=f"chmod 600 {path}"
        )
    if len(raw) > FILE_BYTES_MAX:
        raise KeyUnreadableError(f"{path} is too long to be what it should be")
    return text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise InvalidConfigError("a value of the profile is not printable")
    return f'"{escaped}"'
