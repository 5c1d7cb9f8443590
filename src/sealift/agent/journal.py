"""The journal: every component's state in one durable record, and the counter floors.

``Journal`` turns states into bytes and back; ``agent.record`` makes them durable. The
payload is one JSON object::

    {"schema": 1, "readable_from": 1, "components": {ECU_ID: {"state": NAME, ...}}}

``schema`` is the version that wrote it, ``readable_from`` the oldest one that may read
it. A new agent on trial writes what the old agent must read when the trial fails, so
``readable_from`` moves only when a release that writes it is everybody's home already.
Unknown members are ignored for the same reason.

``Floors`` is a record of its own, because the floor rises as a durable step of its own:
after the confirm is durable and journaled, never before (device.md 1.9, D-05).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.agent.machine import (
    Arming,
    Attempt,
    Confirming,
    Idle,
    Rebooting,
    Refused,
    Reporting,
    Result,
    Reverting,
    Staged,
    Staging,
    State,
    Trial,
    Verdict,
    installed,
    name,
)
from sealift.agent.record import LostError
from sealift.core.errors import FormatError, MalformedError, StateError
from sealift.core.types import Artifact, Instruction, Slot
from sealift.core.version import counter_floor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.ports import Counter
    from sealift.agent.record import Record

__all__ = ["JOURNAL_BYTES", "Floors", "Journal", "state_from_json", "state_to_json"]

SCHEMA = 1
READABLE_FROM = 1
JOURNAL_BYTES = 256 * 1024
"""The limit both records are to be opened with."""

_Json = dict[str, object]


class Journal:
    """The states of all components, read once, written before the world changes."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._states: dict[str, State] = {}

    def read(self) -> Mapping[str, State]:
        """What was journaled last, by ECU id; empty before the first write.

        Raises:
            LostError: both copies are damaged, or a newer agent wrote it.
            StateError: it cannot be read now.
        """
        self._states = {}
        raw = self._record.read()
        if raw is not None:
            self._states = _decode(raw)
        return dict(self._states)

    def write(self, ecu_id: str, state: State) -> None:
        """Replace one component's state. Durable when this returns.

        Raises:
            StateError, SpaceError: not written; the state before still stands.
        """
        states = self._states | {ecu_id: state}
        self._record.write(_encode(states))
        self._states = states

    @property
    def sequence(self) -> int:
        """How many records were written before the present one, and it."""
        return self._record.sequence


class Floors:
    """The lowest release counter each ECU still accepts (W4, D-03 … D-05).

    Kept in a record of its own and, where the board has one, in a hardware counter. The
    floor is the highest value any of them knows. A damaged record is no floor of zero:
    the shell adds the counter of what is installed (``known``).

    The record is written before the counter steps. So a record below its counter is
    that of an earlier day, put back (D-15); :meth:`agree` refuses it.
    """

    def __init__(
        self, record: Record, hardware: Mapping[str, Counter] | None = None
    ) -> None:
        self._record = record
        self._hardware = dict(hardware or {})
        self._known: dict[str, int] = {}
        self._kept: dict[str, int] | None = None

    def known(self, ecu_id: str, counter: int) -> None:
        """Say what the confirmed image's counter is; it is a floor, too."""
        self._known[ecu_id] = max(counter, self._known.get(ecu_id, 0))

    def heed(self, states: Mapping[str, State]) -> None:
        """The confirmed images of these states are floors."""
        for ecu_id, state in states.items():
            if (image := installed(state)) is not None:
                self.known(ecu_id, image.release_counter)

    def floor(self, ecu_id: str) -> int:
        """The lowest release counter accepted for this ECU; 0 if nothing forbids.

        Raises:
            StateError: record or hardware counter cannot be read now.
        """
        hardware = self._hardware.get(ecu_id)
        return counter_floor(
            self._read().get(ecu_id),
            self._known.get(ecu_id),
            hardware.value() if hardware else None,
        )

    def raise_to(self, ecu_id: str, counter: int) -> None:
        """Raise the floor; durable when this returns, and harmless to repeat.

        Raises:
            StateError, SpaceError: some memory of it could not be raised; do it again.
        """
        kept = self._read()
        if kept.get(ecu_id, 0) < counter:
            kept = kept | {ecu_id: counter}
            self._record.write(_dump({"schema": SCHEMA, "floors": kept}))
            self._kept = kept
        if hardware := self._hardware.get(ecu_id):
            hardware.advance(counter)

    def counted(self) -> bool:
        """Whether hardware says that this device has confirmed a release before.

        Raises:
            StateError: a hardware counter cannot be read now.
        """
        return any(counter.value() for counter in self._hardware.values())

    def agree(self, states: Mapping[str, State]) -> None:
        """See that record and hardware are of one device and one day, and make it so.

        A counter below its record is raised: the step that was cut is finished. A state
        that was wiped whole takes over what the counter says.

        Raises:
            StateError: what is stored here is older than the device (D-15); or it
            cannot be read or written.
        """
        for ecu_id, counter in self._hardware.items():
            value, kept = counter.value(), self._read().get(ecu_id)
            if self._is_old(ecu_id, states, value):
                raise StateError(
                    f"the stored floor of {ecu_id} is {kept or 0}, its hardware "
                    f"counter stands at {value}: this state is of an earlier day",
                    hint="docs/agent.md, Old state and lost keys",
                    component=ecu_id,
                )
            if kept is not None and kept > value:
                counter.advance(kept)
            elif kept is None and value:
                self.raise_to(ecu_id, value)

    def remarks(self, states: Mapping[str, State]) -> list[str]:
        """What ``status`` says of the hardware counters; reads only.

        Raises:
            StateError: record or hardware counter cannot be read now.
        """
        found = []
        for ecu_id, counter in self._hardware.items():
            value, kept = counter.value(), self._read().get(ecu_id, 0)
            if self._is_old(ecu_id, states, value):
                found.append(f"the state of {ecu_id} is of an earlier day")
            elif value < kept:
                found.append(
                    f"the hardware counter of {ecu_id} stands at {value}, below the "
                    f"floor {kept}"
                )
        return found

    def _is_old(self, ecu_id: str, states: Mapping[str, State], value: int) -> bool:
        """Below the counter, and neither wiped nor damaged: then it was put back.

        Who damages it on the way gains nothing: the counter is the floor all the same.
        """
        kept = self._read().get(ecu_id)
        if self._record.torn:
            return False
        return value > 0 and ecu_id in states if kept is None else kept < value

    def _read(self) -> dict[str, int]:
        if self._kept is None:
            try:
                self._kept = _floors(self._record.read())
            except LostError:
                self._kept = {}
        return self._kept


# ── bytes ────────────────────────────────────────────────────────────────────────────
def _encode(states: Mapping[str, State]) -> bytes:
    components = {ecu: state_to_json(state) for ecu, state in states.items()}
    return _dump(
        {"schema": SCHEMA, "readable_from": READABLE_FROM, "components": components}
    )


def _dump(found: _Json) -> bytes:
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def _decode(raw: bytes) -> dict[str, State]:
    try:
        found = _object(json.loads(raw))
        if _count(found, "readable_from") > SCHEMA:
            raise LostError(
                f"a newer agent wrote the journal (schema {found.get('schema')})",
                hint="start the newer software again, or remove the journal",
            )
        components = _object(found.get("components"))
        return {ecu: state_from_json(_object(it)) for ecu, it in components.items()}
    except (ValueError, RecursionError, FormatError) as error:
        raise LostError(f"the journal makes no sense: {error}") from error


def _floors(raw: bytes | None) -> dict[str, int]:
    if raw is None:
        return {}
    try:
        floors = _object(_object(json.loads(raw)).get("floors"))
        return {ecu: _count(floors, ecu) for ecu in floors}
    except (ValueError, RecursionError, FormatError) as error:
        raise LostError(f"the counter floors make no sense: {error}") from error


# ── states ───────────────────────────────────────────────────────────────────────────
_PLAIN: dict[str, Callable[[Attempt], State]] = {
    "staged": Staged,
    "arming": Arming,
    "confirming": Confirming,
}
_ENDING: dict[str, Callable[[Attempt, Result], State]] = {
    "reverting": Reverting,
    "reporting": Reporting,
}


def state_to_json(state: State) -> _Json:
    """A state as JSON values; :func:`state_from_json` reads it back."""
    found: _Json = {"state": name(state)}
    if isinstance(state, Idle):
        if state.installed is not None:
            found["installed"] = state.installed.to_json()
        if state.refused is not None:
            found["refused"] = {
                "sha256": state.refused.sha256.hex(),
                "director_version": state.refused.director_version,
            }
        return found
    found["attempt"] = _attempt_to_json(state.attempt)
    if isinstance(state, Staging) and state.gone:
        found["gone"] = state.gone
    if isinstance(state, Rebooting | Trial):
        found["boot_id"] = state.boot_id
    if isinstance(state, Trial):
        found["since_ms"] = round(state.since * 1000)
    if isinstance(state, Reverting | Reporting):
        found["result"] = {
            "verdict": state.result.verdict.value,
            "stage": state.result.stage,
            "code": state.result.code,
            "detail": state.result.detail,
        }
    return found


def state_from_json(found: Mapping[str, object]) -> State:
    """Read a state strictly: every member of its kind, every type exact.

    Raises:
        MalformedError: no such state, or a member is missing or of a wrong type.
    """
    kind = _text(found, "state")
    if kind == "idle":
        return _idle(found)
    attempt = _attempt(_object(found.get("attempt")))
    if plain := _PLAIN.get(kind):
        return plain(attempt)
    if ending := _ENDING.get(kind):
        return ending(attempt, _result(_object(found.get("result"))))
    if kind == "staging":
        return Staging(attempt, _count(found, "gone") if "gone" in found else 0)
    if kind == "rebooting":
        return Rebooting(attempt, _text(found, "boot_id"))
    if kind == "trial":
        since = _count(found, "since_ms") / 1000
        return Trial(attempt, _text(found, "boot_id"), since)
    raise MalformedError(f"there is no state {kind[:40]!r}")


def _idle(found: Mapping[str, object]) -> Idle:
    installed, refused = found.get("installed"), found.get("refused")
    return Idle(
        installed=None if installed is None else Artifact.from_json(_object(installed)),
        refused=None if refused is None else _refused(_object(refused)),
    )


def _refused(found: Mapping[str, object]) -> Refused:
    digest = _text(found, "sha256")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise MalformedError("sha256 is not 32 bytes in lower hex")
    return Refused(bytes.fromhex(digest), _count(found, "director_version"))


def _attempt_to_json(attempt: Attempt) -> _Json:
    return {
        "id": attempt.id,
        "order": attempt.order.to_json(),
        "slot": attempt.slot.value,
        "home": attempt.home.value,
        "base": None if attempt.base is None else attempt.base.to_json(),
    }


def _attempt(found: Mapping[str, object]) -> Attempt:
    base = found.get("base")
    slot, home = _slot(found, "slot"), _slot(found, "home")
    if slot is home:
        raise MalformedError("an attempt cannot write its own home")
    return Attempt(
        id=_text(found, "id"),
        order=Instruction.from_json(_object(found.get("order"))),
        slot=slot,
        home=home,
        base=None if base is None else Artifact.from_json(_object(base)),
    )


def _result(found: Mapping[str, object]) -> Result:
    verdict = _text(found, "verdict")
    if verdict not in {known.value for known in Verdict}:
        raise MalformedError(f"there is no verdict {verdict[:40]!r}")
    return Result(
        verdict=Verdict(verdict),
        stage=_text(found, "stage"),
        code=None if found.get("code") is None else _text(found, "code"),
        detail=_text(found, "detail"),
    )


def _slot(found: Mapping[str, object], member: str) -> Slot:
    value = _text(found, member)
    if value not in {known.value for known in Slot}:
        raise MalformedError(f"{member} is not a slot")
    return Slot(value)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise MalformedError("an object is missing")
    return value


def _text(found: Mapping[str, object], member: str) -> str:
    value = found.get(member)
    if not isinstance(value, str):
        raise MalformedError(f"{member} is not a text", member=member)
    return value


def _count(found: Mapping[str, object], member: str) -> int:
    value = found.get(member)
    if type(value) is not int or value < 0:
        raise MalformedError(f"{member} is not a count", member=member)
    return value
