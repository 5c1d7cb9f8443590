"""The values of the TUF workflow: the rules, what is wanted, what is believed so far.

How one becomes the next is in ``trust`` and ``delegation``; only they build a
:class:`Held`, a :class:`Complete` or a :class:`Trusted`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic

from sealift.core.metadata import (
    DIRECTOR,
    IMAGE,
    Body,
    Limits,
    Parsed,
    Profile,
    Reader,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

Name = str | int
"""What a file is kept under: its role, or for a Root its version."""

Kept = Callable[[Name], bytes | None]
"""Reads a file an earlier check kept; ``None`` if there is none."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one repository has to fulfil beyond TUF, and how its files are read."""

    reader: Reader
    device_id: str | None = None
    """X1: stands in Timestamp, Snapshot and Targets, or they are misdirected."""
    issued: frozenset[str] = frozenset()
    """Roles whose files must say when they were issued."""
    demo_keys: bool = False
    """Whether keys made for demonstrations may sign (B-11)."""

    @property
    def limits(self) -> Limits:
        """The caps of this repository."""
        return self.reader.limits


def director_rules(
    device_id: str, limits: Limits = DIRECTOR, *, demo_keys: bool = False
) -> Rules:
    """The rules for the Director of one device."""
    issued = frozenset({"timestamp", "snapshot", "targets"})
    return Rules(Reader(Profile.SEALIFT, limits), device_id, issued, demo_keys)


def image_rules(limits: Limits = IMAGE, *, demo_keys: bool = False) -> Rules:
    """The rules for the Image repository."""
    issued = frozenset({"timestamp"})
    return Rules(Reader(Profile.SEALIFT, limits), None, issued, demo_keys)


def foreign_rules(limits: Limits = IMAGE) -> Rules:
    """TUF's rules alone, for repositories Sealift did not write."""
    return Rules(Reader(Profile.TUF, limits), demo_keys=True)


@dataclass(frozen=True, slots=True)
class Held(Generic[Body]):
    """A verified file: the bytes as received, and what they say."""

    raw: bytes
    parsed: Parsed[Body]

    @property
    def body(self) -> Body:
        """What the file says."""
        return self.parsed.body

    @property
    def sha256(self) -> bytes:
        """The digest of the bytes as received."""
        return hashlib.sha256(self.raw).digest()


@dataclass(frozen=True, slots=True)
class Want:
    """The next file the workflow needs.

    ``version`` goes into the name, ``None`` means the plain name. ``kept`` is the
    answer if it is on hand already: nothing is requested then. Only where
    ``may_be_absent`` is set, a 404 is an answer, ``None``.
    """

    role: str
    version: int | None
    limit: int
    may_be_absent: bool = False
    delegator: str | None = None
    kept: bytes | None = None


@dataclass(frozen=True, slots=True)
class Complete:
    """One repository, verified whole. Made by :func:`wanted` only."""

    state: Trusted
    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Held[Targets]


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is believed of one repository so far in one check.

    ``past_*`` are the kept files that verify under the present Root: the floor against
    rollback, even if expired. ``floor`` is the metadata time at the start of the check,
    ``None`` if there is none. ``floors_reset`` says that a rotation took all of these
    back (R5). ``changes`` is what the last step wants kept, in one atomic step;
    ``None`` deletes. ``remarks`` are for reports.
    """

    rules: Rules
    root: Held[Root]
    kept: Kept
    past_timestamp: Held[Timestamp] | None = None
    past_snapshot: Held[Snapshot] | None = None
    floor: datetime | None = None
    floors_reset: bool = False
    rotations: int = 0
    root_is_final: bool = False
    timestamp: Timestamp | None = None
    snapshot: Snapshot | None = None
    roles: Mapping[tuple[str, str], Held[Targets]] = field(default_factory=dict)
    """Verified Targets files by (delegator, role): L7."""
    spent: int = 0
    changes: Mapping[Name, bytes | None] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def targets_of(self, role: str) -> Held[Targets] | None:
        """A Targets file that verified through some delegator."""
        found = (held for (_, name), held in self.roles.items() if name == role)
        return next(found, None)
