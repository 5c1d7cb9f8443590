"""Later ceremonies: who may sign changes, and lost keys are replaced.

A change of keys is a new Root, proposed as a signing request that the threshold of the
old Root *and* of the new one must sign (``repo.signing``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuf.api.metadata import Root

from sealift.core.errors import RefusedError
from sealift.repo import signing
from sealift.repo.policy import introduce, name_of
from sealift.repo.roots import (
    RoleKeys,
    author,
    publish_root,
    refuse_shared_keys,
    role_keys,
)
from sealift.sign.keys import generate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from securesystemslib.signer import Key

    from sealift.repo.online import OnlineKeys
    from sealift.sign.desk import Desk

__all__ = [
    "Change",
    "accept_root",
    "check_recoverable",
    "make_replacements",
    "online_changes",
    "propose_change",
    "replacements",
]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one role: keys out by name, keys in, a new threshold."""

    role: str
    remove: tuple[str, ...] = ()
    add: tuple[Key, ...] = ()
    threshold: int | None = None
    min_per_family: int | None = None


def propose_change(
    desk: Desk, repository: str, changes: Iterable[Change], *, now: datetime
) -> signing.Request:
    """Root N+1 of a repository with the changes in it, as a signing request.

    Raises:
        RefusedError: no such role, a key to remove is not there, a name or key is
            taken already, or the result has a shape that is refused.
    """
    current = desk.root(repository)
    roles = {role: role_keys(current.signed, role) for role in current.signed.roles}
    for change in changes:
        if change.role not in roles:
            raise RefusedError(
                f"there is no role {change.role!r}", hint=f"one of {', '.join(roles)}"
            )
        roles[change.role] = _changed(roles[change.role], change)
    proposed = author(
        roles,
        version=current.signed.version + 1,
        now=now,
        lifetime=desk.policy.root_lifetime,
        allow_demo=desk.policy.demo,
    )
    refuse_shared_keys(**{**desk.roots(), repository: proposed})
    return signing.propose(repository, proposed, base=current, root=current)


def replacements(
    desk: Desk, repository: str, lost: Iterable[str], made: Mapping[str, Key]
) -> list[Change]:
    """Changes that put ``made[name]`` in the place of every lost key.

    Raises:
        RefusedError: no key has that name, or so many Root keys are lost that the old
            threshold cannot be met: no new Root can be made at all.
    """
    root = desk.root(repository).signed
    by_role: dict[str, list[str]] = {}
    for name in lost:
        by_role.setdefault(_role_of(root, name), []).append(name)
    rule = role_keys(root, "root")
    left = len(rule.keys) - len(by_role.get("root", ()))
    if left < rule.threshold:
        raise RefusedError(
            f"only {left} {repository} root keys are left and {rule.threshold} must "
            f"sign: this Root can never be replaced",
            hint="devices need a new trust anchor, on site: see docs/key-ceremony.md",
        )
    return [
        Change(role, tuple(names), tuple(made[name] for name in names))
        for role, names in by_role.items()
    ]


def check_recoverable(desk: Desk, repository: str, lost: Iterable[str]) -> None:
    """Return if these keys can be replaced over the air.

    Raises:
        RefusedError: no key has that name, or too few root keys would be left.
    """
    names = list(dict.fromkeys(lost))
    root = desk.root(repository).signed
    replacements(desk, repository, names, {n: _key_called(root, n) for n in names})


def make_replacements(
    desk: Desk, repository: str, lost: Iterable[str], passphrase: str | None
) -> dict[str, Key]:
    """New key files for lost keys, of the same algorithm, by the names of the lost.

    Raises:
        RefusedError: no key has that name. InvalidConfigError, SpaceError: a file.
    """
    root = desk.root(repository).signed
    made: dict[str, Key] = {}
    for name in dict.fromkeys(lost):
        algorithm = introduce(_key_called(root, name), allow_demo=True).name
        new = _next_name(desk, name)
        path = desk.keys / f"{new}.pem"
        demo = desk.policy.demo
        made[name] = generate(path, new, algorithm, passphrase, demo=demo).public_key
    return made


def online_changes(desk: Desk, repository: str, online: OnlineKeys) -> list[Change]:
    """Changes that put a server's new online keys in the place of the old ones.

    Raises:
        StateError: the desk has no Root.
    """
    root = desk.root(repository).signed
    return [
        Change(role, tuple(name_of(old) for old in role_keys(root, role).keys), (key,))
        for role, key in online[repository].items()
        if key.keyid not in root.roles[role].keyids
    ]


def accept_root(desk: Desk, request: signing.Request) -> Root:
    """Put a fully signed Root into the desk's metadata.

    Raises:
        SignatureError: a threshold is not met. RollbackError: it does not follow the
            desk's Root. RefusedError: not a Root, or its shape.
    """
    if request.role != "root":
        raise RefusedError(f"this request is for {request.role}, not for a Root")
    others = {
        name: root for name, root in desk.roots().items() if name != request.repository
    }
    return publish_root(
        desk.store(request.repository),
        signing.finish(request),
        others=others,
        allow_demo=desk.policy.demo,
    )


def _changed(rule: RoleKeys, change: Change) -> RoleKeys:
    names = {name_of(key) for key in rule.keys}
    if unknown := set(change.remove) - names:
        raise RefusedError(
            f"{change.role} has no key called {min(unknown)!r}",
            hint=f"it has {', '.join(sorted(names))}",
        )
    kept = tuple(key for key in rule.keys if name_of(key) not in change.remove)
    rule = replace(rule, keys=kept + change.add)
    if change.threshold is not None:
        rule = replace(rule, threshold=change.threshold)
    if change.min_per_family is not None:
        rule = replace(rule, min_per_family=change.min_per_family)
    return rule


def _key_called(root: Root, name: str) -> Key:
    for key in root.keys.values():
        if name_of(key) == name:
            return key
    known = sorted(name_of(key) for key in root.keys.values())
    raise RefusedError(f"no key is called {name!r}", hint=f"one of {', '.join(known)}")


def _next_name(desk: Desk, name: str) -> str:
    """``image-root-2`` becomes ``image-root-2.b``, then ``.c``; ``-pq`` stays last."""
    base, ending = (name[:-3], "-pq") if name.endswith("-pq") else (name, "")
    base = base.partition(".")[0]
    for letter in "bcdefghijklmnopqrstuvwxyz":
        new = f"{base}.{letter}{ending}"
        if not (desk.keys / f"{new}.pem").exists():
            return new
    raise RefusedError(f"{name} was replaced too often; name the key yourself")


def _role_of(root: Root, name: str) -> str:
    keyid = _key_called(root, name).keyid
    return next(role for role, rule in root.roles.items() if keyid in rule.keyids)
