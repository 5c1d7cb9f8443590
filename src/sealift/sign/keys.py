"""One key: made, shown, read back, proved.

A key is made for one role of one repository and named after it. Its private half lies
in a file or on a token, its public half in a ``.pub`` file that may go anywhere.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from securesystemslib.signer import Key, SSlibKey

from sealift.core.canonical import parse_object
from sealift.core.errors import (
    KeyUnreadableError,
    MalformedError,
    RefusedError,
    SignatureError,
)
from sealift.core.keys import PublicKey, verify
from sealift.repo import keyfile
from sealift.repo.files import read_as, write_atomic
from sealift.repo.policy import introduce, under_its_id
from sealift.repo.repository import sign_bytes
from sealift.repo.signers import save, signer_for

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

__all__ = [
    "check_name",
    "generate",
    "prove",
    "public_from_json",
    "public_to_json",
    "read_public",
]

NAME_MAX = 64
PUBLIC_BYTES_MAX = 65_536


def generate(
    path: Path,
    name: str,
    algorithm: str = "ed25519",
    passphrase: str | None = None,
    *,
    demo: bool = False,
) -> Signer:
    """Make one key: ``PATH`` (private, 0600) and beside it ``.pub`` (public).

    The file is read back and opened before anybody builds on it.

    Raises:
        RefusedError: the algorithm or name. InvalidConfigError, SpaceError: a file
            exists or cannot be written.
    """
    check_name(name)
    private = keyfile.generate(algorithm)
    save(path, private, passphrase, demo=demo)
    keyfile.load(keyfile.read(path), lambda _: passphrase or "", path.name)
    signer = signer_for(private, name, demo=demo)
    write_atomic(
        path.with_suffix(".pub"), public_to_json(signer.public_key), mode=0o644
    )
    return signer


def check_name(name: str) -> None:
    """Refuse a name that is no plain file name.

    Raises:
        RefusedError: it is empty, long, or has other than ``[a-z0-9.-]`` in it.
    """
    plain = name.isascii() and name.replace("-", "").replace(".", "").isalnum()
    if not plain or name != name.lower() or len(name) > NAME_MAX or name[0] in "-.":
        raise RefusedError(
            f"{name[:NAME_MAX]!r} cannot be the name of a key",
            hint=f"small letters, digits, - and . inside; at most {NAME_MAX}",
        )


def public_to_json(key: Key) -> bytes:
    """A ``.pub`` file: the TUF key object with the key's name."""
    return json.dumps(key.to_dict(), indent=2, sort_keys=True).encode() + b"\n"


def public_from_json(raw: bytes, *, allow_demo: bool = False) -> SSlibKey:
    """Read a ``.pub`` file; the id is computed, never believed.

    Raises:
        MalformedError, LimitError: its form. RefusedError: the key is not taken.
    """
    try:
        key = under_its_id(Key.from_dict("", dict(parse_object(raw, PUBLIC_BYTES_MAX))))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"not a public key file: {error}") from error
    introduce(key, allow_demo=allow_demo)
    return key


def read_public(path: Path, *, allow_demo: bool = False) -> SSlibKey:
    """The public key in a ``.pub`` file; errors as :func:`public_from_json`."""
    parse = partial(public_from_json, allow_demo=allow_demo)
    return read_as(path, PUBLIC_BYTES_MAX, parse)


def prove(signer: Signer) -> None:
    """Sign a test message and verify it, as a device would.

    Raises:
        KeyUnreadableError: the signer failed or does not fit its public half.
    """
    message = b"sealift key check"
    made = sign_bytes(signer, message)
    key = PublicKey.from_json(signer.public_key.to_dict())
    try:
        verify(key, bytes.fromhex(made.signature), message)
    except SignatureError as error:
        raise KeyUnreadableError("what this key signs does not verify") from error
