"""The first ceremony: all offline keys, both first Roots, an empty Image Targets.

Losing keys is survived as long as the threshold of a Root can still be met; below that
no new Root can ever be made, and devices need a new trust anchor by hand. That is why
there are never fewer than three. What changes later is in ``rotation``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Root

from sealift.core.errors import InvalidConfigError, RefusedError
from sealift.repo import image, keyfile
from sealift.repo.files import write_atomic
from sealift.repo.policy import introduce, labelled
from sealift.repo.repository import sign
from sealift.repo.roots import RoleKeys, author, publish_root, refuse_shared_keys
from sealift.repo.signers import signer_for
from sealift.sign.content_key import NAME, write_content_key
from sealift.sign.desk import REPOSITORIES, Desk, Policy, making
from sealift.sign.keys import generate, public_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from securesystemslib.signer import Signer

    from sealift.core.hpke import Recipient
    from sealift.repo.online import OnlineKeys

    Report = Callable[[str, int, int], None]

__all__ = ["Plan", "check_plan", "hold"]

OFFLINE_ROLES = {"image": ("root", "targets"), "director": ("root",)}
"""Roles whose keys people hold."""
PEOPLE_MAX = 16


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


def hold(
    path: Path,
    online: OnlineKeys,
    plan: Plan,
    policy: Policy,
    *,
    passphrase: str | None,
    now: datetime,
    content_key: Recipient | None = None,
    progress: Report = lambda *_: None,
) -> Desk:
    """Make a desk: all offline keys, both first Roots, an empty Image Targets.

    ``content_key`` is the server's, if images are to be sealed. Nothing is left behind
    if any step fails. Every key file is opened again with the passphrase, and every
    root key signs its Root, before anybody builds on it.

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
        if content_key is not None:
            write_content_key(desk.path / NAME, content_key)
    return Desk.open(path)


def check_plan(plan: Plan, online: OnlineKeys, policy: Policy, now: datetime) -> None:
    """Refuse now what the ceremony would refuse; with keys that are thrown away.

    Raises:
        RefusedError, InvalidConfigError: as :func:`hold`.
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
