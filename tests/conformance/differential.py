"""Our verifier against python-tuf's, on generated repositories and attacks.

Both see the same files at the same times and keep what they accept. After every step
they must agree on whether the check went well, on every byte they kept, and on what
they found for each path. Where they may differ is listed in ``differences``, with the
reason; nothing else may.

    python -m tests.conformance.differential --cases 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient import Updater, UpdaterConfig  # noqa: TID251  the oracle
from tuf.ngclient._internal.trusted_metadata_set import (  # noqa: TID251
    TrustedMetadataSet,
)
from tuf.ngclient.config import EnvelopeType  # noqa: TID251

from sealift.core import keys
from sealift.core.delegation import find
from sealift.core.errors import SealiftError
from sealift.core.trust import accept, resume, wanted
from sealift.core.trusted import Trusted, Want, foreign_rules
from tests.conformance.differences import DIFFERENCES, Evidence
from tests.conformance.worlds import PATHS, Files, World

RULES = foreign_rules()
SEEDS = 10**9
"""Cases of one ``--seed``: no two runs share a world."""

Kept = dict[str, bytes]


@dataclass
class Outcome:
    """What one client made of one step."""

    error: Exception | None = None
    found: dict[str, Any] = field(default_factory=dict)
    why: dict[str, Exception | None] = field(default_factory=dict)


# ── the two clients ──────────────────────────────────────────────────────────────────
class Ours:
    """``sealift.core`` under TUF's rules alone."""

    def __init__(self, anchor: bytes) -> None:
        self.kept: Kept = {"root": anchor}

    def step(self, files: Files, now: datetime) -> Outcome:
        outcome = Outcome()
        try:
            state = self._refresh(files, now)
        except SealiftError as error:
            outcome.error = error
            return outcome
        for path in PATHS:
            try:
                while isinstance(found := find(state, path), Want):
                    state = self._bring(state, found, files, now)
                target = found.target
                outcome.found[path] = (target.length, dict(target.hashes))
            except SealiftError as error:
                outcome.found[path], outcome.why[path] = None, error
        return outcome

    def _refresh(self, files: Files, now: datetime) -> Trusted:
        state = resume(RULES, self.kept["root"], self._read)
        while isinstance(want := wanted(state), Want):
            state = self._bring(state, want, files, now)
        return state

    def _read(self, name: str | int) -> bytes | None:
        return None if isinstance(name, int) else self.kept.get(name)

    def _bring(
        self, state: Trusted, want: Want, files: Files, now: datetime
    ) -> Trusted:
        raw = want.kept
        if raw is None:
            raw = files.get((want.role, want.version))
        state = accept(state, want, raw, now)
        for name, file in state.changes.items():
            role = "root" if isinstance(name, int) else name
            if file is None:
                self.kept.pop(role, None)
            else:
                self.kept[role] = file
        return state


class Theirs(Updater):
    """python-tuf's own Updater, with dictionaries instead of disk and network."""

    def __init__(self, kept: Kept, files: Files, now: datetime) -> None:
        # Deliberately not the constructor of Updater: that one works on a directory.
        self._dir = "/nonexistent"
        self.config = UpdaterConfig()
        self._kept, self._files = kept, files
        self._trusted_set = TrustedMetadataSet(kept["root"], EnvelopeType.METADATA)
        set_time(self._trusted_set, now)

    def _download_metadata(
        self, rolename: str, length: int, version: int | None = None
    ) -> bytes:
        raw = self._files.get((rolename, version))
        if raw is None:
            raise DownloadHTTPError("absent", 404)
        if len(raw) > length:
            raise DownloadLengthMismatchError("too long")
        return raw

    def _load_local_metadata(self, rolename: str) -> bytes:
        if rolename not in self._kept:
            raise OSError("not kept")
        return self._kept[rolename]

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._kept[rolename] = data

    def _persist_root(self, version: int, data: bytes) -> None:
        self._kept["root"] = data

    def _update_root_symlink(self) -> None:
        return


def set_time(trusted: TrustedMetadataSet, now: datetime) -> None:
    """The one place that gives python-tuf another clock."""
    if not hasattr(trusted, "reference_time"):
        raise AttributeError("python-tuf no longer has reference_time")
    trusted.reference_time = now


def their_step(kept: Kept, files: Files, now: datetime) -> Outcome:
    """One check by python-tuf, which starts anew from what it kept."""
    outcome = Outcome()
    try:
        updater = Theirs(kept, files, now)
        updater.refresh()
    except Exception as error:  # noqa: BLE001  whatever it is, it refused
        outcome.error = error
        return outcome
    for path in PATHS:
        try:
            target = updater.get_targetinfo(path)
            outcome.found[path] = target and (target.length, dict(target.hashes))
        except Exception as error:  # noqa: BLE001
            outcome.found[path], outcome.why[path] = None, error
    return outcome


# ── one case ─────────────────────────────────────────────────────────────────────────
class Disagreement(Exception):
    """The clients differ where no listed difference says so."""


def run(seed: int) -> str | None:
    """One world, a few steps. The name of the difference that ended it, or ``None``.

    Raises:
        Disagreement: an unlisted difference.
    """
    world = World(seed)
    ours, theirs = Ours(world.anchor), {"root": world.anchor}
    for _ in range(world.chance.randint(1, 3)):
        world.story.append("evolve")
        world.evolve()
        undo = world.attack() if world.chance.random() < 0.75 else None
        before = dict(theirs)
        mine = ours.step(world.files, world.now)
        other = their_step(theirs, world.files, world.now)
        evidence = Evidence(
            world.files, before, ours.kept, theirs, mine, other, world.now
        )
        if not evidence.agree:
            for difference in DIFFERENCES:
                if difference.explains(evidence):
                    return difference.name
            raise Disagreement(f"seed {seed}: {world.story}\n{evidence}")
        if undo:
            undo()
    return None


@contextmanager
def remembered() -> Iterator[None]:
    """Verify each signature once: the same ones come by the thousand, on both sides."""
    real_ours, real_theirs = keys.verify, SSlibKey._verify

    @lru_cache(maxsize=50_000)
    def ours(
        key: keys.PublicKey, signature: bytes, data: bytes
    ) -> bytes | SealiftError:
        try:
            return real_ours(key, signature, data)
        except SealiftError as error:
            return error

    @lru_cache(maxsize=50_000)
    def theirs(
        kind: str, scheme: str, public: str, signature: bytes, data: bytes
    ) -> Exception | None:
        try:
            real_theirs(SSlibKey("", kind, scheme, {"public": public}), signature, data)
        except Exception as error:  # noqa: BLE001  raised again below
            return error
        return None

    def our_verify(key: keys.PublicKey, signature: bytes, data: bytes) -> bytes:
        found = ours(key, signature, data)
        if isinstance(found, SealiftError):
            raise found
        return found

    def their_verify(self: SSlibKey, signature: bytes, data: bytes) -> None:
        public = self.keyval["public"]
        error = theirs(self.keytype, self.scheme, public, signature, data)
        if error is not None:
            raise error

    keys.verify, SSlibKey._verify = our_verify, their_verify  # type: ignore[method-assign]
    try:
        yield
    finally:
        keys.verify, SSlibKey._verify = real_ours, real_theirs  # type: ignore[method-assign]


def main() -> int:
    """Run many cases with progress; 1 at the first unlisted difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    counted: Counter[str | None] = Counter()
    begun = shown = time.monotonic()
    with remembered():
        for number in range(given.cases):
            try:
                counted[run(given.seed * SEEDS + number)] += 1
            except Disagreement as error:
                print(f"unlisted difference: {error}", file=sys.stderr)
                return 1
            if time.monotonic() - shown > 5 or number + 1 == given.cases:
                shown = time.monotonic()
                rate = (number + 1) / (shown - begun)
                print(f"{number + 1:>9} of {given.cases} cases, {rate:.0f} a second")
                sys.stdout.flush()
    for name, times in counted.most_common():
        print(f"{times:>9}  {name or 'agree in everything'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
