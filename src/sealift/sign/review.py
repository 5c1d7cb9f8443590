"""In plain words: what a signature would change. Recomputed from the bytes, always.

B-16: whoever hands us a request may show one thing and have another signed. So nothing
the request says *about* itself is believed. Each finding comes from the proposed bytes,
compared with the version before them; what our own programs would not have written is a
finding too, so that nothing in the signed bytes stays unsaid.

A *dangerous* finding has a word (``accept``). Signing is refused until the signer has
said every such word; findings without one can be neither accepted nor signed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Root, Targets

from sealift.core.errors import RefusedError, SealiftError
from sealift.core.version import compare
from sealift.repo.entries import Listed, image_entry, listed
from sealift.repo.files import digest_of
from sealift.repo.policy import is_demo, name_of
from sealift.repo.repository import standing, utc_text
from sealift.repo.roots import ROLES, author, check_shape, role_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from sealift.repo.signing import Request

__all__ = [
    "Finding",
    "Level",
    "Review",
    "compare_image",
    "require_consent",
    "review",
]

FOREVER = timedelta(days=400)


class Level(StrEnum):
    """How much a finding matters."""

    FACT = "fact"
    DANGER = "danger"
    """Signed only with the signer's explicit consent."""
    REFUSED = "refused"
    """Never signed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about the request; ``accept`` is the word of consent to a danger."""

    level: Level
    text: str
    accept: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """The finding as JSON values."""
        return {"level": self.level, "text": self.text, "accept": self.accept}


@dataclass(frozen=True, slots=True)
class Review:
    """Everything a signer should know before signing."""

    title: str
    fingerprint: str
    root_fingerprint: str | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """The review as JSON values."""
        return {
            "title": self.title,
            "signed_sha256": self.fingerprint,
            "root_sha256": self.root_fingerprint,
            "findings": [finding.to_json() for finding in self.findings],
            "accept": self.words(),
            "refused": any(f.level is Level.REFUSED for f in self.findings),
        }

    def with_finding(self, found: Finding) -> Review:
        """The review with one finding more."""
        return replace(self, findings=(*self.findings, found))

    def words(self) -> list[str]:
        """The words of consent this request needs, each once, in order."""
        return list(dict.fromkeys(f.accept for f in self.findings if f.accept))


def review(
    request: Request,
    *,
    now: datetime,
    trusted: Root | None = None,
    trusted_base: Metadata[Any] | None = None,
    allow_demo: bool = False,
) -> Review:
    """Compare what is proposed with what is there.

    ``trusted`` and ``trusted_base`` are the signer's own copies (a desk's); with them
    the request's Root and base must be the same. Without them a request could bring a
    Root and a base that hide what it does, which is a danger of its own.

    Raises:
        nothing of its own: what cannot be read was refused when the request was.
    """
    found = [
        *_origin(request, trusted, trusted_base),
        *_common(request, now),
        *(
            _root_changes(request, allow_demo=allow_demo)
            if request.role == "root"
            else _targets_changes(request)
        ),
    ]
    root = request.root
    return Review(
        title=f"{request.repository} {request.role} version {request.version}",
        fingerprint=request.fingerprint,
        root_fingerprint=None if root is None else _fingerprint(root),
        findings=tuple(found),
    )


def compare_image(request: Request, path: Path) -> Finding:
    """Whether a signer's own build of an image is the one that is proposed.

    Raises:
        InvalidConfigError, LimitError: the file cannot be read.
    """
    digest = digest_of(path)
    named = [
        name
        for name, entry in request.proposed.signed.targets.items()
        if entry.hashes.get("sha256") == digest.hex()
        and (request.base is None or name not in request.base.signed.targets)
    ]
    if named:
        return _fact(f"{path.name} is exactly {', '.join(named)}")
    return _refused(f"{path.name} (sha256 {digest.hex()}) is not what is proposed")


def require_consent(found: Review, accepted: Collection[str]) -> None:
    """Return if nothing is refused and every danger was accepted by its word.

    Raises:
        RefusedError: with what is missing.
    """
    refused = [f.text for f in found.findings if f.level is Level.REFUSED]
    if refused:
        raise RefusedError(
            f"{found.title} must not be signed: {refused[0]}",
            hint="ask whoever proposed it; nothing accepts this",
        )
    missing = [word for word in found.words() if word not in accepted]
    if missing:
        reasons = "; ".join(f.text for f in found.findings if f.accept in missing)
        raise RefusedError(
            f"{found.title} needs your consent: {reasons}",
            hint="if you mean it, add "
            + " ".join(f"--accept {word}" for word in missing),
        )


# ── where it comes from, how long it holds ───────────────────────────────────────────
def _origin(
    request: Request, trusted: Root | None, trusted_base: Metadata[Any] | None
) -> Iterator[Finding]:
    root, base = request.root, request.base
    if root is not None:
        yield from _root_origin(root, trusted)
    else:
        yield _danger(
            "first-root",
            "this is a first Root: nothing vouches for it but this signature, so "
            "compare the SHA-256 of the signed bytes with everybody who signs",
        )
    if base is not None and root is not None and trusted_base is None:
        counted = standing(
            root.signed, request.role, base.signed_bytes, base.signatures
        )
        if not counted.complete:
            yield _danger(
                "unverified-base",
                f"version {base.signed.version}, which this is compared with, is not "
                f"signed by the keys of root version {root.signed.version}",
            )
    if trusted_base is None:
        return
    if base is None or base.signed_bytes != trusted_base.signed_bytes:
        yield _danger(
            "other-base",
            f"this starts from another version than your "
            f"{trusted_base.signed.version}: the comparison below is not yours",
        )


def _root_origin(root: Metadata[Root], trusted: Root | None) -> Iterator[Finding]:
    signed = root.signed
    if not standing(signed, "root", root.signed_bytes, root.signatures).complete:
        yield _refused("the Root in this request is not signed by its own keys")
    if trusted is None:
        yield _danger(
            "unknown-root",
            f"root version {signed.version}, which decides, comes with the request, "
            f"as does what this is compared with: compare its SHA-256 "
            f"{_fingerprint(root)} with one you trust, or give your own copy",
        )
    elif trusted != signed:
        yield _refused(
            f"the request names root version {signed.version} as the one in force, "
            f"your own copy is another, version {trusted.version}"
        )
    else:
        yield _fact(f"decided by root version {signed.version}, which is yours")


def _common(request: Request, now: datetime) -> Iterator[Finding]:
    signed, base = request.proposed.signed, request.base
    before = base.signed.version if base is not None else 0
    if signed.version != before + 1:
        yield _danger(
            "version-jump",
            f"the version jumps from {before} to {signed.version}; the versions "
            f"between can never be used",
        )
    days = (signed.expires - now).days
    yield _fact(f"expires {utc_text(signed.expires)}, in {days} days")
    if signed.expires <= now:
        yield _refused("it has expired already")
    if signed.expires - now > FOREVER:
        yield _danger(
            "long-expiry",
            f"it would be valid for {days} days; whoever hides newer versions can hold "
            f"devices back as long",
        )


# ── a new Root ───────────────────────────────────────────────────────────────────────
def _root_changes(request: Request, *, allow_demo: bool) -> Iterator[Finding]:
    new: Root = request.proposed.signed
    old: Root | None = request.base.signed if request.base is not None else None
    try:
        check_shape(new, allow_demo=allow_demo)
    except SealiftError as error:
        yield _refused(error.message)
    for role in ROLES:
        yield from _role_changes(role, old, new)
    if any(is_demo(key) for key in new.keys.values()):
        yield _fact("it has demo keys: this is a demonstration")
    if _rewritten_root(new, allow_demo=allow_demo) != new:
        yield _danger("unknown-content", "it holds members that Sealift does not write")


def _role_changes(role: str, old: Root | None, new: Root) -> Iterator[Finding]:
    after = role_keys(new, role)
    families = after.min_per_family
    rule = f"{after.threshold} of {len(after.keys)}" + (
        f", at least {families} of each family" if families else ""
    )
    if old is None:
        names = ", ".join(name_of(key) for key in after.keys)
        yield _fact(f"{role}: {rule} of {names}")
        return
    before = role_keys(old, role)
    known, allowed = set(old.roles[role].keyids), set(new.roles[role].keyids)
    for keyid in new.roles[role].keyids:
        if keyid not in known:
            key = new.keys[keyid]
            yield _danger(
                "new-key",
                f"{role}: key {name_of(key)} ({key.scheme}, id {keyid[:12]}) may sign "
                f"from now on",
            )
    for keyid in old.roles[role].keyids:
        if keyid not in allowed:
            yield _danger(
                "removed-key",
                f"{role}: key {name_of(old.keys[keyid])} (id {keyid[:12]}) counts no "
                f"more",
            )
    if after.threshold < before.threshold or families < before.min_per_family:
        yield _danger(
            "lower-threshold",
            f"{role}: fewer have to agree: {before.threshold} of {len(before.keys)} "
            f"becomes {rule}",
        )
    elif after.threshold != before.threshold or len(after.keys) != len(before.keys):
        yield _fact(f"{role}: {before.threshold} of {len(before.keys)} becomes {rule}")
    elif allowed == known:
        yield _fact(f"{role}: unchanged, {rule}")


def _rewritten_root(new: Root, *, allow_demo: bool) -> Root | None:
    """The Root as we would have written it, or nothing."""
    try:
        made = author(
            {role: role_keys(new, role) for role in ROLES},
            version=new.version,
            now=new.expires - timedelta(days=1),
            lifetime=timedelta(days=1),
            allow_demo=allow_demo,
        )
    except SealiftError:
        return None
    return made


# ── new Targets ──────────────────────────────────────────────────────────────────────
def _targets_changes(request: Request) -> Iterator[Finding]:
    new: Targets = request.proposed.signed
    old = request.base.signed.targets if request.base is not None else {}
    if new.delegations is not None or new.unrecognized_fields:
        yield _refused("it holds members that Sealift does not write")
    before: dict[str, Listed] = {}
    for path, entry in old.items():
        if path in new.targets and new.targets[path] != entry:
            yield _refused(f"{path} would come to mean another image")
        try:
            before[path] = listed(path, entry)
        except SealiftError as error:
            yield _danger("unverified-base", error.message)
    for path in sorted(set(old) - set(new.targets)):
        yield _danger(
            "remove-image",
            f"{path} is no longer vouched for: devices that were ordered it will not "
            f"install it",
        )
    added = sorted(set(new.targets) - set(old))
    for path in added:
        yield from _added(path, new, before)
    if not added and set(old) == set(new.targets):
        yield _fact(f"the same {len(old)} images as before; only the expiry changes")


def _added(path: str, new: Targets, before: Mapping[str, Listed]) -> Iterator[Finding]:
    try:
        found = listed(path, new.targets[path])
        rewritten = image_entry(found)
    except SealiftError as error:
        yield _refused(error.message)
        return
    artifact = found.artifact
    yield _fact(
        f"new image {path}: version {artifact.version}, {artifact.length} bytes, "
        f"release counter {artifact.release_counter}, sequence {found.sequence}, for "
        f"{', '.join(artifact.hardware_ids)}, sha256 {artifact.sha256.hex()}"
        + (f", SBOM {found.sbom_sha256.hex()}" if found.sbom_sha256 else "")
    )
    if rewritten != new.targets[path]:
        yield _danger(
            "unknown-content", f"{path} has members that Sealift does not write"
        )
    yield from _compared(found, before)


def _compared(found: Listed, before: Mapping[str, Listed]) -> Iterator[Finding]:
    """A new image beside the older ones of its line."""
    mine = found.artifact
    line = [entry.artifact for entry in before.values() if entry.line == found.line]
    if not line:
        yield _fact(f"{found.line} is new: nothing of that name was released before")
        return
    newer = [o.version for o in line if compare(mine.version, o.version) <= 0]
    if newer:
        yield _danger(
            "older-version",
            f"{mine.version} is not above {', '.join(newer)}, released before",
        )
    highest = max(line, key=lambda other: other.release_counter)
    if mine.release_counter < highest.release_counter:
        yield _danger(
            "lower-counter",
            f"release counter {mine.release_counter} is below "
            f"{highest.release_counter} of {highest.version}: devices that run it "
            f"will refuse this one",
        )
    elif mine.release_counter > highest.release_counter:
        yield _fact(
            f"release counter rises from {highest.release_counter} to "
            f"{mine.release_counter}: devices that confirm it can never go back"
        )
    hardware = {one for other in line for one in other.hardware_ids}
    fresh = sorted(set(mine.hardware_ids) - hardware)
    if fresh:
        yield _danger(
            "new-hardware", f"{', '.join(fresh)} was never given {found.line} before"
        )


# ── small ────────────────────────────────────────────────────────────────────────────
def _fact(text: str) -> Finding:
    return Finding(Level.FACT, text)


def _danger(word: str, text: str) -> Finding:
    return Finding(Level.DANGER, text, word)


def _refused(text: str) -> Finding:
    return Finding(Level.REFUSED, text)


def _fingerprint(root: Metadata[Root]) -> str:

    return sha256(root.signed_bytes).hexdigest()
