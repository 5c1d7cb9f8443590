"""TUF role files, read strictly into frozen values. Nothing here is believed yet.

One function per role takes the bytes of a file and gives a :class:`Parsed`: the body,
the canonical bytes its signatures are over, and the signatures. Every cap stands in
:class:`Limits` and is tested before anything is computed from the file. Who signed, how
old it is and what it may replace is the business of ``trust``.

Unknown members are kept out of the values and stay in the signed bytes (TUF 1.0.34,
section 4). Members of the file outside ``signed`` have no effect (``threats.md`` A-25).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from sealift.core import canonical, fields
from sealift.core.errors import (
    LimitError,
    MalformedError,
    MixedError,
    UnsafeNameError,
)
from sealift.core.extension import Custom
from sealift.core.keys import MAX_PUBLIC_TEXT, MAX_SIGNATURE_HEX, KeyRule, PublicKey

TOP_LEVEL = frozenset({"root", "timestamp", "snapshot", "targets"})
"""Roles every Root has; no delegation may take one of these names."""

OFFLINE = frozenset({"offline-snapshot", "offline-targets"})
"""Roles a Director Root may have besides (PURE-2)."""

MAX_SPAN = timedelta(days=400)
"""Longest time from ``issued`` to ``expires``: what a stolen key can poison (A-31)."""

HASHES = {"sha256": 32, "sha512": 64}
"""The hash algorithms we compute, with their size in bytes."""

_UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
_SPEC_VERSION = re.compile(r"1\.[0-9]+(\.[0-9]+)?")


class Profile(Enum):
    """Whose repository it is: our own rules on top of TUF's, or TUF's alone."""

    SEALIFT = "sealift"
    TUF = "tuf"


@dataclass(frozen=True, slots=True)
class Limits:
    """Every cap of ``uptane.md`` section 8 that concerns metadata. Bytes unless named.

    Each is the greatest accepted value.
    """

    root_bytes: int = 262_144
    timestamp_bytes: int = 32_768
    snapshot_bytes: int = 2_000_000
    targets_bytes: int = 5_000_000
    check_bytes: int = 32 << 20
    """All metadata of both repositories in one check, Roots apart."""
    root_rotations: int = 256
    roles_visited: int = 32
    root_keys: int = 64
    delegation_keys: int = 256
    role_keys: int = 32
    signatures: int = 64
    public_key_characters: int = MAX_PUBLIC_TEXT
    signature_characters: int = MAX_SIGNATURE_HEX
    key_id_characters: int = 128
    delegations: int = 256
    patterns: int = 64
    hashes: int = 4
    role_name_characters: int = 128
    role_name_encoded: int = 200
    target_path: int = 1024
    target_segments: int = 32
    target_segment_encoded: int = 240


IMAGE = Limits()
"""Caps for an Image repository, or a foreign TUF repository."""

IMAGE_SMALL = Limits(targets_bytes=1_000_000)
"""Caps for an Image repository on a device with little memory."""

DIRECTOR = Limits(snapshot_bytes=65_536, targets_bytes=262_144)
"""Caps for a Director, which never hands out a fleet-wide file."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a parent file says about another: version, and maybe length and hashes."""

    version: int
    length: int | None
    hashes: Mapping[str, str] | None

    def require(self, raw: bytes, what: str) -> None:
        """Refuse bytes that are not the listed ones (S2, G2).

        Raises:
            MixedError: length or any hash differs, or a hash algorithm is unknown.
        """
        if self.length is not None and len(raw) != self.length:
            raise MixedError(
                f"{what} has {len(raw)} bytes, its parent lists {self.length}",
                role=what,
            )
        for name, listed in (self.hashes or {}).items():
            if name not in HASHES or hashlib.new(name, raw).hexdigest() != listed:
                raise MixedError(
                    f"{what}: the {name} its parent lists differs", role=what
                )


@dataclass(frozen=True, slots=True)
class Target:
    """One image as a Targets file describes it. ``custom`` only under our profile."""

    length: int
    hashes: Mapping[str, str]
    custom: Custom | None


@dataclass(frozen=True, slots=True)
class Delegation:
    """One role another Targets role hands a part of its names to (C9)."""

    name: str
    rule: KeyRule
    terminating: bool
    paths: tuple[str, ...] | None
    hash_prefixes: tuple[str, ...] | None
    hardware_ids: tuple[str, ...] | None

    def covers(self, path: str, hardware_id: str | None) -> bool:
        """Whether the delegation applies: the name matches and the hardware too (L2).

        ``hardware_id`` is that of the ECU the image is for, ``None`` if nobody asks.
        """
        if self.hardware_ids is not None and hardware_id not in self.hardware_ids:
            return False
        if self.hash_prefixes is not None:
            named = hashlib.sha256(path.encode()).hexdigest()
            return any(named.startswith(prefix) for prefix in self.hash_prefixes)
        return any(_matches(path, pattern) for pattern in self.paths or ())


@dataclass(frozen=True, slots=True)
class Common:
    """What every role file says. ``issued`` and ``device_id`` are Sealift's own."""

    version: int
    expires: datetime
    issued: datetime | None
    device_id: str | None


@dataclass(frozen=True, slots=True)
class Root(Common):
    """The keys of a repository and who of them signs what."""

    consistent_snapshot: bool
    keys: Mapping[str, PublicKey]
    roles: Mapping[str, KeyRule]


@dataclass(frozen=True, slots=True)
class Timestamp(Common):
    """Which Snapshot is the newest."""

    snapshot: FileInfo


@dataclass(frozen=True, slots=True)
class Snapshot(Common):
    """Which version of every Targets file belongs together; by file name."""

    files: Mapping[str, FileInfo]


@dataclass(frozen=True, slots=True)
class Targets(Common):
    """Images by name, and the roles that vouch for others, first come first."""

    targets: Mapping[str, Target]
    keys: Mapping[str, PublicKey]
    delegations: tuple[Delegation, ...]


Body = TypeVar("Body", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[Body]):
    """A well-formed role file, not verified: body, signed bytes, hex by key id."""

    body: Body
    signed: bytes
    signatures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the files of one repository under one profile and one set of caps.

    Every method raises :class:`MalformedError` for a file that is not what it must be
    and :class:`LimitError` for one that passes a cap.
    """

    profile: Profile
    limits: Limits

    @property
    def own(self) -> bool:
        """Whether our own rules hold."""
        return self.profile is Profile.SEALIFT

    def root(self, raw: bytes) -> Parsed[Root]:
        """Read a Root (C4)."""
        return self._read(raw, self.limits.root_bytes, "root", self._root)

    def timestamp(self, raw: bytes) -> Parsed[Timestamp]:
        """Read a Timestamp (C11)."""
        return self._read(
            raw, self.limits.timestamp_bytes, "timestamp", self._timestamp
        )

    def snapshot(self, raw: bytes) -> Parsed[Snapshot]:
        """Read a Snapshot (C10)."""
        return self._read(raw, self.limits.snapshot_bytes, "snapshot", self._snapshot)

    def targets(self, raw: bytes) -> Parsed[Targets]:
        """Read a Targets file, of the top level or delegated (C5, C9)."""
        return self._read(raw, self.limits.targets_bytes, "targets", self._targets)

    # ── the file around the role ─────────────────────────────────────────────────────
    def _read(
        self,
        raw: bytes,
        cap: int,
        kind: str,
        body: Callable[[Mapping[str, object], Common], Body],
    ) -> Parsed[Body]:
        found = canonical.parse_object(raw, cap, own=self.own)
        signatures = self._signatures(found)
        signed = fields.member(found, "signed")
        if signed.get("_type") != kind:
            raise MalformedError(f"this is not a {kind} file", role=kind)
        return Parsed(
            body(signed, self._common(signed)), canonical.encode(signed), signatures
        )

    def _signatures(self, found: Mapping[str, object]) -> Mapping[str, str]:
        limits, signatures = self.limits, {}
        for entry in fields.items(found, "signatures", limits.signatures):
            pair = fields.as_object(entry, "signature")
            key_id = fields.text(pair, "keyid", limits.key_id_characters)
            signature = pair.get("sig")
            if not isinstance(signature, str):
                raise MalformedError("a signature is not a text")
            if len(signature) > limits.signature_characters:
                raise LimitError("a signature is too long")
            if key_id in signatures:
                raise MalformedError("a key id signs twice")
            signatures[key_id] = signature
        return signatures

    def _common(self, signed: Mapping[str, object]) -> Common:
        spec = signed.get("spec_version")
        if not isinstance(spec, str) or not _SPEC_VERSION.fullmatch(spec):
            raise MalformedError("spec_version is not 1.x")
        version = fields.count(signed, "version", 1)
        expires = fields.moment(signed, "expires")
        if not self.own:
            return Common(version, expires, None, None)
        issued = fields.moment(signed, "issued") if "issued" in signed else None
        if issued is not None and not timedelta(0) < expires - issued <= MAX_SPAN:
            raise MalformedError("issued and expires are not 1 s to 400 days apart")
        device = (
            fields.text(signed, "device_id", 128) if "device_id" in signed else None
        )
        return Common(version, expires, issued, device)

    # ── the roles ────────────────────────────────────────────────────────────────────
    def _root(self, signed: Mapping[str, object], common: Common) -> Root:
        roles = fields.member(signed, "roles")
        allowed = TOP_LEVEL | (OFFLINE if self.own else frozenset())
        if not roles.keys() >= TOP_LEVEL or not roles.keys() <= allowed:
            raise MalformedError("a Root needs the four roles, and no unknown one")
        consistent = "consistent_snapshot" in signed and fields.flag(
            signed, "consistent_snapshot"
        )
        if self.own and not consistent:
            raise MalformedError("consistent_snapshot is not true")
        return Root(
            *_values(common),
            consistent_snapshot=consistent,
            keys=self._keys(signed, self.limits.root_keys),
            roles={n: self._rule(fields.as_object(r, n)) for n, r in roles.items()},
        )

    def _timestamp(self, signed: Mapping[str, object], common: Common) -> Timestamp:
        meta = fields.member(signed, "meta")
        return Timestamp(
            *_values(common),
            snapshot=self._info(fields.member(meta, "snapshot.json")),
        )

    def _snapshot(self, signed: Mapping[str, object], common: Common) -> Snapshot:
        meta = fields.member(signed, "meta")
        if self.own and not all(name.endswith(".json") for name in meta):
            raise MalformedError("Snapshot lists a name that does not end in .json")
        files = {n: self._info(fields.as_object(i, n)) for n, i in meta.items()}
        return Snapshot(*_values(common), files=files)

    def _targets(self, signed: Mapping[str, object], common: Common) -> Targets:
        targets = {
            path: self._target(path, fields.as_object(entry, "target"))
            for path, entry in fields.member(signed, "targets").items()
        }
        if "delegations" not in signed:
            return Targets(*_values(common), targets, {}, ())
        block = fields.member(signed, "delegations")
        keys = self._keys(block, self.limits.delegation_keys)
        return Targets(*_values(common), targets, keys, self._delegations(block))

    # ── parts of roles ───────────────────────────────────────────────────────────────
    def _keys(self, found: Mapping[str, object], limit: int) -> Mapping[str, PublicKey]:
        listed = fields.at_most(fields.member(found, "keys"), limit, "keys")
        for key_id in listed:
            fields.as_text(key_id, "keyid", self.limits.key_id_characters)
        cap = self.limits.public_key_characters
        return {key_id: PublicKey.from_json(k, cap) for key_id, k in listed.items()}

    def _rule(self, found: Mapping[str, object]) -> KeyRule:
        limits = self.limits
        key_ids = fields.texts(
            found, "keyids", limits.role_keys, limits.key_id_characters
        )
        # A threshold above the number of keys is legal: such a role never verifies.
        threshold = fields.count(found, "threshold", 1, limits.role_keys)
        if not self.own or "min_per_family" not in found:
            return KeyRule(key_ids, threshold)
        least = fields.count(found, "min_per_family", 1, limits.role_keys)
        return KeyRule(key_ids, threshold, least)

    def _info(self, found: Mapping[str, object]) -> FileInfo:
        version = fields.count(found, "version", 1)
        complete = self.own  # decision i: ours always carry length and sha256
        length = (
            fields.count(found, "length") if complete or "length" in found else None
        )
        hashes = self._hashes(found) if complete or "hashes" in found else None
        return FileInfo(version, length, hashes)

    def _hashes(self, found: Mapping[str, object]) -> Mapping[str, str]:
        listed = fields.at_most(
            fields.member(found, "hashes"), self.limits.hashes, "hashes"
        )
        if not listed or (self.own and "sha256" not in listed):
            raise MalformedError(
                "hashes has no sha256" if listed else "hashes is empty"
            )
        for name, size in HASHES.items():
            if name in listed:
                fields.digest(listed, name, size)
        # An algorithm we do not know is kept: it is refused where it would be used.
        return {name: fields.as_text(v, "hash", 256) for name, v in listed.items()}

    def _target(self, path: str, found: Mapping[str, object]) -> Target:
        require_path(path, self.limits, own=self.own)
        custom = None
        if self.own and "custom" in found:
            custom = Custom.from_json(fields.member(found, "custom"))
        return Target(fields.count(found, "length"), self._hashes(found), custom)

    def _delegations(self, block: Mapping[str, object]) -> tuple[Delegation, ...]:
        if "roles" not in block or "succinct_roles" in block:
            raise MalformedError("delegations without a list of roles (hash bins?)")
        listed = fields.items(block, "roles", self.limits.delegations)
        roles = tuple(self._delegation(fields.as_object(r, "role")) for r in listed)
        if len({role.name for role in roles}) != len(roles):
            raise MalformedError("delegations name a role twice")
        return roles

    def _delegation(self, found: Mapping[str, object]) -> Delegation:
        if "min_roles_in_agreement" in found:  # C14, L8: refused, not half-read
            raise MalformedError("a multi-role delegation (TAP 3) is not supported")
        limits = self.limits
        name = require_role_name(found.get("name"), limits)
        if ("paths" in found) == ("path_hash_prefixes" in found):
            raise MalformedError("a delegation needs paths or path_hash_prefixes")
        return Delegation(
            name,
            self._rule(found),
            fields.flag(found, "terminating"),
            self._patterns(found, "paths"),
            self._patterns(found, "path_hash_prefixes"),
            self._patterns(found, "hardware_ids") if self.own else None,
        )

    def _patterns(
        self, found: Mapping[str, object], name: str
    ) -> tuple[str, ...] | None:
        if name not in found:
            return None
        listed = fields.items(found, name, self.limits.patterns)
        longest = self.limits.target_path
        return tuple(fields.as_text(p, name, longest, least=0) for p in listed)


def _values(common: Common) -> tuple[int, datetime, datetime | None, str | None]:
    return common.version, common.expires, common.issued, common.device_id


def _matches(path: str, pattern: str) -> bool:
    """Shell wildcards, segment by segment: none of them crosses a ``/`` (L3)."""
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


# ── names ────────────────────────────────────────────────────────────────────────────
def encoded(name: str) -> str:
    """A role name or path segment as one component of a URL (RFC 3986, section 2.3).

    Every byte that is not unreserved is percent-encoded, the slash as well.
    """
    return "".join(
        chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in name.encode()
    )


def require_role_name(name: object, limits: Limits) -> str:
    """A role name within its caps. It may look like a path: it is never used as one.

    Raises:
        MalformedError: no text, empty, a control character, or a top-level name.
        LimitError: too long, plain or percent-encoded.
    """
    named = fields.as_text(name, "role name", limits.role_name_characters)
    if len(encoded(named)) > limits.role_name_encoded:
        raise LimitError("a role name is too long when percent-encoded")
    if named in TOP_LEVEL:
        raise MalformedError("a delegated role has the name of a top-level one")
    return named


def require_path(path: str, limits: Limits, *, own: bool) -> str:
    """A target path within its caps; with ``own`` one that is safe as a path (A-26).

    Raises:
        LimitError: too long, too many segments, or a segment too long when encoded.
        UnsafeNameError: a NUL; with ``own`` also empty, absolute, ``.``, ``..``, or a
            control character.
    """
    segments = path.split("/")
    if (
        len(path.encode()) > limits.target_path
        or len(segments) > limits.target_segments
    ):
        raise LimitError("a target path is too long or too deep")
    if any(len(encoded(s)) > limits.target_segment_encoded for s in segments):
        raise LimitError("a segment of a target path is too long when encoded")
    if "\0" in path or (own and not _SAFE_PATH.fullmatch(path)):
        raise UnsafeNameError("a target path is not a plain relative path")
    return path


_SEGMENT = r"(?!\.{1,2}(?:/|$))[^/\x00-\x1f\x7f-\x9f]+"
_SAFE_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
