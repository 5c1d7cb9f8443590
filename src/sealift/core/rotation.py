"""From one Root to the next: who may make it, and what it takes back (R2, R3, R5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sealift.core.checks import require_signed, signers
from sealift.core.errors import MetadataError, RollbackError, TrustAnchorError
from sealift.core.keys import PublicKey
from sealift.core.metadata import Root, Snapshot, Timestamp
from sealift.core.trusted import Held, Name, Rules, Trusted


def next_root(state: Trusted, raw: bytes) -> Held[Root]:
    """The Root after the present one, if that is what ``raw`` is.

    Raises:
        SignatureError: R2, fewer signatures than the old or the new Root asks for.
        RollbackError: R3, another version than the next one.
        TrustAnchorError: keys made for demonstrations.
        MalformedError, LimitError: no Root.
    """
    old, parsed = state.root.body, state.rules.reader.root(raw)
    require_signed(parsed, "root", signers(old, "root"))  # R2, both
    require_signed(parsed, "root", signers(parsed.body, "root"))
    if parsed.body.version != old.version + 1:  # R3
        raise RollbackError(
            f"Root {parsed.body.version} does not follow Root {old.version}",
            role="root",
        )
    refuse_demo_keys(state.rules, parsed.body.keys)
    return Held(raw, parsed)


def after_rotation(state: Trusted, root: Held[Root]) -> Trusted:
    """R5: a rotation that may answer a fast-forward attack takes the floors back.

    The deletions stand in the same ``changes`` as the Root, so that no power cut can
    come between them. Of a foreign repository only a removed key takes floors back;
    files short of a new threshold merely count as absent, as TUF has it.
    """
    held = {"timestamp": state.past_timestamp, "snapshot": state.past_snapshot}
    removed = any(_lost_key(state.root.body, root.body, role) for role in held)
    lapsed = state.rules.reader.own and any(
        file is not None and not _still_signed(file, role, root.body)
        for role, file in held.items()
    )
    if not removed and not lapsed:
        return state
    gone: dict[Name, bytes | None] = {
        role: None for role in held if state.kept(role) is not None
    }
    return replace(state, floors_reset=True, floor=None, changes=gone)


def _still_signed(
    file: Held[Timestamp] | Held[Snapshot], role: str, root: Root
) -> bool:
    try:
        require_signed(file.parsed, role, signers(root, role))
    except MetadataError:
        return False
    return True


def _lost_key(old: Root, new: Root, role: str) -> bool:
    def identities(root: Root) -> set[bytes]:
        keys, rule = signers(root, role)
        return {keys[key_id].identity for key_id in rule.key_ids if key_id in keys}

    return not identities(old) <= identities(new)


def refuse_demo_keys(rules: Rules, keys: Mapping[str, PublicKey]) -> None:
    """B-11: keys everybody may have sign nothing outside a demonstration."""
    if not rules.demo_keys and any(key.demo for key in keys.values()):
        raise TrustAnchorError(
            "a role holds keys made for demonstrations",
            hint="make keys of your own, or allow demo keys on a device of a demo",
        )
