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
from typing import Any

from tuf.api.exceptions import BadVersionNumberError, RepositoryError

from sealift.core.errors import (
    FormatError,
    LimitError,
    MixedError,
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
def one_key_twice(seen: Evidence) -> bool:
    """We count fewer keys, and some role lists one key under two ids."""

    def twins(block: Any, roles: list[Any]) -> bool:
        listed = {i: PublicKey.from_json(k).identity for i, k in block["keys"].items()}
        return any(
            len({listed[i] for i in rule["keyids"] if i in listed})
            < len({i for i in rule["keyids"] if i in listed})
            for rule in roles
        )

    refused = any(isinstance(error, SignatureError) for error in seen.our_refusals)
    served = [signed(raw) for (role, _), raw in seen.files.items() if role == "root"]
    return refused and any(twins(r, list(r["roles"].values())) for r in served)


def a_key_was_removed(seen: Evidence) -> bool:
    """R5: a Root on the way dropped a Timestamp or Snapshot key, and so the floors.

    We may then take a lower version, which python-tuf refuses while the old file still
    verifies; or end in the same error with these files gone.
    """

    def identities(root: Any, role: str) -> set[bytes]:
        ids = root["roles"][role]["keyids"]
        known = [root["keys"][i] for i in ids if i in root["keys"]]
        return {PublicKey.from_json(k).identity for k in known}

    roots = list(seen.roots())
    removed = any(
        not identities(old, role) <= identities(new, role)
        for old, new in zip(roots, roots[1:], strict=False)
        for role in ("timestamp", "snapshot")
    )
    floors = isinstance(seen.theirs.error, BadVersionNumberError) or (
        isinstance(seen.theirs.error, RepositoryError)
        and "missing info" in str(seen.theirs.error)
    )
    only_ours_gone = (
        seen.ours.error is not None
        and seen.theirs.error is not None
        and seen.kept_differently <= {"timestamp", "snapshot"}
    )
    return removed and (floors or only_ours_gone)


WORKFLOW = (
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

_ = (LimitError, MixedError, RollbackError)
