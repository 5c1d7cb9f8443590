"""The online keys of a server: five roles, five keys, made once, used at every poll.

The server makes them (``make``), shows the public halves to the desk in one file
(``online-keys.json``: ``to_json``, ``from_json``), and loads them at start (``load``).
Stolen, they can freeze and mix what is published; they cannot make a device install an
image the offline keys did not sign. The desk replaces them in the next Root.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Key, SSlibKey

from sealift.core.canonical import parse_object
from sealift.core.errors import MalformedError, RefusedError
from sealift.repo import keyfile
from sealift.repo.director import DirectorSigners
from sealift.repo.image import ImageSigners
from sealift.repo.policy import (
    identity,
    introduce,
    labelled,
    refuse_shared,
    under_its_id,
)
from sealift.repo.signers import load_signer, save, signer_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from securesystemslib.signer import Signer
    from tuf.api.metadata import Root

    Secrets = Callable[[str], str]

__all__ = [
    "ONLINE_ROLES",
    "OnlineSigners",
    "check_named",
    "from_json",
    "load",
    "make",
    "to_json",
]

KIND = "sealift-online-keys"
BYTES_MAX = 262_144
ONLINE_ROLES = {
    "director": ("targets", "snapshot", "timestamp"),
    "image": ("snapshot", "timestamp"),
}
"""Roles whose keys are on the server, by repository."""

OnlineKeys = dict[str, dict[str, SSlibKey]]
"""Public keys by repository and role."""


@dataclass(frozen=True, slots=True)
class OnlineSigners:
    """All online signers of one server; safe to use from several threads when the keys
    are files.
    """

    director: DirectorSigners
    image: ImageSigners

    def public(self) -> OnlineKeys:
        """The public halves."""
        return {
            repository: {
                role: _public(getattr(getattr(self, repository), role))
                for role in roles
            }
            for repository, roles in ONLINE_ROLES.items()
        }


def make(
    directory: Path, passphrase: str | None = None, *, demo: bool = False
) -> OnlineKeys:
    """Make all keys as new files ``REPOSITORY-ROLE.pem``, 0600; the public halves.

    Raises:
        InvalidConfigError, SpaceError: a file exists or cannot be written.
    """
    found: OnlineKeys = {}
    for repository, role in _all():
        private = keyfile.generate("ed25519")
        save(directory / f"{repository}-{role}.pem", private, passphrase, demo=demo)
        signer = signer_for(private, _name(repository, role), demo=demo)
        found.setdefault(repository, {})[role] = _public(signer)
    return found


def load(
    directory: Path, secrets: Secrets | None = None, *, allow_demo: bool = False
) -> OnlineSigners:
    """The signers over the files :func:`make` wrote.

    Raises:
        KeyUnreadableError, PassphraseError, RefusedError: a key cannot be used, or one
            key stands for two roles.
    """
    found: dict[str, dict[str, Signer]] = {}
    for repository, role in _all():
        address = f"file:{directory / f'{repository}-{role}.pem'}"
        signer = load_signer(address, secrets, allow_demo=allow_demo)
        found.setdefault(repository, {})[role] = signer
    refuse_shared(
        {
            f"{repository} {role}": [signer.public_key]
            for repository, roles in found.items()
            for role, signer in roles.items()
        }
    )
    return OnlineSigners(
        DirectorSigners(**found["director"]), ImageSigners(**found["image"])
    )


def check_named(signers: OnlineSigners, director: Root, image: Root) -> None:
    """Refuse to serve with keys that the Roots do not name for their roles.

    Raises:
        RefusedError: with the first role that does not fit.
    """
    roots = {"director": director, "image": image}
    for repository, role in _all():
        key = signers.public()[repository][role]
        root = roots[repository]
        named = [root.keys[keyid] for keyid in root.roles[role].keyids]
        if identity(key) not in map(identity, named):
            raise RefusedError(
                f"the server's {repository} {role} key is not in {repository} root "
                f"version {root.version}",
                hint="publish the Root that names it: `sealift keys publish`",
            )


def to_json(keys: OnlineKeys) -> bytes:
    """The file ``online-keys.json``."""
    found: dict[str, Any] = {"_type": KIND, "version": 1}
    for repository, role in _all():
        shown = keys[repository][role].to_dict()
        found.setdefault(repository, {})[role] = shown
    return json.dumps(found, indent=2, sort_keys=True).encode() + b"\n"


def from_json(raw: bytes, *, allow_demo: bool = False) -> OnlineKeys:
    """Read ``online-keys.json``; key ids are computed, never believed.

    Raises:
        MalformedError, LimitError: its form. RefusedError: a key is not taken.
    """
    found = parse_object(raw, BYTES_MAX)
    if (found.get("_type"), found.get("version")) != (KIND, 1):
        raise MalformedError(
            "this is not an online-keys.json of version 1",
            hint="`sealift server init` writes it into the directory public",
        )
    keys: OnlineKeys = {}
    for repository, role in _all():
        key = _key(found, repository, role)
        introduce(key, allow_demo=allow_demo)
        keys.setdefault(repository, {})[role] = key
    return keys


def _key(found: Mapping[str, Any], repository: str, role: str) -> SSlibKey:
    try:
        shown = dict(found[repository][role])
        key = Key.from_dict("", shown)
        if not isinstance(key, SSlibKey):
            raise TypeError("an unknown kind of key")
        return labelled(under_its_id(key), _name(repository, role))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError(
            f"the {repository} {role} key in online-keys.json is malformed"
        ) from error


def _public(signer: Signer) -> SSlibKey:
    key = signer.public_key
    if not isinstance(key, SSlibKey):
        raise RefusedError("an online key of an unknown kind")
    return key


def _name(repository: str, role: str) -> str:
    return f"{repository}-{role}-online"


def _all() -> list[tuple[str, str]]:
    return [(repo, role) for repo, roles in ONLINE_ROLES.items() for role in roles]
