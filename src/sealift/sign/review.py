"""In plain words: what a signature would change. Recomputed from the bytes, always.

B-16: whoever hands us a request may show one thing and have another signed. So nothing
the request says *about* itself is believed. Each finding comes from the proposed bytes,
compared with the version before them; what our own programs would not have written is a
finding too, so that nothing in the signed bytes stays unsaid.

A *danger* has a word. Signing is refused until the signer has said every such word.
What is *refused* has none: nobody signs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Root

from sealift.core.errors import RefusedError
from sealift.repo.repository import standing, utc_text
from sealift.sign.findings import Finding, Level, danger, fact, refused
from sealift.sign.image_changes import compare_image, image_changes
from sealift.sign.root_changes import root_changes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

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
"""Nothing is valid longer, so nothing was made longer before its expiry."""


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
            root_changes(request, allow_demo=allow_demo)
            if request.role == "root"
            else image_changes(request)
        ),
    ]
    root = request.root
    return Review(
        title=f"{request.repository} {request.role} version {request.version}",
        fingerprint=request.fingerprint,
        root_fingerprint=None if root is None else _fingerprint(root),
        findings=tuple(found),
    )


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
        yield danger(
            "first-root",
            "this is a first Root: nothing vouches for it but this signature, so "
            "compare the SHA-256 of the signed bytes with everybody who signs",
        )
    if base is not None and root is not None and trusted_base is None:
        counted = standing(
            root.signed, request.role, base.signed_bytes, base.signatures
        )
        if not counted.complete:
            yield danger(
                "unverified-base",
                f"version {base.signed.version}, which this is compared with, is not "
                f"signed by the keys of root version {root.signed.version}",
            )
    if trusted_base is None:
        return
    if base is None or base.signed_bytes != trusted_base.signed_bytes:
        yield danger(
            "other-base",
            f"this starts from another version than your "
            f"{trusted_base.signed.version}: the comparison below is not yours",
        )


def _root_origin(root: Metadata[Root], trusted: Root | None) -> Iterator[Finding]:
    signed = root.signed
    if not standing(signed, "root", root.signed_bytes, root.signatures).complete:
        yield refused("the Root in this request is not signed by its own keys")
    if trusted is None:
        yield danger(
            "unknown-root",
            f"root version {signed.version}, which decides, comes with the request, "
            f"as does what this is compared with: compare its SHA-256 "
            f"{_fingerprint(root)} with one you trust, or give your own copy",
        )
    elif trusted != signed:
        yield refused(
            f"the request names root version {signed.version} as the one in force, "
            f"your own copy is another, version {trusted.version}"
        )
    else:
        yield fact(f"decided by root version {signed.version}, which is yours")


def _common(request: Request, now: datetime) -> Iterator[Finding]:
    signed, base, root = request.proposed.signed, request.base, request.root
    if root is not None and now >= root.signed.expires:
        yield danger(
            "expired-root",
            f"root version {root.signed.version} expired "
            f"{utc_text(root.signed.expires)}, or this machine's clock is wrong; only "
            f"a new Root helps devices then",
        )
    if root is not None and now < root.signed.expires - FOREVER:
        yield refused(
            f"this machine's clock says {utc_text(now)}, before root version "
            f"{root.signed.version} can have been made"
        )
    before = base.signed.version if base is not None else 0
    if signed.version != before + 1:
        yield danger(
            "version-jump",
            f"the version jumps from {before} to {signed.version}; the versions "
            f"between can never be used",
        )
    days = (signed.expires - now).days
    yield fact(f"expires {utc_text(signed.expires)}, in {days} days")
    if signed.expires <= now:
        yield refused("it has expired already")
    if signed.expires - now > FOREVER:
        yield danger(
            "long-expiry",
            f"it would be valid for {days} days; whoever hides newer versions can hold "
            f"devices back as long",
        )


def _fingerprint(root: Metadata[Root]) -> str:
    return sha256(root.signed_bytes).hexdigest()
