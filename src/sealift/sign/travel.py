"""Signing requests and signatures as files that travel between machines.

A request is named by its own path, or by the release directory it lies in. It is
changed in place, atomically, when a signature is added; whoever would rather send back
a signature alone writes a signature file instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Root

from sealift.core.metadata import IMAGE
from sealift.repo import signing
from sealift.repo.files import read_as, write_atomic
from sealift.repo.policy import name_of
from sealift.repo.repository import read, verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Signer

    from sealift.repo.signing import Request
    from sealift.sign.desk import Desk

__all__ = ["Letter", "desk_of", "status", "trusted_by", "trusted_root"]


@dataclass(frozen=True, slots=True)
class Letter:
    """A request and the file it came from."""

    path: Path
    request: Request

    @classmethod
    def open(cls, path: Path) -> Letter:
        """Read a request file, or the one in a release directory.

        Raises:
            InvalidConfigError, LimitError, MalformedError, RefusedError: no such
            request.
        """
        place = path / "request.json" if path.is_dir() else path
        limit = signing.REQUEST_BYTES_MAX
        return cls(place, read_as(place, limit, signing.request_from_json))

    @classmethod
    def write(cls, path: Path, request: Request) -> Letter:
        """Write a new request; an existing file is not touched.

        Raises:
            InvalidConfigError, SpaceError: it cannot be written.
        """
        raw = signing.request_to_json(request)
        write_atomic(path, raw, mode=0o644, replace=False)
        return cls(path, request)

    def with_signatures(self, files: Iterable[Path]) -> Letter:
        """The same letter with the signatures of other machines.

        Raises:
            RefusedError, SignatureError, MalformedError, LimitError,
            InvalidConfigError: a file does not fit.
        """
        request = self.request
        for file in files:
            request = read_as(
                file,
                signing.SIGNATURES_BYTES_MAX,
                partial(signing.add_signatures, request),
            )
        return Letter(self.path, request)

    def signed_by(self, signer: Signer, *, allow_demo: bool = False) -> Letter:
        """The same letter with one more signature; errors as ``sign_request``."""
        request = signing.sign_request(self.request, signer, allow_demo=allow_demo)
        return Letter(self.path, request)

    def save(self) -> None:
        """Write the request back to its file.

        Raises:
            InvalidConfigError, SpaceError: it cannot be written; the old one stays.
        """
        write_atomic(self.path, signing.request_to_json(self.request), mode=0o644)

    def save_signatures(self, path: Path, before: Request) -> None:
        """Write the signatures that were not in ``before`` to a file of their own.

        Raises:
            InvalidConfigError, SpaceError: it cannot be written.
        """
        known = before.proposed.signatures
        made = [k for k in self.request.proposed.signatures if k not in known]
        raw = signing.signatures_to_json(self.request, made)
        write_atomic(path, raw, mode=0o644, replace=False)


def status(request: Request) -> list[dict[str, Any]]:
    """Who has signed, for every Root that decides; names, not ids."""
    return [
        {
            "root_version": root.version,
            "threshold": found.threshold,
            "min_per_family": found.min_per_family,
            "signed": [name_of(root.keys[keyid]) for keyid in found.signed],
            "open": [name_of(root.keys[keyid]) for keyid in found.open],
            "missing": found.missing,
            "complete": found.complete,
        }
        for root, found in zip(request.deciders, request.standings(), strict=True)
    ]


def trusted_by(desk: Desk, request: Request) -> dict[str, Any]:
    """The desk's own copies for a review: arguments ``trusted``, ``trusted_base``.

    Raises:
        StateError, MalformedError: the desk's metadata is missing or damaged.
    """
    root = desk.root(request.repository)
    base = root if request.role == "root" else desk.targets()
    return {
        "trusted": root.signed,
        "trusted_base": base,
        "allow_demo": desk.policy.demo,
    }


def trusted_root(path: Path) -> dict[str, Any]:
    """A signer's own copy of the Root, for a review: argument ``trusted``.

    Raises:
        InvalidConfigError, LimitError, MalformedError: it is no Root.
        SignatureError: it is not signed by its own keys.
    """
    found = read_as(path, IMAGE.root_bytes, lambda raw: read(raw, Root))
    verify(found.signed, "root", found)
    return {"trusted": found.signed}


def desk_of(keys: Iterable[str]) -> Path | None:
    """The desk a key file lies in, ``DESK/keys/NAME.pem``, if one of them does."""
    for address in keys:
        directory = Path(address.removeprefix("file:")).absolute().parent
        if directory.name == "keys" and (directory.parent / "policy.toml").is_file():
            return directory.parent
    return None
