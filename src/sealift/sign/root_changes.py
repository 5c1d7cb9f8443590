"""What a new Root would change: keys, thresholds, shapes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from tuf.api.metadata import Root

from sealift.core.errors import SealiftError
from sealift.repo.policy import is_demo, name_of
from sealift.repo.roots import ROLES, author, check_shape, role_keys
from sealift.sign.findings import Finding, danger, fact, refused

if TYPE_CHECKING:
    from sealift.repo.signing import Request

__all__ = ["root_changes"]


def root_changes(request: Request, *, allow_demo: bool) -> Iterator[Finding]:
    """Compare a proposed Root with the one before it, role by role."""
    new: Root = request.proposed.signed
    old: Root | None = request.base.signed if request.base is not None else None
    try:
        check_shape(new, allow_demo=allow_demo)
    except SealiftError as error:
        yield refused(error.message)
    for role in ROLES:
        yield from _role_changes(role, old, new)
    if any(is_demo(key) for key in new.keys.values()):
        yield fact("it has demo keys: this is a demonstration")
    if _rewritten_root(new, allow_demo=allow_demo) != new:
        yield danger("unknown-content", "it holds members that Sealift does not write")


def _role_changes(role: str, old: Root | None, new: Root) -> Iterator[Finding]:
    after = role_keys(new, role)
    families = after.min_per_family
    rule = f"{after.threshold} of {len(after.keys)}" + (
        f", at least {families} of each family" if families else ""
    )
    if old is None:
        names = ", ".join(name_of(key) for key in after.keys)
        yield fact(f"{role}: {rule} of {names}")
        return
    before = role_keys(old, role)
    known, allowed = set(old.roles[role].keyids), set(new.roles[role].keyids)
    for keyid in new.roles[role].keyids:
        if keyid not in known:
            key = new.keys[keyid]
            yield danger(
                "new-key",
                f"{role}: key {name_of(key)} ({key.scheme}, id {keyid[:12]}) may sign "
                f"from now on",
            )
    for keyid in old.roles[role].keyids:
        if keyid not in allowed:
            yield danger(
                "removed-key",
                f"{role}: key {name_of(old.keys[keyid])} (id {keyid[:12]}) counts no "
                f"more",
            )
    if after.threshold < before.threshold or families < before.min_per_family:
        yield danger(
            "lower-threshold",
            f"{role}: fewer have to agree: {before.threshold} of {len(before.keys)} "
            f"becomes {rule}",
        )
    elif after.threshold != before.threshold or len(after.keys) != len(before.keys):
        yield fact(f"{role}: {before.threshold} of {len(before.keys)} becomes {rule}")
    elif allowed == known:
        yield fact(f"{role}: unchanged, {rule}")


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
