"""Versioned metadata: made, signed, read back, kept in a store, and checked.

Everything that builds on python-tuf's ``Metadata`` meets it here: bounded strict
reading, signing, who has signed. Times come in as arguments, signers and stores from
outside. The rules of one role are elsewhere: ``roots``, ``image``, ``director``.

File names are TUF's with consistent snapshots: ``timestamp.json`` alone has no version
in front of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import SerializationError

from sealift.core.canonical import parse_object
from sealift.core.errors import (
    ConflictError,
    FormatError,
    KeyUnreadableError,
    LimitError,
    MalformedError,
    SealiftError,
    SignatureError,
)
from sealift.core.keys import Family, PublicKey
from sealift.core.keys import verify as check_signature
from sealift.core.metadata import IMAGE, Limits, Profile, Reader
from sealift.repo.policy import family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from securesystemslib.signer import Key, Signature, Signer

__all__ = [
    "SPEC_VERSION",
    "DictStore",
    "MetadataStore",
    "RoleFile",
    "Standing",
    "file_name",
    "instant",
    "issued",
    "min_per_family",
    "newest",
    "read",
    "sign",
    "sign_bytes",
    "span",
    "standing",
    "utc_text",
    "verify",
    "write_new",
]

SPEC_VERSION = "1.0.34"
SPAN_MAX = timedelta(days=400)
"""The longest time from ``issued`` to ``expires`` that a device accepts."""
RoleFile: TypeAlias = Root | Timestamp | Snapshot | Targets
S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


class MetadataStore(Protocol):
    """Where one repository's metadata lies, under TUF's file names."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, ``None`` if there is none."""
        ...

    def write(self, name: str, raw: bytes) -> None:
        """Write or replace a file atomically and durably."""
        ...

    def names(self) -> Sequence[str]:
        """All file names, sorted."""
        ...


class DictStore:
    """Metadata in memory."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {})

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, ``None`` if there is none."""
        return self.files.get(name)

    def write(self, name: str, raw: bytes) -> None:
        """Write or replace a file."""
        self.files[name] = raw

    def names(self) -> Sequence[str]:
        """All file names, sorted."""
        return sorted(self.files)


# ── names and times ──────────────────────────────────────────────────────────────────
def file_name(role: str, version: int) -> str:
    """What a role's file is called in a store and on the wire."""
    return f"{role}.json" if role == "timestamp" else f"{version}.{role}.json"


def utc_text(moment: datetime) -> str:
    """A moment as metadata writes it: ``2026-11-22T13:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str) -> datetime:
    """Read what :func:`utc_text` wrote.

    Raises:
        MalformedError: it is not of that form.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (ValueError, TypeError) as error:
        raise MalformedError("a time is not YYYY-MM-DDTHH:MM:SSZ") from error


def span(now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    """``now`` cut to the second, and the moment ``lifetime`` later.

    Raises:
        LimitError: the lifetime is not positive or above what devices accept.
    """
    if not timedelta() < lifetime <= SPAN_MAX:
        raise LimitError(
            f"a lifetime of {lifetime} is not allowed",
            hint=f"more than nothing, at most {SPAN_MAX.days} days",
        )
    start = now.astimezone(UTC).replace(microsecond=0)
    return start, start + lifetime


def issued(signed: RoleFile) -> datetime | None:
    """When the file was made, if it says so."""
    text = signed.unrecognized_fields.get("issued")
    return None if text is None else instant(text)


# ── reading ──────────────────────────────────────────────────────────────────────────
def read(raw: bytes, kind: type[S], *, limits: Limits = IMAGE) -> Metadata[S]:
    """One metadata file, as strictly parsed as a device does; who signed is not asked.

    Raises:
        LimitError: more of something than devices take. MalformedError: anything else.
    """
    role = kind.type
    reader = Reader(Profile.SEALIFT, limits)
    parsed = getattr(reader, role)(raw)  # what a device would refuse is refused here
    try:
        metadata = Metadata[S].from_dict(parse_object(raw, len(raw)))
    except (ValueError, KeyError, TypeError, AttributeError, RepositoryError) as error:
        raise MalformedError(f"the {role} file is malformed: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise MalformedError(f"a {metadata.signed.type} file where {role} was expected")
    if metadata.signed_bytes != parsed.signed:
        raise MalformedError(f"the {role} file does not read the same twice")
    return metadata


# ── signing ──────────────────────────────────────────────────────────────────────────
def sign(signed: RoleFile, signers: Iterable[Signer] = ()) -> bytes:
    """The file with a signature by each signer, in order; bytes ready to publish.

    Raises:
        KeyUnreadableError: a signer failed. MalformedError: not representable.
    """
    metadata: Metadata[Any] = Metadata(signed)
    try:
        payload = metadata.signed_bytes
        for signer in signers:
            _add(metadata, signer, payload)
        return metadata.to_bytes()
    except SerializationError as error:
        raise MalformedError(f"cannot be written as metadata: {error}") from error


def _add(metadata: Metadata[Any], signer: Signer, payload: bytes) -> None:
    signature = sign_bytes(signer, payload)
    metadata.signatures[signature.keyid] = signature


def sign_bytes(signer: Signer, payload: bytes) -> Signature:
    """One signature; whatever a signer raises becomes an error of ours.

    Raises:
        KeyUnreadableError: the key, token or service failed.
    """
    try:
        return signer.sign(payload)
    except SealiftError:
        raise
    except Exception as error:  # signers do not say what they raise
        raise KeyUnreadableError(
            f"the signer failed: {type(error).__name__}: {error}"
        ) from error


# ── who has signed ───────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Standing:
    """How far a role's signatures are; ``signed`` and ``open`` hold key ids.

    ``min_per_family`` is 0 for a role that is not hybrid; ``families`` counts the valid
    signatures per family of algorithms.
    """

    role: str
    threshold: int
    min_per_family: int
    signed: tuple[str, ...]
    open: tuple[str, ...]
    families: Mapping[Family, int]

    @property
    def complete(self) -> bool:
        """Enough signatures, of every family."""
        enough = all(n >= self.min_per_family for n in self.families.values())
        return enough and len(self.signed) >= self.threshold

    @property
    def missing(self) -> int:
        """At least so many more signatures are needed."""
        lacking = sum(max(0, self.min_per_family - n) for n in self.families.values())
        return max(self.threshold - len(self.signed), lacking, 0)


def standing(
    root: Root, role: str, payload: bytes, signatures: Mapping[str, Signature]
) -> Standing:
    """Count the valid signatures of a role's keys; one public key counts once."""
    rule = root.roles[role]
    keys = {keyid: root.keys[keyid] for keyid in rule.keyids if keyid in root.keys}
    families = dict.fromkeys(map(family, keys.values()), 0)
    seen: set[bytes] = set()
    signed: list[str] = []
    for keyid, key in keys.items():
        signer = _signer(key, signatures.get(keyid), payload)
        if signer is None or signer in seen:
            continue
        seen.add(signer)
        signed.append(keyid)
        families[family(key)] += 1
    return Standing(
        role=role,
        threshold=rule.threshold,
        min_per_family=min_per_family(rule.unrecognized_fields),
        signed=tuple(signed),
        open=tuple(keyid for keyid in keys if keyid not in signed),
        families=families,
    )


def min_per_family(fields: Mapping[str, Any]) -> int:
    """The hybrid rule of a role, 0 if it has none."""
    found = fields.get("min_per_family", 0)
    return found if type(found) is int and found > 0 else 0


def verify(root: Root, role: str, metadata: Metadata[Any]) -> Standing:
    """Return the standing of a file that its role's keys have signed sufficiently.

    Raises:
        SignatureError: fewer valid signatures by distinct keys than the role needs.
    """
    found = standing(root, role, metadata.signed_bytes, metadata.signatures)
    if not found.complete:
        raise SignatureError(
            f"{role} version {metadata.signed.version} has {len(found.signed)} valid "
            f"signatures of {found.threshold}; {found.missing} more are needed",
            role=role,
        )
    return found


def _signer(key: Key, signature: Signature | None, payload: bytes) -> bytes | None:
    """Whose valid signature this is, as devices see it; ``None``: nobody's."""
    if signature is None:
        return None
    try:
        raw = bytes.fromhex(signature.signature)
        return check_signature(PublicKey.from_json(key.to_dict()), raw, payload)
    except (ValueError, SignatureError, FormatError):
        return None


# ── publishing ───────────────────────────────────────────────────────────────────────
def newest(store: MetadataStore, role: str) -> int:
    """The highest version of a versioned role in the store, 0 if there is none."""
    versions = [0]
    for name in store.names():
        number, _, rest = name.partition(".")
        if rest == f"{role}.json" and number.isascii() and number.isdigit():
            versions.append(int(number))
    return max(versions)


def write_new(store: MetadataStore, role: str, version: int, raw: bytes) -> bool:
    """Write a version that must not exist differently; ``False`` if it was there.

    Raises:
        ConflictError: other bytes stand under that version.
    """
    name = file_name(role, version)
    known = store.read(name)
    if known == raw:
        return False
    if known is not None:
        raise ConflictError(
            f"{name} exists with other content",
            hint="a published version is never changed; propose the next one",
        )
    store.write(name, raw)
    return True
