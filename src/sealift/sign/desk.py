"""The vendor's desk: one directory with keys, metadata and the desk's own policy.

```
DESK/keys/NAME.pem                 encrypted private keys, 0600, directory 0700
DESK/keys/NAME.pub                 their public halves, one TUF key object each
DESK/metadata/{image,director}/    every Root, and the Targets the desk knows
DESK/content-key.json              the server's key for content keys, if it was given
DESK/policy.toml                   lifetimes, and whether this is a demo
```

A desk has no network and needs none; what it makes leaves it as files.
"""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuf.api.metadata import Metadata, Root, Targets

from sealift.core.errors import InvalidConfigError, SealiftError, StateError
from sealift.repo.files import DirectoryStore, read_bounded, write_atomic
from sealift.repo.fresh import fresh_directory
from sealift.repo.repository import file_name, newest, read
from sealift.sign import content_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sealift.core.hpke import Recipient

__all__ = ["REPOSITORIES", "Desk", "Policy", "making"]

REPOSITORIES = ("image", "director")
POLICY_BYTES_MAX = 65_536
DAYS_MAX = 400
WARN_BEFORE = timedelta(days=60)
NOTHING = timedelta()
S = TypeVar("S", Root, Targets)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the desk decides for itself; ``policy.toml``."""

    demo: bool = False
    root_days: int = 365
    targets_days: int = 180

    @property
    def root_lifetime(self) -> timedelta:
        """From signing a Root to its expiry."""
        return timedelta(days=self.root_days)

    @property
    def targets_lifetime(self) -> timedelta:
        """From signing Image Targets to its expiry."""
        return timedelta(days=self.targets_days)

    def to_toml(self) -> str:
        """The file's text."""
        return (
            "# Policy of this signing desk. `sealift keys` and `sealift release` read\n"
            "# it; nothing here weakens what devices check.\n"
            "schema = 1\n"
            "\n"
            "# Keys of a demo are marked and refused everywhere else.\n"
            f"demo = {str(self.demo).lower()}\n"
            "\n"
            "# Days from signing to expiry, 1 to 400.\n"
            f"root_days = {self.root_days}\n"
            f"targets_days = {self.targets_days}\n"
        )

    @classmethod
    def from_toml(cls, raw: bytes) -> Policy:
        """Read what :meth:`to_toml` wrote, edited by hand or not.

        Raises:
            InvalidConfigError: not TOML, an unknown or missing setting, out of range.
        """
        try:
            found = tomllib.loads(raw.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidConfigError(f"policy.toml is not TOML: {error}") from error
        known = {"schema", "demo", "root_days", "targets_days"}
        if set(found) != known or found["schema"] != 1:
            odd = ", ".join(sorted(set(found) ^ known)) or "schema"
            raise InvalidConfigError(
                f"policy.toml: check {odd}", hint="it has exactly: " + ", ".join(known)
            )
        if not isinstance(found["demo"], bool):
            raise InvalidConfigError("policy.toml: demo is true or false")
        return cls(
            found["demo"], _days(found, "root_days"), _days(found, "targets_days")
        )


@dataclass(frozen=True, slots=True)
class Desk:
    """A desk's directory and its policy."""

    path: Path
    policy: Policy

    @classmethod
    def open(cls, path: Path) -> Desk:
        """The desk in a directory.

        Raises:
            InvalidConfigError, LimitError: there is none, or its policy is malformed.
        """
        if not (path / "policy.toml").is_file():
            raise InvalidConfigError(
                f"{path} is not a signing desk", hint="`sealift init` makes one"
            )
        raw = read_bounded(path / "policy.toml", POLICY_BYTES_MAX)
        return cls(path, Policy.from_toml(raw))

    @property
    def keys(self) -> Path:
        """Where the key files lie."""
        return self.path / "keys"

    def content_key(self) -> Recipient:
        """The server's key that content keys of sealed images are wrapped to.

        Raises:
            InvalidConfigError: the desk has none. MalformedError, LimitError: damaged.
        """
        path = self.path / content_key.NAME
        if not path.is_file():
            raise InvalidConfigError(
                f"{self.path} does not know the server's content-key key",
                hint=f"carry public/{path.name} from the server to {path}, "
                f"or name it with --content-key",
            )
        return content_key.read_content_key(path)

    def store(self, repository: str) -> DirectoryStore:
        """The metadata of one repository as the desk knows it."""
        return DirectoryStore(self.path / "metadata" / repository)

    def root(self, repository: str) -> Metadata[Root]:
        """The newest Root.

        Raises:
            StateError: the desk has none. MalformedError: it is damaged.
        """
        found = self._newest(repository, "root", Root)
        if found is None:
            raise StateError(
                f"{self.path} has no {repository} Root",
                hint="was the directory copied whole? `sealift init` makes a new desk",
            )
        return found

    def roots(self) -> dict[str, Root]:
        """The newest Roots by repository."""
        return {name: self.root(name).signed for name in REPOSITORIES}

    def targets(self) -> Metadata[Targets] | None:
        """The newest Image Targets."""
        return self._newest("image", "targets", Targets)

    def warnings(self, now: datetime) -> list[str]:
        """What people should do soon: files that expire within 60 days, or have.

        Raises:
            StateError, MalformedError: the desk's metadata is missing or damaged.
        """
        roots = [(f"{name} root", root) for name, root in self.roots().items()]
        targets = self.targets()
        listed = [] if targets is None else [("image targets", targets.signed)]
        found = []
        for name, signed in [*roots, *listed]:
            left = signed.expires - now
            if left < WARN_BEFORE:
                when = f"expires in {left.days} days" if left > NOTHING else "expired"
                found.append(f"{name} version {signed.version} {when}: renew it")
        return found

    def root_chain(self, repository: str) -> list[bytes]:
        """Every Root from version 1, as published.

        Raises:
            StateError: one of them is missing.
        """
        store = self.store(repository)
        newest_version = self.root(repository).signed.version
        chain = []
        for version in range(1, newest_version + 1):
            raw = store.read(file_name("root", version))
            if raw is None:
                raise StateError(f"{store.directory} lacks root version {version}")
            chain.append(raw)
        return chain

    def targets_bytes(self) -> bytes | None:
        """The newest Image Targets, as signed."""
        store = self.store("image")
        version = newest(store, "targets")
        return store.read(file_name("targets", version)) if version else None

    def _newest(self, repository: str, role: str, kind: type[S]) -> Metadata[S] | None:
        store = self.store(repository)
        version = newest(store, role)
        raw = store.read(file_name(role, version)) if version else None
        try:
            return None if raw is None else read(raw, kind)
        except SealiftError as error:
            error.hint = f"the desk's copy in {store.directory} is damaged"
            raise


@contextmanager
def making(path: Path, policy: Policy) -> Iterator[Desk]:
    """Make a desk; it gets its name only when the body is through.

    Raises:
        InvalidConfigError, SpaceError, BusyError: as ``fresh_directory``.
    """
    with fresh_directory(path, mode=0o700) as draft:
        (draft / "keys").mkdir(mode=0o700)
        for repository in REPOSITORIES:
            (draft / "metadata" / repository).mkdir(parents=True)
        raw = policy.to_toml().encode()
        write_atomic(draft / "policy.toml", raw, mode=0o644)
        yield Desk(draft, policy)


def _days(found: dict[str, Any], name: str) -> int:
    value = found[name]
    if type(value) is not int or not 1 <= value <= DAYS_MAX:
        raise InvalidConfigError(
            f"policy.toml: {name} is a number from 1 to {DAYS_MAX}"
        )
    return value
