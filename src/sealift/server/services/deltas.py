"""Deltas: what is wanted, what came of it, and what an operator does about it.

The work itself is done outside of any transaction (``making``); taking a row and
holding it is timetable and leaves no event, what came of it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.core.audit import Kind, Ref, printable
from sealift.core.errors import (
    ConflictError,
    DeltaMemoryError,
    DeltaTimeError,
    NotFoundError,
)
from sealift.server.domain.deltas import (
    ATTEMPTS,
    PENDING,
    DeltaState,
    pause,
    sealed_pair,
    useful,
)
from sealift.server.domain.deltas import name as delta_name
from sealift.server.ports import Side, StoredContainer, Task
from sealift.server.services.audit import recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.audit import Actor
    from sealift.core.errors import SealiftError
    from sealift.core.types import Container, Patch
    from sealift.payload.mcu import Recipe
    from sealift.server.ports import (
        ContentOpener,
        Delta,
        Means,
        PayloadPolicy,
        ReleaseItem,
        Session,
    )
    from sealift.server.services.audit import Unit

__all__ = [
    "DeltaView",
    "all_deltas",
    "cancel",
    "fail",
    "finish",
    "retry",
    "show_delta",
    "task_of",
]


_FINAL = (DeltaMemoryError, DeltaTimeError)


# ── views ────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class DeltaView:
    """A delta, and the target path of its base if we published that."""

    delta: Delta
    base_path: str | None


def all_deltas(
    session: Session, after: int = 0, limit: int = 100
) -> Sequence[DeltaView]:
    """Deltas in order of their numbers, those after ``after``."""
    paths = {item.artifact.sha256.hex(): item.artifact.name for item in _items(session)}
    return [
        DeltaView(row, paths.get(row.base_sha256))
        for row in session.deltas.all(after, limit)
    ]


def show_delta(session: Session, number: int) -> DeltaView:
    """One delta.

    Raises:
        NotFoundError: there is none of that number.
    """
    row = _find(session, number)
    base = _item(session, row.base_sha256)
    return DeltaView(row, None if base is None else base.artifact.name)


# ── what an operator does ────────────────────────────────────────────────────────────
def retry(means: Means, actor: Actor, number: int) -> None:
    """Have a delta made that failed, was useless or was cancelled.

    Raises:
        NotFoundError: there is none. ConflictError: it is ready or under way, or came
            from the desk.
    """
    with recorded(means, actor) as unit:
        row = _find(unit.session, number)
        if row.state in {*PENDING, DeltaState.READY}:
            raise ConflictError(f"delta {number} is {row.state} already")
        if row.origin == "desk":
            raise ConflictError(f"delta {number} was made at the desk")
        again = replace(row, attempts=0, run_at=unit.now, reason=None)
        _moved(unit, again, DeltaState.WANTED)


def cancel(means: Means, actor: Actor, number: int) -> None:
    """Do not make a delta, or stop making it.

    Raises:
        NotFoundError: there is none. ConflictError: it is not under way.
    """
    with recorded(means, actor) as unit:
        row = _find(unit.session, number)
        if row.state not in PENDING:
            raise ConflictError(f"delta {number} is {row.state} already")
        _moved(unit, row, DeltaState.CANCELLED, "by an operator")


# ── what a maker needs and tells ─────────────────────────────────────────────────────
def task_of(
    session: Session, policy: PayloadPolicy, content: ContentOpener, row: Delta
) -> Task:
    """What is needed to make a delta; content keys are opened here.

    Raises:
        NotFoundError: one of the images is not held here any more. ConflictError: the
            settings do not allow it any more. DecryptError: a content key.
    """
    base, new = _item(session, row.base_sha256), _item_of(session, row.full_sha256)
    if base is None or new is None:
        raise NotFoundError("an image of this pair is not held here")
    sealed = sealed_pair(
        base_sealed=base.sealed,
        new_sealed=new.sealed,
        allowed=policy.sealed_deltas,
    )
    if sealed is None:
        raise ConflictError(
            "this server may not open sealed images to make deltas",
            hint="make the delta at the desk, or set delta.sealed",
        )
    name = delta_name(row.new_sha256, row.base_sha256, sealed=sealed)
    recipe = None if sealed else _recipe(policy, new)
    old, wanted = (_side(session, content, item) for item in (base, new))
    return Task(row.number, name, old, wanted, recipe)


def finish(
    means: Means,
    actor: Actor,
    number: int,
    owner: str,
    made: Container,
    cpu_ms: int,
    patch: Patch | None = None,
) -> None:
    """Note a delta whose bytes are stored, or that it is not worth having.

    With it comes the patch between the same images, if one was wanted and stored.

    Nothing changes if somebody cancelled it meanwhile.

    Raises:
        NotFoundError: there is none of that number. ConflictError: other bytes are
            stored under its name.
    """
    with recorded(means, actor) as unit:
        if not unit.session.deltas.is_held(number, owner):
            return
        row = _find(unit.session, number)
        done = replace(row, length=made.length, cpu_ms=cpu_ms, reason=None)
        if not useful(made.length, row.full_length):
            _moved(unit, done, DeltaState.USELESS, "it saves too little")
            return
        _store(unit, made)
        if patch is not None:
            _store(unit, patch)
        ready = replace(done, container=made, patch=patch)
        _moved(unit, ready, DeltaState.READY)


def fail(
    means: Means, actor: Actor, number: int, owner: str, error: SealiftError
) -> None:
    """Note that making it failed; it is tried again, three times in all.

    What took too much memory or time would take it again and is not tried.
    """
    with recorded(means, actor) as unit:
        if not unit.session.deltas.is_held(number, owner):
            return
        row = _find(unit.session, number)
        reason = printable(f"{error.message} [{error.code}]")
        if row.attempts >= ATTEMPTS or isinstance(error, _FINAL):
            _moved(unit, row, DeltaState.FAILED, reason)
        else:
            later = replace(row, run_at=unit.now + pause(row.attempts))
            _moved(unit, later, DeltaState.WANTED, reason)


def _moved(unit: Unit, row: Delta, to: DeltaState, reason: str | None = None) -> None:
    """Save and record it; devices it bears on are looked at again."""
    unit.session.metadata.outdate_pair(row.base_sha256, row.new_sha256)
    unit.session.deltas.save(
        replace(row, state=to.value, reason=reason, changed_at=unit.now)
    )
    body = {
        "delta": row.number,
        "state": to.value,
        "base": row.base_sha256,
        "path": row.path,
        "length": row.length,
        "full_length": row.full_length,
        "cpu_ms": row.cpu_ms,
        "patch": None if row.patch is None else row.patch.name,
        "attempts": row.attempts,
        "reason": reason,
    }
    refs = [Ref("image", row.path, row.new_sha256)]
    if row.container is not None:
        digest = row.container.sha256.hex()
        refs.append(Ref("container", row.container.name, digest))
    unit.record(Kind.DELTA_STATE, body, refs)


def _recipe(policy: PayloadPolicy, item: ReleaseItem) -> Recipe | None:
    """How a patch to the image is made, if a type it is for can decode one."""
    ids = item.artifact.hardware_ids
    found = (policy.recipes[it] for it in ids if it in policy.recipes)
    return next(found, None)


def _store(unit: Unit, made: Container | Patch) -> None:
    known = unit.session.releases.container(made.name)
    if known is None:
        unit.session.releases.add_container(
            StoredContainer(made.name, made.length, made.sha256.hex(), unit.now)
        )
    elif known.sha256 != made.sha256.hex():
        raise ConflictError(f"{made.name} is stored with other bytes")


def _side(session: Session, content: ContentOpener, item: ReleaseItem) -> Side:
    if not item.sealed:
        return Side(item.artifact, item.full)
    digest = item.full.sha256
    key = session.content_keys.find(digest.hex())
    if key is None:
        raise NotFoundError(f"the content key of {item.full.name} is not here")
    opened = content.open(key.wrap, key.path, digest)
    return Side(item.artifact, item.full, opened)


def _items(session: Session) -> list[ReleaseItem]:
    return [item for release in session.releases.all() for item in release.items]


def _item(session: Session, image_sha256: str) -> ReleaseItem | None:
    """An image we hold; sealed, if it ever was."""
    found = [i for i in _items(session) if i.artifact.sha256.hex() == image_sha256]
    return next((item for item in found if item.sealed), found[0] if found else None)


def _item_of(session: Session, full_sha256: str) -> ReleaseItem | None:
    found = (i for i in _items(session) if i.full.sha256.hex() == full_sha256)
    return next(found, None)


def _find(session: Session, number: int) -> Delta:
    row = session.deltas.find(number)
    if row is None:
        raise NotFoundError(f"there is no delta {number}")
    return row
