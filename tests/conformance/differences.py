"""Where Sealift differs from python-tuf 7.0.1 on purpose. Nothing else may differ.

Each :class:`Difference` has a reason and recognises itself in the :class:`Evidence` of
one step, as narrowly as it can: in what was served and kept, in which side refused, and
in what our refusal says. ``FORMS`` are about what a file may look like; there we always
are the stricter side. ``WORKFLOW`` are about what a well-formed file does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import MetaFile, Snapshot, Targets, Timestamp

from sealift.core.errors import (
    ExpiredError,
    FormatError,
    RollbackError,
    SignatureError,
    UnsafeNameError,
)
from sealift.core.keys import PublicKey

Files = dict[tuple[str, int | None], bytes]


@dataclass
class Evidence:
    """One step seen from both sides: what was served, kept before and after, said."""

    files: Files
    before: dict[str, bytes]
    our_kept: dict[str, bytes]
    their_kept: dict[str, bytes]
    ours: Any
    theirs: Any
    now: datetime

    @property
    def agree(self) -> bool:
        """Whether both came to the same end, to the last byte kept."""
        return (
            (self.ours.error is None) == (self.theirs.error is None)
            and not self.kept_differently
            and self.ours.found == self.theirs.found
        )

    @property
    def kept_differently(self) -> set[str]:
        """The names of files that are not the same on both sides now."""
        return {
            name
            for name in self.our_kept.keys() | self.their_kept.keys()
            if self.our_kept.get(name) != self.their_kept.get(name)
        }

    @property
    def our_refusals(self) -> list[Exception]:
        """What we refused: the check, or single searches after it."""
        said = [self.ours.error, *self.ours.why.values()]
        return [error for error in said if error is not None]

    def roots(self) -> Iterator[Any]:
        """The Roots from the one before this step to the one we kept."""
        first, last = signed(self.before["root"]), signed(self.our_kept["root"])
        yield first
        for version in range(first["version"] + 1, last["version"] + 1):
            yield signed(self.files["root", version])

    def __str__(self) -> str:
        return "\n".join(
            f"{side}: {outcome.error!r} <- "
            f"{getattr(outcome.error, '__cause__', None)!r} {outcome.found} {outcome.why}"
            for side, outcome in (("ours", self.ours), ("theirs", self.theirs))
        ) + (f"\nkept differently: {sorted(self.kept_differently)}")


@dataclass(frozen=True)
class Difference:
    """One deliberate difference, its reason, and how it is recognised."""

    name: str
    reason: str
    explains: Callable[[Evidence], bool]


def signed(raw: bytes) -> Any:
    """What a file says."""
    return json.loads(raw)["signed"]


# ── form: we refuse, they read on ────────────────────────────────────────────────────
def form(name: str, pattern: str, reason: str) -> Difference:
    """We refuse a file with these words; python-tuf takes it, or another way out."""
    words = re.compile(pattern)

    def explains(seen: Evidence) -> bool:
        return any(
            isinstance(error, FormatError | UnsafeNameError)
            and words.search(str(error)) is not None
            for error in seen.our_refusals
        )

    return Difference(name, reason, explains)


FORMS = (
    form(
        "twin members",
        r"member twice|two members of the same name",
        "Two parsers that keep different twins read two files (A-23, CVE-2021-27138).",
    ),
    form(
        "strict numbers",
        r"not an integer: |an integer is outside",
        "Floats, exponents, NaN and integers outside 0…2^53-1 differ between readers,"
        " so they are refused wherever they stand, also outside what is signed.",
    ),
    form(
        "lone surrogates",
        r"lone surrogate",
        "A text that is no Unicode has no bytes to sign or to compare (C1).",
    ),
    form("depth", r"nested deeper", "A cap on nesting, before the parser runs (A-22)."),
    form(
        "types",
        r"is not a text|is not an integer|is not a list|neither true nor false"
        r"|is not an object|holds an entry twice",
        "Wrong types are refused where they stand, not where they are used: a text for a"
        " list of key ids, a true for a number, a null for a signature (A-24).",
    ),
    form(
        "ranges",
        r"is not in \d+…",
        "Versions are 1…2^53-1 and thresholds 1…32 (A-24).",
    ),
    form(
        "counts",
        r"entries, \d+ allowed|is longer than|too long",
        "Caps on keys, signatures, hashes and texts hold before any cryptography (A-22).",
    ),
    form(
        "times",
        r"is not YYYY",
        "Exactly one spelling of a time; strptime takes 2031-6-1T0:0:0Z as well.",
    ),
    form(
        "hashes",
        r"in lower hex",
        "A hash in upper case, short or padded is no hash, also where nobody uses it"
        " (C-12, CVE-2020-7982).",
    ),
    form("control characters", r"control character", "They have no place in a name."),
    form(
        "key types",
        r"type and scheme we do not verify",
        "No PKCS#1 v1.5, no GPG, nothing we do not verify (B-13).",
    ),
    form(
        "hash bins",
        r"hash bins",
        "TAP 15 (succinct_roles) is not in the specification; nobody delegates so yet.",
    ),
    form(
        "unsafe names",
        r"target path",
        "A target path has at most 1024 bytes and no NUL (A-26).",
    ),
)


# ── workflow ─────────────────────────────────────────────────────────────────────────
def refused_signatures(seen: Evidence) -> bool:
    """We counted too few signatures."""
    return any(isinstance(error, SignatureError) for error in seen.our_refusals)


def delegators(seen: Evidence) -> list[Any]:
    """Every readable body with keys that was served or kept before."""
    found = []
    for raw in (*seen.files.values(), *seen.before.values()):
        try:
            body = signed(raw)
            found.append(body.get("delegations", body))
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
    return [b for b in found if isinstance(b, dict) and isinstance(b.get("keys"), dict)]


def identity(found: Any) -> bytes:
    """What we take a key for; one we do not read is nobody."""
    try:
        return PublicKey.from_json(found).identity
    except FormatError:
        return b""


def one_key_twice(seen: Evidence) -> bool:
    """We count fewer keys, and some delegator lists one key under two ids."""
    return refused_signatures(seen) and any(
        len({identity(k) for k in body["keys"].values()}) < len(body["keys"])
        for body in delegators(seen)
    )


def key_with_spaces(seen: Evidence) -> bool:
    """We count fewer keys, and some key's text holds white space beside hex."""
    texts = [
        found["keyval"]["public"]
        for body in delegators(seen)
        for found in body["keys"].values()
        if identity(found).startswith(b"undecoded")
    ]
    return refused_signatures(seen) and any(t != "".join(t.split()) for t in texts)


def a_key_was_removed(seen: Evidence) -> bool:
    """R5: a Root on the way dropped a Timestamp or Snapshot key, and so the floors.

    We may then take a lower version, which python-tuf refuses while the old file still
    verifies; or another Timestamp of the same version, where they go on with the old
    one; or come to their end with these files gone or fetched anew; or fetch again the
    Snapshot they kept, and be served a wrong one.
    """

    def identities(root: Any, role: str) -> set[bytes]:
        ids = root["roles"][role]["keyids"]
        return {identity(root["keys"][i]) for i in ids if i in root["keys"]}

    removed = any(
        not identities(old, role) <= identities(new, role)
        for old, new in pairwise(seen.roots())
        for role in ("timestamp", "snapshot")
    )
    floors = isinstance(seen.theirs.error, BadVersionNumberError) or (
        isinstance(seen.theirs.error, RepositoryError)
        and "missing info" in str(seen.theirs.error)
    )
    same_end = (seen.ours.error is None) == (seen.theirs.error is None)
    only_these = same_end and seen.kept_differently <= {"timestamp", "snapshot"}
    old = seen.before.get("timestamp")
    stuck = old == seen.their_kept.get("timestamp") != seen.our_kept.get("timestamp")
    return removed and (floors or only_these or stuck or served_another_snapshot(seen))


def served_another_snapshot(seen: Evidence) -> bool:
    """They went on with the Snapshot they kept, and the one served is not that."""
    kept = seen.before.get("snapshot")
    if kept is None or kept != seen.their_kept.get("snapshot"):
        return False
    return seen.files.get(("snapshot", signed(kept)["version"])) != kept


def lost_by_python_tuf(seen: Evidence) -> bool:
    """They miss a signature over a Timestamp that lists more than Snapshot."""
    raw = seen.files.get(("timestamp", None))
    return (
        isinstance(seen.theirs.error, UnsignedMetadataError)
        and raw is not None
        and signed(raw)["meta"].keys() > {"snapshot.json"}
    )


def kept_snapshot(seen: Evidence) -> tuple[Snapshot, MetaFile, bytes] | None:
    """The Snapshot kept before if its version is listed now, and the listing."""
    raw, timestamp = seen.before.get("snapshot"), seen.their_kept.get("timestamp")
    if raw is None or timestamp is None:
        return None
    kept = Snapshot.from_dict(signed(raw))
    listed = Timestamp.from_dict(signed(timestamp)).snapshot_meta
    return (kept, listed, raw) if kept.version == listed.version else None


def other_snapshot_of_one_version(seen: Evidence) -> bool:
    """The kept Snapshot has the listed version, but not the listed length and hash."""
    found = kept_snapshot(seen)
    try:
        if found:
            found[1].verify_length_and_hashes(found[2])
    except LengthOrHashMismatchError:
        return True
    return False


def expired_but_unlisted_by_hash(seen: Evidence) -> bool:
    """The kept file is the one listed, has expired, and no hash is listed for it."""
    if not any(isinstance(error, ExpiredError) for error in seen.our_refusals):
        return False
    found = kept_snapshot(seen)
    if found and found[1].hashes is None and found[0].is_expired(seen.now):
        return True
    raw = seen.their_kept.get("snapshot")
    listed = {} if raw is None else Snapshot.from_dict(signed(raw)).meta
    return any(
        info.hashes is None
        and name.removesuffix(".json") in seen.before
        and is_expired(seen.before[name.removesuffix(".json")], info.version, seen.now)
        for name, info in listed.items()
    )


def is_expired(raw: bytes, version: int, now: datetime) -> bool:
    """Whether this is that version of a Targets file, and has expired."""
    kept = Targets.from_dict(signed(raw))
    return kept.version == version and kept.is_expired(now)


def below_the_kept_snapshot(seen: Evidence) -> bool:
    """S4: the kept Timestamp counts no more, the kept Snapshot does, and is newer."""
    kept, now = seen.before.get("snapshot"), seen.their_kept.get("snapshot")
    return (
        isinstance(seen.ours.error, RollbackError)
        and kept is not None
        and now is not None
        and bool(signed(now)["version"] < signed(kept)["version"])
    )


WORKFLOW = (
    Difference(
        "other members of meta",
        "python-tuf verifies what it writes again, and drops what else a Timestamp"
        " lists; we verify the object that was parsed, whole.",
        lost_by_python_tuf,
    ),
    Difference(
        "kept Snapshot by hash",
        "A kept Snapshot answers only if version, length and hash are the listed ones"
        " (F4); python-tuf goes by the version.",
        other_snapshot_of_one_version,
    ),
    Difference(
        "kept and expired",
        "A kept file that is the listed one and expired ends the check; python-tuf asks"
        " once more for the same version, in case it is another file (1.3).",
        expired_but_unlisted_by_hash,
    ),
    Difference(
        "S4",
        "A Snapshot never goes below the kept one, whatever Timestamp lists; python-tuf"
        " compares only what Snapshot lists.",
        below_the_kept_snapshot,
    ),
    Difference(
        "spelling of keys",
        "An ed25519 key is 64 hex digits; python-tuf takes white space between them.",
        key_with_spaces,
    ),
    Difference(
        "distinct keys",
        "A threshold counts keys, not key ids: one key under two ids is one (B-01).",
        one_key_twice,
    ),
    Difference(
        "R5 by removal",
        "TUF 5.3.11 drops Timestamp and Snapshot when their keys were rotated. We do so"
        " when a key was removed; python-tuf only if the old file no longer verifies.",
        a_key_was_removed,
    ),
)

DIFFERENCES: tuple[Difference, ...] = FORMS + WORKFLOW
