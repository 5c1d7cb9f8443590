"""Who may do what: actions, roles as sets of them, and the one check. Pure.

Everything an operator can ask of a server is one action, and every operation of the API
names its own. A role is a set of actions; what an operator may do is the union of his
roles. There is no "unless": nobody may do what none of his roles says.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.core.errors import ForbiddenError, InvalidConfigError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "ROLES",
    "Action",
    "Roles",
    "check",
    "custom_roles",
    "known",
    "permitted",
    "table",
]


class Action(StrEnum):
    """What can be allowed."""

    STATUS_READ = "status.read"
    METADATA_READ = "metadata.read"
    ROOT_PUBLISH = "root.publish"
    TARGETS_PUBLISH = "targets.publish"
    CONTAINER_READ = "container.read"
    CONTAINER_STORE = "container.store"
    RELEASE_READ = "release.read"
    RELEASE_PUBLISH = "release.publish"
    DEVICE_READ = "device.read"
    DEVICE_ENROL = "device.enrol"
    DEVICE_REVOKE = "device.revoke"
    DEPLOYMENT_READ = "deployment.read"
    DEPLOYMENT_CREATE = "deployment.create"
    DEPLOYMENT_ABORT = "deployment.abort"
    DELTA_READ = "delta.read"
    DELTA_STEER = "delta.steer"
    AUDIT_READ = "audit.read"
    TOKEN_READ = "token.read"
    TOKEN_MANAGE = "token.manage"


Roles = dict[str, frozenset[Action]]
"""Actions by the name of a role."""

_LOOK = frozenset(
    {
        Action.STATUS_READ,
        Action.METADATA_READ,
        Action.CONTAINER_READ,
        Action.RELEASE_READ,
        Action.DEVICE_READ,
        Action.DEPLOYMENT_READ,
        Action.DELTA_READ,
    }
)

ROLES: Roles = {
    "viewer": _LOOK,
    "releaser": _LOOK
    | {Action.TARGETS_PUBLISH, Action.CONTAINER_STORE, Action.RELEASE_PUBLISH},
    "deployer": _LOOK
    | {Action.DEPLOYMENT_CREATE, Action.DEPLOYMENT_ABORT, Action.DELTA_STEER},
    "security": _LOOK
    | {
        # What is needed in an emergency: new keys, a stolen device, a bad release.
        Action.ROOT_PUBLISH,
        Action.DEVICE_REVOKE,
        Action.DEPLOYMENT_ABORT,
        Action.AUDIT_READ,
        Action.TOKEN_READ,
    },
    "auditor": _LOOK | {Action.AUDIT_READ, Action.TOKEN_READ},
    "factory": frozenset({Action.STATUS_READ, Action.DEVICE_ENROL}),
    "admin": frozenset(Action),
}
"""The roles every server has; ``docs/server.md`` shows them as a table."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def custom_roles(found: Mapping[str, Iterable[str]]) -> Roles:
    """Every role of a server: ours, and its own, each a list of actions.

    Raises:
        InvalidConfigError: a name that is taken or no name, or an unknown action.
    """
    roles = dict(ROLES)
    for name, actions in found.items():
        if name in ROLES or not _NAME.fullmatch(name):
            raise InvalidConfigError(
                f"roles.{name[:64]} cannot be the name of a role",
                hint="lower-case letters, digits and -, and none of "
                + ", ".join(ROLES),
            )
        unknown = sorted(set(actions) - set(Action))
        if unknown:
            raise InvalidConfigError(
                f"roles.{name} has unknown actions: {', '.join(unknown)[:200]}",
                hint=f"actions are {', '.join(Action)}",
            )
        roles[name] = frozenset(map(Action, actions))
    return roles


def known(roles: Roles, names: Collection[str]) -> tuple[str, ...]:
    """The names of roles, each once and sorted.

    Raises:
        InvalidInputError: none, or one there is not.
    """
    unknown = sorted(set(names) - set(roles))
    if unknown or not names:
        raise InvalidInputError(
            f"unknown role {unknown[0][:64]!r}" if unknown else "no role is named",
            hint=f"roles are {', '.join(sorted(roles))}",
        )
    return tuple(sorted(set(names)))


def permitted(roles: Roles, names: Iterable[str]) -> frozenset[Action]:
    """What the holder of these roles may do; a role that is gone allows nothing."""
    return frozenset[Action]().union(*(roles.get(name, ()) for name in names))


def check(allowed: Collection[Action], action: Action | None) -> None:
    """Go on if ``action`` is among what is allowed; ``None`` needs no permission.

    Raises:
        ForbiddenError: it is not.
    """
    if action is not None and action not in allowed:
        raise ForbiddenError(
            f"this needs the permission {action}",
            hint="ask an administrator for a token with a role that has it",
            action=str(action),
        )


def table(roles: Roles = ROLES) -> str:
    """Actions by roles as a Markdown table, for ``docs/server.md``."""
    head = f"| permission | {' | '.join(roles)} |\n|---|{'---|' * len(roles)}\n"
    return head + "".join(_row(action, roles) for action in Action)


def _row(action: Action, roles: Roles) -> str:
    marks = ("yes" if action in allowed else "" for allowed in roles.values())
    return f"| `{action}` | {' | '.join(marks)} |\n"
