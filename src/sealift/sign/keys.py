"""Ceremonies: make keys, put them into the first Roots, change them later.

Every key is made for one role of one repository and named after it. A change of keys is
a new Root, proposed as a signing request that the old *and* the new threshold sign
(``repo.signing``). Losing keys is survived as long as the old threshold can still be
met; below that no new Root can ever be made, and devices need a new trust anchor by
hand. That is why there are never fewer than three.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Root

from sealift.core.canonical import parse_object
from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    MalformedError,
    RefusedError,
    SignatureError,
)
from sealift.core.keys import PublicKey, verify
from sealift.repo import image, keyfile, signing
from sealift.repo.files import read_as, write_atomic
from sealift.repo.policy import introduce, labelled, name_of, under_its_id
from sealift.repo.repository import sign, sign_bytes
from sealift.repo.roots import (
    RoleKeys,
    author,
    publish_root,
    refuse_shared_keys,
    role_keys,
)
from sealift.repo.signers import save, signer_for
from sealift.sign.desk import REPOSITORIES, Desk, Policy, making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from securesystemslib.signer import Signer

    from sealift.repo.online import OnlineKeys

    Report = Callable[[str, int, int], None]

__all__ = [
    "Change",
    "Plan",
    "accept_root",
    "ceremony",
    "check_key_name",
    "check_plan",
    "check_recoverable",
    "generate",
    "make_replacements",
    "online_changes",
    "propose_change",
    "prove",
    "public_from_json",
    "public_to_json",
    "read_public",
    "replacements",
]

OFFLINE_ROLES = {"image": ("root", "targets"), "director": ("root",)}
"""Roles whose keys people hold."""
NAME_MAX = 64
PEOPLE_MAX = 16
PUBLIC_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """How many people hold keys, and how many of them must agree.

    ``hybrid`` gives every person a second key, ML-DSA-65, and asks for both families.
    ``external`` are public keys by name that somebody else holds (a token, another
    desk); they take the place of the key of that name, and nothing is made for it.
    """

    people: int = 3
    threshold: int = 2
    hybrid: bool = False
    external: Mapping[str, SSlibKey] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The names of all keys, in order.

        Raises:
            RefusedError: so many people that no role could have that many keys.
        """
        if not 1 <= self.people <= PEOPLE_MAX:
            raise RefusedError(f"{self.people} people; between 3 and {PEOPLE_MAX}")
        return [
            name
            for repository, roles in OFFLINE_ROLES.items()
            for role in roles
            for name in self.role_names(repository, role)
        ]

    def role_names(self, repository: str, role: str) -> list[str]:
        """The names of the keys of one role; a hybrid's second keys end in ``-pq``."""
        names = [f"{repository}-{role}-{i}" for i in range(1, self.people + 1)]
        return names + [f"{name}-pq" for name in names] if self.hybrid else names

    def rule(self, keys: Iterable[Key]) -> RoleKeys:
        """The keys of one role with their threshold."""
        if self.hybrid:
            return RoleKeys.hybrid(keys, self.threshold)
        return RoleKeys(tuple(keys), self.threshold)


# ── the first ceremony ───────────────────────────────────────────────────────────────
def ceremony(
    path: Path,
    online: OnlineKeys,
    plan: Plan,
    policy: Policy,
    *,
    passphrase: str | None,
    now: datetime,
    progress: Report = lambda *_: None,
) -> Desk:
    """Make a desk: all offline keys, both first Roots, an empty Image Targets.

    Nothing is left behind if any step fails. Every key made here signs the Root it is
    in, which proves that it can be read back with the passphrase given.

    Raises:
        RefusedError: a shape or key that is refused. InvalidConfigError: the directory
            exists or cannot be written, or an external key has a name of no role.
    """
    check_plan(plan, online, policy, now)
    with making(path, policy) as desk:
        held = _make_keys(desk, plan, passphrase, progress)
        roots = {
            repository: _first_root(repository, plan, held, online, policy, now)
            for repository in REPOSITORIES
        }
        refuse_shared_keys(**roots)
        for repository, root in roots.items():
            raw = sign(root, _of_role(plan, held, repository, "root"))
            publish_root(desk.store(repository), raw, allow_demo=policy.demo)
        targets = image.propose_targets(None, now=now, lifetime=policy.targets_lifetime)
        signers = _of_role(plan, held, "image", "targets")
        raw = sign(targets, signers)
        image.check_targets(roots["image"], raw, None, now=now)
        desk.store("image").write("1.targets.json", raw)
    return Desk.open(path)


def check_plan(plan: Plan, online: OnlineKeys, policy: Policy, now: datetime) -> None:
    """Refuse now what the ceremony would refuse; with keys that are thrown away.

    Raises:
        RefusedError, InvalidConfigError: as :func:`ceremony`.
    """
    _check_names(plan)
    held: dict[str, Signer | Key] = {
        name: plan.external.get(name)
        or signer_for(keyfile.generate(_algorithm(name)), name, demo=policy.demo)
        for name in plan.names()
    }
    roots = {
        repository: _first_root(repository, plan, held, online, policy, now)
        for repository in REPOSITORIES
    }
    refuse_shared_keys(**roots)


def _check_names(plan: Plan) -> None:
    if unknown := set(plan.external) - set(plan.names()):
        raise InvalidConfigError(
            f"no key of this ceremony is called {min(unknown)!r}",
            hint=f"names are {', '.join(plan.names())}",
        )


def _algorithm(name: str) -> str:
    return "ml-dsa-65" if name.endswith("-pq") else "ed25519"


def _make_keys(
    desk: Desk, plan: Plan, passphrase: str | None, progress: Report
) -> dict[str, Signer | Key]:
    """Everything the desk holds, by name: signers, or the keys others hold."""
    held: dict[str, Signer | Key] = {}
    names = plan.names()
    for done, name in enumerate(names, 1):
        external = plan.external.get(name)
        if external is not None:
            key = labelled(external, name)
            introduce(key, allow_demo=desk.policy.demo)
            write_atomic(desk.keys / f"{name}.pub", public_to_json(key), mode=0o644)
            held[name] = key
        else:
            held[name] = generate(
                desk.keys / f"{name}.pem",
                name,
                _algorithm(name),
                passphrase,
                demo=desk.policy.demo,
            )
        progress("making keys", done, len(names))
    return held


def _first_root(
    repository: str,
    plan: Plan,
    held: Mapping[str, Signer | Key],
    online: OnlineKeys,
    policy: Policy,
    now: datetime,
) -> Root:
    roles = {
        role: plan.rule(
            _public(held[name]) for name in plan.role_names(repository, role)
        )
        for role in OFFLINE_ROLES[repository]
    }
    for role, key in online[repository].items():
        roles[role] = RoleKeys((key,), 1)
    return author(roles, now=now, lifetime=policy.root_lifetime, allow_demo=policy.demo)


def _of_role(
    plan: Plan, held: Mapping[str, Signer | Key], repository: str, role: str
) -> list[Signer]:
    found = (held[name] for name in plan.role_names(repository, role))
    return [one for one in found if not isinstance(one, Key)]


def _public(one: Signer | Key) -> Key:
    return one if isinstance(one, Key) else one.public_key


# ── one key ──────────────────────────────────────────────────────────────────────────
def generate(
    path: Path,
    name: str,
    algorithm: str = "ed25519",
    passphrase: str | None = None,
    *,
    demo: bool = False,
) -> Signer:
    """Make one key: ``PATH`` (private, 0600) and beside it ``.pub`` (public).

    The file is read back and opened before anybody builds on it.

    Raises:
        RefusedError: the algorithm or name. InvalidConfigError, SpaceError: a file
            exists or cannot be written.
    """
    check_key_name(name)
    private = keyfile.generate(algorithm)
    save(path, private, passphrase, demo=demo)
    keyfile.load(keyfile.read(path), lambda _: passphrase or "", path.name)
    signer = signer_for(private, name, demo=demo)
    write_atomic(
        path.with_suffix(".pub"), public_to_json(signer.public_key), mode=0o644
    )
    return signer


def check_key_name(name: str) -> None:
    """Refuse a name that is no plain file name.

    Raises:
        RefusedError: it is empty, long, or has other than ``[a-z0-9.-]`` in it.
    """
    plain = name.isascii() and name.replace("-", "").replace(".", "").isalnum()
    if not plain or name != name.lower() or len(name) > NAME_MAX or name[0] in "-.":
        raise RefusedError(
            f"{name[:NAME_MAX]!r} cannot be the name of a key",
            hint=f"small letters, digits, - and . inside; at most {NAME_MAX}",
        )


def public_to_json(key: Key) -> bytes:
    """A ``.pub`` file: the TUF key object with the key's name."""
    return json.dumps(key.to_dict(), indent=2, sort_keys=True).encode() + b"\n"


def public_from_json(raw: bytes, *, allow_demo: bool = False) -> SSlibKey:
    """Read a ``.pub`` file; the id is computed, never believed.

    Raises:
        MalformedError, LimitError: its form. RefusedError: the key is not taken.
    """
    try:
        key = under_its_id(Key.from_dict("", dict(parse_object(raw, PUBLIC_BYTES_MAX))))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"not a public key file: {error}") from error
    introduce(key, allow_demo=allow_demo)
    return key


def read_public(path: Path, *, allow_demo: bool = False) -> SSlibKey:
    """The public key in a ``.pub`` file; errors as :func:`public_from_json`."""
    parse = partial(public_from_json, allow_demo=allow_demo)
    return read_as(path, PUBLIC_BYTES_MAX, parse)


# ── later ceremonies ─────────────────────────────────────────────────────────────────
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


def prove(signer: Signer) -> None:
    """Sign a test message and verify it, as a device would.

    Raises:
        KeyUnreadableError: the signer failed or does not fit its public half.
    """
    message = b"sealift key check"
    made = sign_bytes(signer, message)
    key = PublicKey.from_json(signer.public_key.to_dict())
    try:
        verify(key, bytes.fromhex(made.signature), message)
    except SignatureError as error:
        raise KeyUnreadableError("what this key signs does not verify") from error


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
