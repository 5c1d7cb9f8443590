"""Who vouches for an image: the search through delegated Targets roles, as a function.

It looks at what is loaded, and says which file it needs next or what it found. The
caller brings the file through ``trust.accept`` and asks again. A file that cannot be
had or does not verify raises there, and that ends the search (L1).
"""

from __future__ import annotations

from dataclasses import dataclass

from sealift.core.errors import LimitError, NoTargetError
from sealift.core.metadata import Target, Targets
from sealift.core.trust import want_targets
from sealift.core.trusted import Trusted, Want


@dataclass(frozen=True, slots=True)
class Found:
    """The entry of the most trusted role that lists the image, and that role."""

    role: str
    target: Target


def find(state: Trusted, path: str, hardware_id: str | None = None) -> Want | Found:
    """Search for ``path`` in list order, depth first (TUF 1.0.34, section 5.6.7).

    ``state`` is that of a :class:`Complete` repository, grown by the roles accepted
    since. ``hardware_id`` is that of the ECU the image is for (L2).

    Raises:
        NoTargetError: nobody who may vouches for it.
        LimitError: L4, more roles than one search may visit.
        DelegationError: L6, Snapshot does not list a delegated role.
    """
    visited: set[str] = set()
    waiting = [("root", "targets")]
    while waiting:
        delegator, role = waiting.pop()
        if role in visited:  # L4: cycles and diamonds end here
            continue
        if len(visited) > state.rules.limits.roles_visited:  # L4; the top role is extra
            raise LimitError("an image is delegated through too many roles")
        held = state.roles.get((delegator, role))  # L7: by this delegator's keys
        if held is None:
            return want_targets(state, role, delegator)
        if path in held.body.targets:
            return Found(role, held.body.targets[path])
        visited.add(role)
        children, last = _children(held.body, path, hardware_id)
        if last:  # L5: no later sibling at any level
            waiting.clear()
        waiting.extend((role, child) for child in reversed(children))  # L1
    raise NoTargetError(f"no role vouches for {path}", path=path)


def _children(
    body: Targets, path: str, hardware_id: str | None
) -> tuple[list[str], bool]:
    """The roles that may speak for ``path``, and whether the last is terminating."""
    names = []
    for delegation in body.delegations:
        if delegation.covers(path, hardware_id):  # L2, L3
            names.append(delegation.name)
            if delegation.terminating:
                return names, True
    return names, False
