"""The TUF client workflow as three pure functions: bytes in, a grown state out.

```
state = resume(rules, anchor, kept)
while isinstance(want := wanted(state), Want):
    state = accept(state, want, bytes_for(want), now)     # or raises
    keep(state.changes)
```

Here is no clock, no file and no network: the caller fetches at most ``want.limit``
bytes and keeps what is accepted, byte for byte. What is kept is read and verified again
each time; nothing is trusted for where it lies. Roots are kept as a chain from the
read-only trust anchor, so that not even a Root is.

The ids in the comments are those of ``uptane.md`` section 7. Each file passes, in this
order: byte cap, length and hash its parent lists, strict parse, type, signatures,
device id, version, rollback, expiry. The single checks are in ``checks``, rotation of
Roots in ``rotation``, the search through delegations in ``delegation``, and what the
Director adds (G6 to G8, F10) in ``uptane``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sealift.core.checks import (
    Signers,
    require_fresh,
    require_listed_version,
    require_ours,
    require_signed,
    require_version,
    signers,
)
from sealift.core.errors import (
    DelegationError,
    FailedTransferError,
    FormatError,
    LimitError,
    MalformedError,
    MetadataError,
    MixedError,
    RollbackError,
    TrustAnchorError,
)
from sealift.core.metadata import Body, FileInfo, Parsed, Snapshot, Targets, Timestamp
from sealift.core.rotation import after_rotation, next_root, refuse_demo_keys
from sealift.core.trusted import Complete, Held, Kept, Name, Rules, Trusted, Want

T = TypeVar("T")


# ── begin ────────────────────────────────────────────────────────────────────────────
def resume(rules: Rules, anchor: bytes, kept: Kept, *, spent: int = 0) -> Trusted:
    """Begin a check from the trust anchor and from what earlier checks kept.

    Kept Roots are believed as far as they continue the anchor's chain; other kept files
    as far as they verify under the Root. The rest counts as absent, with a remark.
    ``spent`` are the bytes of metadata this check took from another repository.

    Raises:
        TrustAnchorError: the anchor is no Root that signs itself, or has a demo key.
    """
    try:
        parsed = rules.reader.root(anchor)
        require_signed(parsed, "root", signers(parsed.body, "root"))
    except (FormatError, MetadataError) as error:
        raise TrustAnchorError(
            f"the trust anchor is not a Root that signs itself: {error.message}",
            hint="provision the device again; without an anchor nothing is verified",
        ) from error
    refuse_demo_keys(rules, parsed.body.keys)
    state = _along_kept_roots(Trusted(rules, Held(anchor, parsed), kept, spent=spent))
    state = _with_past(state)
    # Targets never are issued after the Timestamp that leads to them.
    held = (state.past_timestamp, state.past_snapshot)
    times = [file.body.issued for file in held if file and file.body.issued]
    return replace(state, floor=max(times, default=None))


def _along_kept_roots(state: Trusted) -> Trusted:
    while (raw := state.kept(state.root.body.version + 1)) is not None:
        try:
            state = replace(state, root=next_root(state, raw))
        except (FormatError, MetadataError, TrustAnchorError) as error:
            return _remark(state, f"kept root: {error.code}")  # fetched again instead
    return state


def _with_past(state: Trusted) -> Trusted:
    """Kept Timestamp and Snapshot as far as they verify under the present Root."""
    read = state.rules.reader
    state, timestamp = _past(state, "timestamp", read.timestamp)
    state, snapshot = _past(state, "snapshot", read.snapshot)
    return replace(state, past_timestamp=timestamp, past_snapshot=snapshot)


def _past(
    state: Trusted, role: str, parse: Callable[[bytes], Parsed[Body]]
) -> tuple[Trusted, Held[Body] | None]:
    raw = None if state.floors_reset else state.kept(role)
    if raw is None:
        return state, None
    try:
        held = Held(raw, parse(raw))
        require_signed(held.parsed, role, signers(state.root.body, role))
    except (FormatError, MetadataError) as error:
        return _remark(state, f"kept {role}: {error.code}"), None
    return state, held


# ── what is needed next ──────────────────────────────────────────────────────────────
def wanted(state: Trusted) -> Want | Complete:
    """The file to bring next, or the repository as verified.

    Raises:
        LimitError: R1, more Roots than one check takes (the rest comes next time); or
            all metadata of the check together passes its cap.
        DelegationError: L6, Snapshot does not list the file.
    """
    limits, root = state.rules.limits, state.root.body
    if not state.root_is_final:
        if state.rotations >= limits.root_rotations:  # R1
            raise LimitError(
                f"{state.rotations} Roots in one check", hint="the next check goes on"
            )
        return Want("root", root.version + 1, limits.root_bytes, may_be_absent=True)
    if state.timestamp is None:
        return Want("timestamp", None, _within_budget(state, limits.timestamp_bytes))
    if state.snapshot is None:
        return _want_snapshot(state, state.timestamp.snapshot)
    top = state.roles.get(("root", "targets"))
    if top is None:
        return want_targets(state, "targets", "root")
    return Complete(state, root, state.timestamp, state.snapshot, top)


def _want_snapshot(state: Trusted, info: FileInfo) -> Want:
    past, cap = state.past_snapshot, state.rules.limits.snapshot_bytes
    kept = past.raw if past and _is_listed(past, info) else None
    return Want("snapshot", *_at(state, info, cap), kept=kept)


def want_targets(state: Trusted, role: str, delegator: str) -> Want:
    """The Targets file of ``role``, to be verified with the keys of ``delegator``.

    Raises:
        DelegationError: L6, Snapshot does not list it. LimitError: as :func:`wanted`.
    """
    info, cap = _listing(state, role), state.rules.limits.targets_bytes
    have = state.targets_of(role)
    # L7: what one delegator vouched for is judged again for another, not fetched.
    kept = have.raw if have else _kept_targets(state, role, delegator, info)
    return Want(role, *_at(state, info, cap), delegator=delegator, kept=kept)


def _at(state: Trusted, info: FileInfo, cap: int) -> tuple[int | None, int]:
    """The version in a listed file's name, and how many bytes it may have (S1, G1)."""
    limit = _within_budget(state, cap if info.length is None else min(cap, info.length))
    return info.version if state.root.body.consistent_snapshot else None, limit


def _within_budget(state: Trusted, cap: int) -> int:
    left = state.rules.limits.check_bytes - state.spent
    if left <= 0:
        raise LimitError("all metadata of one check together is too large")
    return min(cap, left)


def _kept_targets(
    state: Trusted, role: str, delegator: str, info: FileInfo
) -> bytes | None:
    raw = state.kept(role)
    if raw is None:
        return None
    try:
        held = Held(raw, state.rules.reader.targets(raw))
        require_signed(held.parsed, role, _delegated(state, role, delegator))
    except (FormatError, MetadataError):
        return None  # what is listed now will be fetched
    return raw if _is_listed(held, info) else None


def _is_listed(held: Held[Snapshot] | Held[Targets], info: FileInfo) -> bool:
    try:
        info.require(held.raw, "kept file")
    except MixedError:
        return False
    return held.body.version == info.version


def _listing(state: Trusted, role: str) -> FileInfo:
    files = state.snapshot.files if state.snapshot else {}
    if f"{role}.json" not in files:  # L6: not even requested
        raise DelegationError(f"Snapshot does not list {role}", role=role)
    return files[f"{role}.json"]


# ── what an answer makes of the state ────────────────────────────────────────────────
def accept(state: Trusted, want: Want, raw: bytes | None, now: datetime) -> Trusted:
    """The state grown by the answer to ``want``; ``None`` means the file is absent.

    ``now`` is the start of the check as everything but this repository's own metadata
    has it. The metadata time of this repository is added here, since a rotation of
    Roots can take it back in the middle of a check (R5). Parts of a state that raised
    stay good: keep what came before.

    Raises:
        MalformedError, LimitError: the file is not what it must be, or passes a cap.
        SignatureError, RollbackError, ExpiredError, MixedError, MisdirectedError,
        DelegationError: the check of that name failed.
        TrustAnchorError: a Root with keys made for demonstrations.
        FailedTransferError: a file is absent that must not be.
    """
    state = replace(state, changes={})
    if raw is None:
        if not want.may_be_absent:
            raise FailedTransferError(f"{want.role} is missing", role=want.role)
        return _end_of_roots(state, now)
    if want.kept is None and len(raw) > want.limit:  # T1, S1, G1
        raise LimitError(f"{want.role}: {len(raw)} bytes, {want.limit} allowed")
    if want.role == "root":
        return _rotate(state, raw)
    grown = _ACCEPT.get(want.role, _targets)(state, want, raw, now)
    return grown if want.kept else replace(grown, spent=state.spent + len(raw))


def _rotate(state: Trusted, raw: bytes) -> Trusted:
    root = next_root(state, raw)
    grown = after_rotation(state, root)
    changes: dict[Name, bytes | None] = {**grown.changes, root.body.version: raw}
    grown = replace(grown, root=root, rotations=state.rotations + 1, changes=changes)
    return _with_past(grown)


def _end_of_roots(state: Trusted, now: datetime) -> Trusted:
    require_fresh(state, "root", state.root.body.expires, now)  # R4, after R5
    return replace(state, root_is_final=True)


def _timestamp(state: Trusted, want: Want, raw: bytes, now: datetime) -> Trusted:
    parsed = state.rules.reader.timestamp(raw)
    require_signed(parsed, want.role, signers(state.root.body, want.role))  # T2
    require_ours(state.rules, want.role, parsed.body)  # X1
    new, past = parsed.body, state.past_timestamp
    if past is not None:
        require_version(want.role, new.version, past.body.version)  # T3
        if new.version == past.body.version:
            return _same_timestamp(state, past, raw, now)
        require_version(  # T3
            "snapshot in timestamp", new.snapshot.version, past.body.snapshot.version
        )
    require_fresh(state, want.role, new.expires, now)  # T4
    return replace(state, timestamp=new, changes={want.role: raw})


def _same_timestamp(
    state: Trusted, past: Held[Timestamp], raw: bytes, now: datetime
) -> Trusted:
    """T3: a second file of one version is discarded, and the stored one goes on."""
    require_fresh(state, "timestamp", past.body.expires, now)
    if raw != past.raw:
        state = _remark(state, "another timestamp of the same version was discarded")
    return replace(state, timestamp=past.body)


def _snapshot(state: Trusted, want: Want, raw: bytes, now: datetime) -> Trusted:
    info = _require(state.timestamp).snapshot
    info.require(raw, want.role)  # S2, the hash before the signature
    parsed = state.rules.reader.snapshot(raw)
    require_signed(parsed, want.role, signers(state.root.body, want.role))  # S3
    require_ours(state.rules, want.role, parsed.body)  # X1
    require_listed_version(want.role, parsed.body.version, info)  # S2
    if state.past_snapshot is not None:
        _require_no_rollback(parsed.body, state.past_snapshot.body)
    require_fresh(state, want.role, parsed.body.expires, now)  # S7
    return replace(state, snapshot=parsed.body, changes=_to_keep(want, raw))


def _require_no_rollback(new: Snapshot, past: Snapshot) -> None:
    require_version("snapshot", new.version, past.version)  # S4
    for name, info in past.files.items():
        if name not in new.files:  # S6
            raise RollbackError(f"Snapshot no longer lists {name}", role="snapshot")
        # S5, and by G2 also G4: no Targets file below the trusted listing
        require_version(name, new.files[name].version, info.version)


def _targets(state: Trusted, want: Want, raw: bytes, now: datetime) -> Trusted:
    role, delegator = want.role, want.delegator or "root"
    info = _listing(state, role)
    info.require(raw, role)  # G2, the hash before the signature
    parsed = state.rules.reader.targets(raw)
    require_signed(parsed, role, _delegated(state, role, delegator))  # G3, L7
    require_ours(state.rules, role, parsed.body)  # X1
    refuse_demo_keys(state.rules, parsed.body.keys)
    require_listed_version(role, parsed.body.version, info)  # G2; G4 by S5
    require_fresh(state, role, parsed.body.expires, now)  # G5
    return replace(
        state,
        roles={**state.roles, (delegator, role): Held(raw, parsed)},
        changes=_to_keep(want, raw),
    )


def _to_keep(want: Want, raw: bytes) -> dict[Name, bytes | None]:
    return {} if want.kept else {want.role: raw}


_ACCEPT = {"timestamp": _timestamp, "snapshot": _snapshot}


def _delegated(state: Trusted, role: str, delegator: str) -> Signers:
    """Only the keys this very delegator lists for the role."""
    if delegator == "root":
        return signers(state.root.body, role)
    held = _require(state.targets_of(delegator))
    rule = next(d.rule for d in held.body.delegations if d.name == role)
    return held.body.keys, rule


def _require(value: T | None) -> T:
    """What the order of the workflow guarantees; :func:`wanted` asks in that order."""
    if value is None:
        raise MalformedError("an answer came before what it depends on")
    return value


def _remark(state: Trusted, text: str) -> Trusted:
    if text in state.remarks:
        return state
    return replace(state, remarks=(*state.remarks, text))
