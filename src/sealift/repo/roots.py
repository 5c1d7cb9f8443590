"""Authoring Root: roles, keys and thresholds, and the shapes the signer refuses.

A *shape* is how many keys of which kind stand behind a role. Refused here, whoever
asks: a threshold above the number of keys, fewer than three Root keys, a Root threshold
below two, one key in two roles, a hybrid that one family could meet alone, an algorithm
that is not on the policy list. Whether Root N may become Root N+1 is decided by both
thresholds and the version; nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Role, Root

from sealift.core.errors import RefusedError, RollbackError
from sealift.core.keys import Family
from sealift.repo.policy import (
    NAME_FIELD,
    family,
    introduce,
    refuse_shared,
)
from sealift.repo.repository import (
    SPEC_VERSION,
    MetadataStore,
    min_per_family,
    newest,
    read,
    span,
    verify,
    write_new,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from securesystemslib.signer import Key

__all__ = [
    "ROLES",
    "RoleKeys",
    "author",
    "check_next",
    "check_role",
    "check_shape",
    "current_root",
    "publish_root",
    "refuse_shared_keys",
    "role_keys",
]

ROLES = ("root", "targets", "snapshot", "timestamp")
ROOT_KEYS_MIN = 3
ROOT_THRESHOLD_MIN = 2
KEYS_PER_ROLE_MAX = 32
LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The keys behind one role; ``min_per_family`` 0 for a role that is not hybrid."""

    keys: tuple[Key, ...]
    threshold: int
    min_per_family: int = 0

    @classmethod
    def hybrid(cls, keys: Iterable[Key], people: int) -> RoleKeys:
        """A role in which ``people`` must sign, each with a key of both families."""
        return cls(tuple(keys), 2 * people, people)


def author(
    roles: Mapping[str, RoleKeys],
    *,
    version: int = 1,
    now: datetime,
    lifetime: timedelta = LIFETIME,
    allow_demo: bool = False,
) -> Root:
    """A Root, unsigned, with exactly these roles.

    Raises:
        RefusedError: a shape or key that is refused. LimitError: the lifetime.
    """
    _, end = span(now, lifetime)
    for name, rule in roles.items():
        check_role(name, rule, allow_demo=allow_demo)
    root = Root(
        version,
        SPEC_VERSION,
        end,
        {key.keyid: key for rule in roles.values() for key in rule.keys},
        {name: _role(rule) for name, rule in roles.items()},
        consistent_snapshot=True,
    )
    check_shape(root, allow_demo=allow_demo)
    return root


def role_keys(root: Root, role: str) -> RoleKeys:
    """A role of a Root, to be changed and given to :func:`author` again."""
    rule = root.roles[role]
    return RoleKeys(
        tuple(root.keys[keyid] for keyid in rule.keyids),
        rule.threshold,
        min_per_family(rule.unrecognized_fields),
    )


def check_shape(root: Root, *, allow_demo: bool = False) -> None:
    """Refuse a Root that nobody should sign; the module docstring lists the reasons.

    Raises:
        RefusedError: with the role and the reason.
    """
    for role in ROLES:
        if not set(root.roles[role].keyids) <= set(root.keys):
            raise RefusedError(f"{role} names a key that the Root does not hold")
        check_role(role, role_keys(root, role), allow_demo=allow_demo)
    refuse_shared(
        {role: [root.keys[i] for i in root.roles[role].keyids] for role in ROLES}
    )
    names = Counter(
        key.unrecognized_fields.get(NAME_FIELD) for key in root.keys.values()
    )
    for name, count in names.items():
        if name is not None and count > 1:
            raise RefusedError(f"two keys are called {name!r}")


def refuse_shared_keys(**repositories: Root) -> None:
    """One key, one repository: refuse Roots of several that share a key.

    Raises:
        RefusedError: a key stands in two of them.
    """
    refuse_shared(
        {
            f"{repository} {role}": [root.keys[i] for i in root.roles[role].keyids]
            for repository, root in repositories.items()
            for role in ROLES
        }
    )


def check_next(
    raw: bytes, previous: Root | None, *, allow_demo: bool = False
) -> Metadata[Root]:
    """The Root that may follow ``previous``; without one, version 1 by its own keys.

    Raises:
        RollbackError: not exactly one version on. SignatureError: below the threshold
            of the old or the new Root. RefusedError: its shape. MalformedError,
            LimitError: its form.
    """
    found = read(raw, Root)
    expected = previous.version + 1 if previous is not None else 1
    if found.signed.version != expected:
        raise RollbackError(
            f"root version {found.signed.version} where {expected} was expected"
        )
    check_shape(found.signed, allow_demo=allow_demo)
    for root in (found.signed,) if previous is None else (previous, found.signed):
        verify(root, "root", found)
    return found


def current_root(store: MetadataStore) -> Root | None:
    """The newest Root of a store, ``None`` if there is none."""
    version = newest(store, "root")
    raw = store.read(f"{version}.root.json") if version else None
    return None if raw is None else read(raw, Root).signed


def publish_root(
    store: MetadataStore,
    raw: bytes,
    *,
    others: Mapping[str, Root] | None = None,
    allow_demo: bool = False,
) -> Root:
    """Add the next Root to a store; publishing one that is there again is no change.

    ``others`` are the Roots of the other repositories: no key may stand in two.

    Raises:
        as :func:`check_next`; ConflictError: that version stands there differently.
    """
    found = read(raw, Root).signed
    if store.read(f"{found.version}.root.json") is not None:
        write_new(store, "root", found.version, raw)
        return found
    found = check_next(raw, current_root(store), allow_demo=allow_demo).signed
    if others:
        refuse_shared_keys(**{"this repository": found, **others})
    write_new(store, "root", found.version, raw)
    return found


def _role(rule: RoleKeys) -> Role:
    fields: dict[str, Any] = {}
    if rule.min_per_family:
        fields["min_per_family"] = rule.min_per_family
    return Role([key.keyid for key in rule.keys], rule.threshold, fields)


def check_role(role: str, rule: RoleKeys, *, allow_demo: bool = False) -> None:
    """Refuse keys, a number of keys or a threshold that nobody should sign.

    Raises:
        RefusedError: with the role and the reason.
    """
    for key in rule.keys:
        introduce(key, allow_demo=allow_demo)
    refuse_shared({role: rule.keys})
    if not 1 <= rule.threshold <= len(rule.keys):
        raise RefusedError(
            f"{role} would need {rule.threshold} signatures of {len(rule.keys)} keys",
            hint="a threshold is at least 1 and at most the number of keys",
        )
    if len(rule.keys) > KEYS_PER_ROLE_MAX:
        raise RefusedError(
            f"{role} has {len(rule.keys)} keys; {KEYS_PER_ROLE_MAX} at most"
        )
    families = Counter(family(key) for key in rule.keys)
    if len(families) > 1 or rule.min_per_family:
        _check_hybrid(role, families, rule.threshold, rule.min_per_family)
    fewest = min(families.values())
    if role == "root" and (
        fewest < ROOT_KEYS_MIN or rule.threshold < ROOT_THRESHOLD_MIN
    ):
        raise RefusedError(
            f"root has {rule.threshold} of {len(rule.keys)} keys",
            hint="at least 2 of 3: losing Root ends key rotation for the whole fleet",
        )


def _check_hybrid(
    role: str, families: Counter[Family], threshold: int, least: int
) -> None:
    """Neither family may meet the threshold alone, nor be left out."""
    if len(families) < 2 or not least:
        raise RefusedError(
            f"{role} mixes families without a rule for each",
            hint="a hybrid role has keys of both families and min_per_family",
        )
    if least > min(families.values()) or least * len(families) > threshold:
        raise RefusedError(f"{role} can never have {least} signatures of each family")
    if threshold <= max(families.values()):
        raise RefusedError(
            f"{role}: {threshold} signatures can come from one family alone",
            hint="for k of n people, 2k must be more than n: 1 of 2 is not hybrid",
        )
